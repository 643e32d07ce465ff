"""Log-in by an outside OpenID provider: a second server of ours, over real HTTP. OpenID Connect Core section 3.1."""

import json
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
import requests
from flask import Flask
from flask.testing import FlaskClient
from joserfc import jwt
from pymongo import MongoClient
from werkzeug.serving import make_server

from fhir_server.repository import Repository
from fhir_server.store import VersionStore
from smart_auth.clients import add_client
from smart_auth.outside.flow import Arrival, Refused
from smart_auth.outside.servers import BadServers, Server, read_servers
from smart_auth.outside.users import user_of
from smart_auth.passwords import Passwords
from smart_auth.service import AuthService, create_service
from smart_auth.users import add_user, deactivate_user
from tests.smart_auth.conftest import create_app
from tests.smart_auth.oauth import JWKS, ORIGIN, PASSWORD, RSA, SIGNING, Clock, consent_form, hidden

CALLBACK = f"{ORIGIN}/auth/outside/callback"
NOW_S = 600


@dataclass
class Provider:
    """The other server, which knows a user `ada`."""

    origin: str
    service: AuthService
    http: Any

    def agree(self, address: str, decision: str = "allow") -> str:
        """Log in there and agree; where the browser is sent back to."""
        browser = requests.Session()
        page = browser.get(f"{self.origin}/auth/login").text
        form = {"name": "ada", "password": PASSWORD, "next": "/", "login_token": hidden(page, "login_token")}
        browser.post(f"{self.origin}/auth/login", data=form, allow_redirects=False)
        shown = browser.get(address)
        assert shown.status_code == 200, shown.text
        agreed = consent_form(shown.text) | {"decision": decision}
        back = browser.post(f"{self.origin}/auth/consent", data=agreed, allow_redirects=False)
        return back.headers["Location"]


@pytest.fixture
def provider(mongo_client: MongoClient, clock: Clock, quick_passwords: Passwords) -> Iterator[Provider]:
    database = mongo_client[f"test_{uuid.uuid4().hex[:16]}"]
    app = Flask("nothing yet")
    http = make_server("127.0.0.1", 0, app, threaded=True)
    origin = f"http://127.0.0.1:{http.server_port}"
    service = create_service(database, clock, origin, quick_passwords)
    service.store.first_signing_key(dict(SIGNING.as_dict(private=True)), clock())
    add_user(service.store, service.passwords, "ada", PASSWORD, roles=["front-desk"], fhir_user="Practitioner/ada")
    for name, kind, more in (("public", "public", {}), ("keys", "confidential-asymmetric", {"jwks": JWKS})):
        add_client(service.store, name, type=kind, scope="openid fhirUser", redirect_uris=[CALLBACK], **more)
    secret = add_client(
        service.store, "secret", type="confidential-symmetric", scope="openid", redirect_uris=[CALLBACK]
    ).secret
    assert secret is not None
    http.app = create_app(service, Repository(VersionStore(database), f"{origin}/fhir", clock))
    thread = threading.Thread(target=http.serve_forever)
    thread.start()
    found = Provider(origin, service, http)
    found.secret = secret  # type: ignore[attr-defined]
    yield found
    http.shutdown()
    thread.join()
    http.server_close()
    mongo_client.drop_database(database.name)


@pytest.fixture
def server(provider: Provider) -> Server:
    return Server(
        "second",
        "openid",
        "The second",
        f"{provider.origin}/fhir",
        "public",
        "openid",
        roles=frozenset({"front-desk"}),
    )


def browser_of(service: AuthService, repository: Repository, *servers: Server) -> FlaskClient:
    return create_app(replace(service, outside={one.name: one for one in servers}), repository).test_client()


@pytest.fixture
def visitor(service: AuthService, repository: Repository, server: Server) -> FlaskClient:
    return browser_of(service, repository, server)


def go(visitor: FlaskClient, wanted: str = "/desk") -> str:
    response = visitor.get("/auth/outside/second", query_string={"next": wanted})
    assert response.status_code == 303
    return response.location


def come_back(visitor: FlaskClient, address: str) -> Any:
    parts = urlsplit(address)
    assert f"{parts.scheme}://{parts.netloc}{parts.path}" == CALLBACK
    return visitor.get(f"{parts.path}?{parts.query}")


