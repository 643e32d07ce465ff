"""Registration of users and clients, the first signing key, clients' keys by URL, and what a subject may see."""

import json
import threading
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from flask.testing import FlaskClient
from joserfc.jwk import KeySet, RSAKey
from pymongo.database import Database

from fhir_server.access import Scope
from smart_auth.access import access_of_subject
from smart_auth.clients import add_client, deactivate_client
from smart_auth.jwks import ClientKeys, JwksUnavailable
from smart_auth.keys import KeyRing
from smart_auth.models import Client
from smart_auth.service import AuthService
from smart_auth.store import AlreadyThere, AuthStore
from smart_auth.tokens import LIFETIME
from smart_auth.users import add_user, deactivate_user
from tests.smart_auth.conftest import Clients
from tests.smart_auth.oauth import CALLBACK, JWKS, PASSWORD, RSA, Clock, bearer


class TestUser:
    def add(self, service: AuthService, name: str = "eve", password: str = PASSWORD, **more: Any) -> None:
        add_user(service.store, service.passwords, name, password, **{"roles": ["referrer"], **more})

    def test_is_added_once(self, service: AuthService) -> None:
        self.add(service)
        with pytest.raises(AlreadyThere):
            self.add(service)

    @pytest.mark.parametrize(
        "differences",
        [
            {"name": ""},
            {"name": "Eve"},
            {"name": "a b"},
            {"name": "$ne"},
            {"name": "x" * 65},
            {"name": "eve\n"},
            {"password": "short"},
            {"password": "x" * 257},
            {"roles": ["god"]},
            {"organization": "o1"},
            {"organization": "Patient/o1"},
            {"organization": "Organization/"},
            {"organization": "Organization/o1\n"},
            {"fhir_user": "Organization/o1"},
            {"fhir_user": "https://evil.example.org/Practitioner/1"},
        ],
    )
    def test_with_a_fault_is_refused(self, service: AuthService, differences: dict) -> None:
        with pytest.raises(ValueError):
            self.add(service, **differences)
        assert service.store.users() == []

    def test_keeps_no_password(self, service: AuthService, database: Database) -> None:
        self.add(service)
        stored = database["auth_users"].find_one({"_id": "eve"})
        assert stored is not None
        assert stored["password_hash"].startswith("$argon2id$")
        assert PASSWORD not in str(stored)
        assert "argon2" not in repr(service.store.user("eve"))


class TestClient:
    @pytest.mark.parametrize(
        "differences",
        [
            {"client_id": ""},
            {"client_id": "a:b"},
            {"client_id": "a%b"},
            {"client_id": "é"},
            {"type": "admin"},
            {"scope": ""},
            {"scope": "user/Task.dus"},
            {"scope": "user/Task.rs launch/nonsense"},
            {"scope": "user/Task.rs?authored-on=gt2020"},
            {"scope": "system/*.rs"},
            {"redirect_uris": []},
            {"redirect_uris": ["/callback"]},
            {"redirect_uris": ["javascript:alert(1)"]},
            {"redirect_uris": ["data:text/html,x"]},
            {"redirect_uris": ["https:///x"]},
            {"redirect_uris": [f"{CALLBACK}#x"]},
            {"redirect_uris": [f"{CALLBACK} x"]},
            {"launch_uris": ["javascript:x"]},
            {"origins": ["https://app.example.org/"]},
            {"origins": ["*"]},
            {"origins": ["null"]},
            {"organization": "o1"},
            {"jwks": JWKS},
            {"type": "backend"},
            {"type": "backend", "redirect_uris": [], "scope": "user/*.rs", "jwks": JWKS},
            {"type": "backend", "redirect_uris": [], "scope": "openid", "jwks": JWKS},
            {"type": "backend", "redirect_uris": [], "scope": "system/*.rs"},
            {"type": "confidential-asymmetric", "jwks": JWKS, "jwks_uri": "https://app.example.org/jwks"},
            {"type": "confidential-asymmetric", "jwks_uri": "file:///etc/passwd"},
            {"type": "confidential-asymmetric", "jwks": {}},
            {"type": "confidential-asymmetric", "jwks": {"keys": []}},
            {"type": "confidential-asymmetric", "jwks": {"keys": [{"kty": "oct", "k": "AAAA", "kid": "x"}]}},
            {"type": "confidential-asymmetric", "jwks": {"keys": [{"kty": "RSA", "kid": "x"}]}},
            {"type": "confidential-asymmetric", "jwks": {"keys": ["x"]}},
        ],
    )
    def test_with_a_fault_is_refused(self, service: AuthService, differences: dict) -> None:
        ordinary = {"client_id": "x", "type": "public", "scope": "user/*.rs", "redirect_uris": [CALLBACK]}
        with pytest.raises(ValueError):
            add_client(service.store, **(ordinary | differences))
        assert service.store.clients() == []

    @pytest.mark.parametrize("uri", ["http://127.0.0.1:9999/cb", "org.example.app:/callback"])
    def test_may_be_a_native_app(self, service: AuthService, uri: str) -> None:
        added = add_client(service.store, "x", type="public", scope="user/*.rs", redirect_uris=[uri])
        assert added.client.redirect_uris == (uri,)

    def test_shows_its_secret_once(self, service: AuthService, clients: Clients, database: Database) -> None:
        secret = clients.symmetric.secret
        assert secret is not None
        assert not {"%", ":"} & set(secret)
        assert secret not in str(list(database["auth_clients"].find()))
        assert clients.public.secret is None

    def test_keeps_public_keys_only(self, service: AuthService) -> None:
        private = KeySet([RSA]).as_dict(private=True)
        added = add_client(service.store, "x", type="backend", scope="system/*.rs", jwks=private)
        assert added.client.jwks is not None
        assert "d" not in added.client.jwks["keys"][0]

    def test_is_added_once(self, service: AuthService, clients: Clients) -> None:
        with pytest.raises(AlreadyThere):
            add_client(service.store, "app", type="public", scope="user/*.rs", redirect_uris=[CALLBACK])


class TestSubject:
    def test_has_its_rights_of_now(self, service: AuthService, users: None, clients: Clients) -> None:
        ehr = access_of_subject(service.store, "client:ehr")
        assert ehr is not None
        assert ehr.scopes == (Scope("system", "*", "rs"), Scope("system", "Task", "cu"))
        assert ehr.audience == {"@any", "@Organization/o1", "@owner/client:ehr"}
        ruth = access_of_subject(service.store, "user:ruth")
        assert ruth is not None
        assert ruth.audience == {"@any", "@Organization/o1", "@owner/user:ruth"}
        assert ruth.allows("create", "ServiceRequest")
        assert not ruth.allows("create", "DiagnosticReport")

    @pytest.mark.parametrize(
        "name, audience",
        [("frida", None), ("adam", {"@any", "@audit"}), ("lone", {"@any"}), ("paul", {"@any"})],
    )
    def test_sees_what_its_role_and_organization_give(
        self, service: AuthService, users: None, name: str, audience: set | None
    ) -> None:
        access = access_of_subject(service.store, f"user:{name}")
        assert access is not None
        assert access.audience == audience

    def test_that_is_deactivated_or_unknown_has_none(
        self, service: AuthService, users: None, clients: Clients
    ) -> None:
        deactivate_user(service.store, "ruth")
        deactivate_client(service.store, "ehr")
        for subject in ("user:ruth", "client:ehr", "user:nobody", "client:nobody", "system:open", "ruth", "", ":"):
            assert access_of_subject(service.store, subject) is None

    def test_that_is_an_app_has_no_rights_of_its_own(self, service: AuthService, clients: Clients) -> None:
        app = access_of_subject(service.store, "client:app")
        assert app is not None
        assert app.scopes == ()