class TestLogIn:
    def test_is_offered_on_the_log_in_page(self, visitor: FlaskClient) -> None:
        page = visitor.get("/desk", headers={"Accept": "text/html"}).text
        assert "Log in with The second" in page
        assert "/auth/outside/second?next=/desk" in page

    def test_lets_in_to_where_one_was_going(self, visitor: FlaskClient, provider: Provider) -> None:
        response = come_back(visitor, provider.agree(go(visitor, "/desk?day=today")))
        assert (response.status_code, response.location) == (303, "/desk?day=today")
        assert visitor.get("/desk").json["audience"] is None, "the role that the set-up gives"

    def test_gives_the_same_user_each_time(
        self, visitor: FlaskClient, provider: Provider, service: AuthService
    ) -> None:
        for _ in range(2):
            come_back(visitor, provider.agree(go(visitor)))
        assert len(service.store.users()) == 1
        assert not service.passwords.verify(service.store.users()[0].password_hash, "-")

    @pytest.mark.parametrize("client_id", ["secret", "keys"])
    def test_authenticates_as_we_are_registered_there(
        self,
        service: AuthService,
        repository: Repository,
        provider: Provider,
        server: Server,
        client_id: str,
    ) -> None:
        proof: dict[str, Any] = {"key": RSA} if client_id == "keys" else {"secret": provider.secret}  # type: ignore[attr-defined]
        visitor = browser_of(service, repository, replace(server, client_id=client_id, **proof))
        assert come_back(visitor, provider.agree(go(visitor))).status_code == 303

    def test_asks_with_state_nonce_and_pkce(self, visitor: FlaskClient) -> None:
        asked = parse_qs(urlsplit(go(visitor)).query)
        assert asked["response_type"] == ["code"]
        assert asked["code_challenge_method"] == ["S256"]
        for name in ("state", "nonce", "code_challenge"):
            assert len(asked[name][0]) >= 43
        assert parse_qs(urlsplit(go(visitor)).query)["state"] != asked["state"]


class TestFaults:
    def test_a_denial_lets_nobody_in(self, visitor: FlaskClient, provider: Provider) -> None:
        response = come_back(visitor, provider.agree(go(visitor), decision="deny"))
        assert response.status_code == 403
        assert visitor.get("/desk").status_code == 401

    def test_each_way_in_is_good_once(self, visitor: FlaskClient, provider: Provider) -> None:
        back = provider.agree(go(visitor))
        assert come_back(visitor, back).status_code == 303
        visitor.delete_cookie("radloop")
        assert come_back(visitor, back).status_code == 403
        assert visitor.get("/desk").status_code == 401

    def test_and_for_ten_minutes(self, visitor: FlaskClient, provider: Provider, clock: Clock) -> None:
        address = go(visitor)
        clock.forward(seconds=NOW_S + 1)
        assert come_back(visitor, provider.agree(address)).status_code == 403

    def test_and_in_the_browser_that_began_it(
        self, visitor: FlaskClient, provider: Provider, service: AuthService, repository: Repository, server: Server
    ) -> None:
        victim = browser_of(service, repository, server)
        back = provider.agree(go(visitor))
        assert come_back(victim, back).status_code == 403
        assert victim.get("/desk").status_code == 401

    @pytest.mark.parametrize(
        "query",
        [
            {},
            {"state": "made-up", "code": "x"},
            {"state": "\N{PILE OF POO}", "code": "x"},
            {"state": "x" * 9000},
            {"error": "<b>bold</b>"},
        ],
    )
    def test_what_never_began_lets_nobody_in(self, visitor: FlaskClient, query: dict) -> None:
        response = visitor.get(f"/auth/outside/callback?{urlencode(query)}")
        assert response.status_code == 403
        assert "<b>" not in response.text

    def test_a_wrong_code_lets_nobody_in(self, visitor: FlaskClient) -> None:
        state = parse_qs(urlsplit(go(visitor)).query)["state"][0]
        response = visitor.get("/auth/outside/callback", query_string={"state": state, "code": "made-up"})
        assert response.status_code == 502
        assert visitor.get("/desk").status_code == 401

    @pytest.mark.parametrize(
        "claims",
        [
            {"iss": "https://evil.example.org"},
            {"aud": "another"},
            {"exp": 0},
            {"nonce": "another"},
            {"nonce": None},
            {"sub": None},
            {"sub": ""},
            {"sub": 5},
        ],
    )
    def test_an_id_token_with_a_fault_lets_nobody_in(
        self, visitor: FlaskClient, provider: Provider, monkeypatch: pytest.MonkeyPatch, claims: dict
    ) -> None:
        encode = jwt.encode

        def altered(header: Any, found: dict, *more: Any, **options: Any) -> str:
            if found.get("aud") == "public":
                found = {name: value for name, value in (found | claims).items() if value is not None}
            return encode(header, found, *more, **options)

        back = provider.agree(go(visitor))
        monkeypatch.setattr("authlib.oidc.core.grants.code.jwt.encode", altered)
        response = come_back(visitor, back)
        assert response.status_code == 403, response.text
        assert visitor.get("/desk").status_code == 401

    def test_a_server_that_is_away_is_told(
        self, service: AuthService, repository: Repository, server: Server
    ) -> None:
        visitor = browser_of(service, repository, replace(server, issuer="http://127.0.0.1:9/fhir"))
        response = visitor.get("/auth/outside/second")
        assert response.status_code == 502
        assert "cannot be reached" in response.text

    def test_a_server_that_is_not_set_up_is_404(self, visitor: FlaskClient) -> None:
        assert visitor.get("/auth/outside/third").status_code == 404

    @pytest.mark.parametrize("wanted", ["https://evil.example.org/", "//evil.example.org", "/\\evil.example.org"])
    def test_nobody_is_led_elsewhere(self, visitor: FlaskClient, provider: Provider, wanted: str) -> None:
        assert come_back(visitor, provider.agree(go(visitor, wanted))).location == "/"