class TestTokenForTheCommandLine:
    def test_has_what_is_asked_and_theirs(self, service: AuthService, users: None, clients: Clients) -> None:
        ruth = service.store.user("ruth")
        assert ruth is not None
        access = service.verifier.access(service.issuer.issue_for_user(ruth, "user/*.cruds system/*.cruds"))
        assert Scope("user", "*", "rs") in access.scopes
        assert Scope("user", "*", "cruds") not in access.scopes
        access = service.verifier.access(service.issuer.issue_for_client(clients.office.client, "system/*.cruds"))
        assert access.scopes == (Scope("system", "*", "rs"), Scope("system", "Task", "cu"))

    def test_is_refused_when_nothing_is_left(self, service: AuthService, users: None, clients: Clients) -> None:
        ruth = service.store.user("ruth")
        assert ruth is not None
        with pytest.raises(ValueError, match="none of these scopes"):
            service.issuer.issue_for_user(ruth, "system/*.rs")
        with pytest.raises(ValueError, match="none of these scopes"):
            service.issuer.issue_for_user(ruth, "patient/*.rs")
        with pytest.raises(ValueError, match="none of these scopes"):
            service.issuer.issue_for_client(clients.public.client, "user/*.rs")

    def test_of_staff_may_be_about_one_patient(self, service: AuthService, users: None) -> None:
        frida = service.store.user("frida")
        assert frida is not None
        access = service.verifier.access(service.issuer.issue_for_user(frida, "patient/*.rs", patient="Patient/p1"))
        assert access.audience == {"@any", "@Patient/p1", "@owner/user:frida"}

    def test_of_a_referring_office_is_about_what_it_sees_of_one_patient(
        self, service: AuthService, users: None
    ) -> None:
        ruth = service.store.user("ruth")
        assert ruth is not None
        access = service.verifier.access(service.issuer.issue_for_user(ruth, "patient/*.rs", patient="Patient/p1"))
        mine, patients = {"@any", "@Organization/o1", "@owner/user:ruth"}, {"@any", "@Patient/p1", "@owner/user:ruth"}
        assert (access.audience, access.compartment) == (mine, patients)
        assert access.sees(["@Organization/o1", "@Patient/p1"])
        assert not access.sees(["@Organization/o1", "@Patient/p2"]), "another patient of the office"
        assert not access.sees(["@Organization/o2", "@Patient/p1"]), "another office's part of the record"
        assert not access.is_practice

    @pytest.mark.parametrize("lifetime", [timedelta(0), timedelta(seconds=-1), LIFETIME + timedelta(seconds=1)])
    def test_lives_up_to_an_hour(self, service: AuthService, clients: Clients, lifetime: timedelta) -> None:
        with pytest.raises(ValueError, match="an hour"):
            service.issuer.issue_for_client(clients.office.client, "system/*.rs", lifetime)


class TestSigningKey:
    def test_a_new_one_signs_when_everybody_knows_it(
        self, service: AuthService, http: FlaskClient, clock: Clock
    ) -> None:
        old = service.keys.signing_key().kid
        new = service.keys.rotate()
        assert [key["kid"] for key in http.get("/auth/jwks").json["keys"]] == [old, new]
        assert service.keys.signing_key().kid == old
        clock.forward(minutes=11)
        assert service.keys.signing_key().kid == new

    def test_an_old_one_is_good_for_what_it_signed(
        self, service: AuthService, http: FlaskClient, users: None, clock: Clock
    ) -> None:
        frida = service.store.user("frida")
        assert frida is not None
        service.keys.rotate()
        clock.forward(minutes=9)
        token = service.issuer.issue_for_user(frida, "user/Task.rs")
        clock.forward(minutes=50)
        assert http.get("/fhir/whoami", headers=bearer(token)).status_code == 200

    def test_an_old_one_goes_when_nothing_it_signed_can_be_good(self, service: AuthService, clock: Clock) -> None:
        old = service.keys.signing_key().kid
        service.keys.rotate()
        clock.forward(minutes=70)
        assert service.keys.verifying_key(old), "its last token is an hour old"
        service.keys.rotate()
        assert service.keys.verifying_key(old)
        clock.forward(hours=3)
        newest = service.keys.rotate()
        kids = [key["kid"] for key in service.keys.jwks()["keys"]]
        assert old not in kids
        assert newest in kids

    def test_a_new_one_is_noticed_by_other_processes(
        self, service: AuthService, database: Database, clock: Clock
    ) -> None:
        other = KeyRing(AuthStore(database), clock)
        other.signing_key()
        new = service.keys.rotate()
        clock.forward(minutes=11)
        assert other.signing_key().kid == new

    def test_two_that_are_made_at_once_do_not_lose_one(self, service: AuthService) -> None:
        stored = service.store.signing_keys()
        service.keys.rotate()
        assert not service.store.set_signing_keys(stored, instead_of=stored)

    def test_is_one_however_many_processes_start(self, database: Database, clock: Clock) -> None:
        rings = [KeyRing(AuthStore(database), clock) for _ in range(4)]
        found: list[str] = []
        start = threading.Barrier(len(rings))

        def run(ring: KeyRing) -> None:
            start.wait()
            found.append(str(ring.jwks()))

        threads = [threading.Thread(target=run, args=[ring]) for ring in rings]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 4
        assert len(set(found)) == 1

    def test_of_a_later_process_is_the_same(self, service: AuthService, database: Database, clock: Clock) -> None:
        assert KeyRing(AuthStore(database), clock).jwks() == service.keys.jwks()


class _Jwks(BaseHTTPRequestHandler):
    """A client's JWKS address, which answers what the test says."""

    def do_GET(self) -> None:
        server: Any = self.server
        server.asked.append((self.path, dict(self.headers)))
        status, headers, body = server.answer
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


def jwks_of(*keys: RSAKey) -> bytes:
    return json.dumps(KeySet(list(keys)).as_dict(private=False)).encode()


class TestKeysByUrl:
    """https://hl7.org/fhir/smart-app-launch/client-confidential-asymmetric.html"""

    @pytest.fixture
    def address(self) -> Iterator[Any]:
        server: Any = HTTPServer(("127.0.0.1", 0), _Jwks)
        server.asked, server.answer = [], (200, {}, jwks_of(RSA))
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        yield server
        server.shutdown()
        thread.join()
        server.server_close()

    @pytest.fixture
    def client(self, address: Any) -> Client:
        return Client("x", "backend", "x", jwks_uri=f"http://127.0.0.1:{address.server_port}/jwks")

    def test_are_fetched_and_kept(self, client: Client, address: Any, clock: Clock) -> None:
        keys = ClientKeys(clock)
        for _ in range(3):
            found = keys.find(client, "rsa-1")
            assert found is not None
            assert not found.is_private
        assert [path for path, _ in address.asked] == ["/jwks"]
        assert "Authorization" not in address.asked[0][1]

    @pytest.mark.parametrize(
        "cache_control, kept_s",
        [("max-age=60", 60), ("max-age=0", 10), ("no-store", 300), ("max-age=99999999", 3600)],
    )
    def test_are_kept_as_long_as_the_answer_says_within_bounds(
        self, client: Client, address: Any, clock: Clock, cache_control: str, kept_s: int
    ) -> None:
        address.answer = (200, {"Cache-Control": cache_control}, jwks_of(RSA))
        keys = ClientKeys(clock)
        keys.find(client, "rsa-1")
        clock.forward(seconds=kept_s - 1)
        keys.find(client, "rsa-1")
        assert len(address.asked) == 1
        clock.forward(seconds=1)
        keys.find(client, "rsa-1")
        assert len(address.asked) == 2

    def test_are_fetched_once_more_for_an_unknown_kid(self, client: Client, address: Any, clock: Clock) -> None:
        keys = ClientKeys(clock)
        keys.find(client, "rsa-1")
        new = RSAKey.generate_key(2048, {"kid": "rsa-2"}, private=True)
        address.answer = (200, {}, jwks_of(RSA, new))
        clock.forward(seconds=10)
        assert keys.find(client, "rsa-2") is not None
        for _ in range(5):
            assert keys.find(client, "made-up") is None
        assert len(address.asked) == 2, "made-up kids do not have us call somebody again and again"

    @pytest.mark.parametrize(
        "answer",
        [
            (302, {"Location": "/elsewhere"}, b""),
            (404, {}, b"{}"),
            (500, {}, b""),
            (200, {}, b""),
            (200, {}, b"<html>"),
            (200, {}, b"[" * 60_000),
            (200, {}, b'{"keys": []}'),
            (200, {}, b'{"keys": [{"kty": "RSA", "kid": "rsa-1", "n": "!", "e": "AQAB"}]}'),
            (200, {}, jwks_of(RSA) + b" " * 70_000),
            (200, {"Content-Encoding": "gzip"}, b"no gzip"),
        ],
    )
    def test_that_cannot_be_had_are_no_keys(self, client: Client, address: Any, clock: Clock, answer: Any) -> None:
        address.answer = answer
        with pytest.raises(JwksUnavailable):
            ClientKeys(clock).find(client, "rsa-1")
        assert [path for path, _ in address.asked] == ["/jwks"], "no redirect is followed"

    def test_of_a_host_that_is_not_there_are_no_keys(self, clock: Clock) -> None:
        client = Client("x", "backend", "x", jwks_uri="http://127.0.0.1:1/jwks")
        with pytest.raises(JwksUnavailable):
            ClientKeys(clock).find(client, "rsa-1")


def test_everything_that_expires_has_a_ttl_index(service: AuthService, database: Database) -> None:
    for name in ("auth_codes", "auth_grants", "auth_jtis", "auth_sessions", "auth_attempts"):
        ttl = database[name].index_information()["ttl"]
        assert (ttl["key"], ttl["expireAfterSeconds"]) == ([("expires", 1)], 0)