class TestUser:
    """Who somebody is here."""

    def arrival(self, subject: str = "s-1", roles: tuple[str, ...] = (), **claims: Any) -> Arrival:
        server = Server(
            "second", "openid", "The second", "https://o.example.org", "c", "openid", roles=frozenset(roles)
        )
        return Arrival(server, subject, {"sub": subject, **claims}, {}, "/")

    @pytest.fixture(autouse=True)
    def eve(self, service: AuthService) -> None:
        add_user(
            service.store, service.passwords, "eve", PASSWORD, roles=["manager"], email="Eve.Long@clinic.example.org"
        )

    def test_is_recognized_by_a_confirmed_address_and_then_by_sub(self, service: AuthService) -> None:
        first = self.arrival(email="eve.long@clinic.example.org", email_verified=True)
        assert user_of(service, first).name == "eve"
        assert user_of(service, self.arrival(email="another@clinic.example.org")).name == "eve"

    @pytest.mark.parametrize(
        "claims",
        [
            {},
            {"email": "eve.long@clinic.example.org"},
            {"email": "eve.long@clinic.example.org", "email_verified": "true"},
            {"email": ".*", "email_verified": True},
            {"email": {"$ne": ""}, "email_verified": True},
            {"email": "nobody@clinic.example.org", "email_verified": True},
        ],
    )
    def test_is_nobody_otherwise(self, service: AuthService, claims: dict) -> None:
        with pytest.raises(Refused):
            user_of(service, self.arrival(**claims))

    def test_is_not_guessed_among_two(self, service: AuthService) -> None:
        add_user(
            service.store, service.passwords, "eva", PASSWORD, roles=["manager"], email="eve.long@clinic.example.org"
        )
        with pytest.raises(Refused):
            user_of(service, self.arrival(email="eve.long@clinic.example.org", email_verified=True))

    def test_whose_access_ended_does_not_come_in_again(self, service: AuthService) -> None:
        arrival = self.arrival(roles=("referrer",))
        deactivate_user(service.store, user_of(service, arrival).name)
        with pytest.raises(Refused):
            user_of(service, arrival)

    def test_of_a_server_that_makes_users_takes_over_nobody(self, service: AuthService) -> None:
        arrival = self.arrival(roles=("referrer",), email="eve.long@clinic.example.org", email_verified=True)
        assert user_of(service, arrival).name != "eve"


class TestSetUp:
    """The file that RADLOOP_OUTSIDE_SERVERS names."""

    EHR = {
        "name": "lakeside",
        "kind": "ehr",
        "title": "Lakeside EHR",
        "issuer": "https://ehr.example.org/fhir/",
        "client_id": "radloop",
        "organization": "Organization/lakeside",
    }

    def read(self, folder: Path, *entries: Any) -> Any:
        (folder / "servers.json").write_text(json.dumps(list(entries)))
        return read_servers(folder / "servers.json")

    def test_is_empty_without_a_file(self) -> None:
        assert read_servers(None) == {}

    def test_names_an_ehr_whose_users_refer_for_their_office(self, tmp_path: Path) -> None:
        found = self.read(tmp_path, self.EHR)["lakeside"]
        assert found.issuer == "https://ehr.example.org/fhir"
        assert (found.organization, found.roles) == ("Organization/lakeside", {"referrer"})
        assert "launch" in found.scope.split()

    def test_reads_secrets_and_keys_from_files_of_their_own(self, tmp_path: Path) -> None:
        (tmp_path / "secret").write_text("s3cret\n")
        (tmp_path / "key.json").write_text(json.dumps(RSA.as_dict(private=True)))
        first = self.EHR | {"secret_file": "secret"}
        second = self.EHR | {"name": "b", "issuer": "https://b.example.org", "key_file": "key.json"}
        found = self.read(tmp_path, first, second)
        assert found["lakeside"].secret == "s3cret"
        assert found["b"].key.kid == RSA.kid
        assert "s3cret" not in repr(found)

    @pytest.mark.parametrize(
        "differences",
        [
            {"name": "Lake side"},
            {"kind": "other"},
            {"issuer": "ftp://ehr.example.org"},
            {"organization": None},
            {"roles": ["admin"]},
            {"secret_file": "nothing"},
            {"key_file": "servers.json"},
            {"secret_file": "servers.json", "key_file": "servers.json"},
            {"surprise": 1},
        ],
    )
    def test_with_a_fault_is_refused(self, tmp_path: Path, differences: dict) -> None:
        entry = {name: value for name, value in (self.EHR | differences).items() if value is not None}
        with pytest.raises(BadServers):
            self.read(tmp_path, entry)

    def test_names_each_once(self, tmp_path: Path) -> None:
        with pytest.raises(BadServers):
            self.read(tmp_path, self.EHR, self.EHR | {"name": "other"})

    def test_that_is_not_there_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(BadServers):
            read_servers(tmp_path / "nothing.json")
