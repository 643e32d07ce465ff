"""The administrator's page of SMART apps and backend systems."""

import json
import re
from collections.abc import Callable
from dataclasses import replace

import pytest

from referral.context import Practice
from smart_auth.registration import OPEN, TOKEN
from smart_auth.registration import register as register_itself
from smart_auth.service import AuthService
from subscriptions.binding import Bindings
from subscriptions.mail_store import Outbox
from tests.portal.conftest import Person, create_app
from tests.smart_auth.oauth import JWKS, log_in

APP = {
    "client_id": "viewer",
    "name": "Viewer <i>",
    "type": "public",
    "scope": "launch openid\nuser/*.rs",
    "redirect_uris": "https://viewer.example.org/\nhttps://viewer.example.org/2",
    "launch_uris": "https://viewer.example.org/launch",
    "origins": "https://viewer.example.org",
}


@pytest.fixture
def adam(person: Callable[[str], Person]) -> Person:
    return person("adam")


def register(adam: Person, **fields: str) -> str:
    adam.open("/admin/clients/new")
    return adam.press("/admin/clients/new", **fields)


def test_an_app_is_registered_with_all_that_was_typed(adam: Person, auth: AuthService) -> None:
    html = register(adam, **APP)
    assert adam.status == 201
    assert "Viewer &lt;i&gt;" in html
    assert auth.fhir_base in html
    client = auth.store.client("viewer")
    assert client is not None
    assert client.scope == "launch openid user/*.rs"
    assert client.redirect_uris == ("https://viewer.example.org/", "https://viewer.example.org/2")
    assert client.launch_uris == ("https://viewer.example.org/launch",)
    assert client.origins == ("https://viewer.example.org",)
    assert not client.practice


def test_a_secret_is_shown_once(adam: Person, auth: AuthService) -> None:
    html = register(adam, **APP | {"type": "confidential-symmetric"})
    secret = re.search(r"kept nowhere: <code>([\w-]+)</code>", html)
    client = auth.store.client("viewer")
    assert secret and client is not None
    assert client.check_client_secret(secret[1])
    assert secret[1] not in adam.open("/admin/clients")


def test_a_system_is_registered_with_its_keys(adam: Person, auth: AuthService) -> None:
    register(
        adam,
        client_id="ehr",
        type="backend",
        scope="system/*.rs",
        jwks=json.dumps(JWKS),
        organization="Organization/lakeside",
    )
    client = auth.store.client("ehr")
    assert client is not None
    assert (client.organization, client.jwks is not None) == ("Organization/lakeside", True)


@pytest.mark.parametrize(
    "differences",
    [
        {"client_id": ""},
        {"client_id": "a:b"},
        {"type": "magic"},
        {"scope": "everything"},
        {"scope": ""},
        {"redirect_uris": ""},
        {"redirect_uris": "javascript:alert(1)"},
        {"origins": "*"},
        {"type": "backend"},
        {"type": "confidential-asymmetric"},
        {"type": "confidential-asymmetric", "jwks": "no json"},
        {"type": "confidential-asymmetric", "jwks": "[]"},
        {"type": "confidential-asymmetric", "jwks": "[" * 20_000},
        {"organization": "lakeside"},
    ],
)
def test_a_fault_is_told_and_what_was_typed_stays(adam: Person, auth: AuthService, differences: dict) -> None:
    html = register(adam, **APP | differences)
    assert adam.status == 422
    assert "Not registered" in html
    assert "Viewer &lt;i&gt;" in html
    assert auth.store.clients() == []


def test_an_id_is_registered_once(adam: Person) -> None:
    register(adam, **APP)
    assert "there is a client" in register(adam, **APP)


def test_access_is_ended_and_allowed_again(adam: Person, auth: AuthService) -> None:
    register(adam, **APP)
    adam.open("/admin/clients")
    assert "Its access is ended" in adam.press("/admin/clients/viewer/end")
    assert auth.store.client("viewer").active is False  # type: ignore[union-attr]
    adam.press("/admin/clients/viewer/begin")
    assert auth.store.client("viewer").active is True  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["frida", "ruth"])
def test_nobody_but_administrators_sees_or_changes_any(
    person: Callable[[str], Person], auth: AuthService, name: str
) -> None:
    somebody = person(name)
    csrf = somebody.open("/referrals") and somebody.csrf
    for path in ("/admin/clients", "/admin/clients/new"):
        somebody.open(path)
        assert somebody.status == 403
    somebody.send("/admin/clients/new", csrf_token=csrf, **APP)
    assert somebody.status == 403
    assert auth.store.clients() == []


@pytest.mark.parametrize("path", ["/admin/clients/nobody/end", "/admin/clients/viewer/delete"])
def test_what_is_not_there_is_404(adam: Person, path: str) -> None:
    adam.open("/admin/clients/new")
    adam.send(path, csrf_token=adam.csrf)
    assert adam.status == 404


class TestSelfRegistered:
    @pytest.fixture
    def id(self, auth: AuthService) -> str:
        answer = register_itself(
            replace(auth, registration=OPEN), {"redirect_uris": ["https://a.example/"]}, "", "::1"
        )
        return str(answer["client_id"])

    def test_is_listed_and_removed(self, adam: Person, auth: AuthService, id: str) -> None:
        html = adam.open("/admin/clients")
        assert "registered itself" in html
        assert "not checked by the practice" in html
        assert "It is removed" in adam.press(f"/clients/{id}/remove")
        assert auth.store.client(id) is None
        assert id not in adam.html

    def test_others_cannot_be_removed(self, adam: Person, auth: AuthService, id: str) -> None:
        register(adam, **APP)
        adam.open("/admin/clients")
        assert not adam.has("/clients/viewer/remove")
        adam.send("/admin/clients/viewer/remove", csrf_token=adam.csrf)
        assert adam.status == 404
        assert auth.store.client("viewer") is not None

    def test_makes_no_tokens_where_they_are_not_wanted(self, adam: Person) -> None:
        adam.open("/admin/clients")
        assert not adam.has("/registration-token")
        adam.send("/admin/clients/registration-token", csrf_token=adam.csrf)
        assert adam.status == 404


def test_a_token_lets_one_app_register(
    auth: AuthService, practice: Practice, bindings: Bindings, outbox: Outbox, react: Callable[[], None]
) -> None:
    vouched = replace(auth, registration=TOKEN)
    browser = create_app(vouched, practice, bindings, outbox).test_client()
    log_in(browser, "adam")
    adam = Person(browser, react)
    adam.open("/admin/clients")
    token = re.search(r"<code>([\w-]{43})</code>", adam.press("/registration-token"))
    assert token
    assert adam.status == 201
    assert register_itself(vouched, {"redirect_uris": ["https://a.example/"]}, token[1], "::1")["client_id"]
    adam.open("/admin/clients")
    frida = create_app(vouched, practice, bindings, outbox).test_client()
    log_in(frida, "frida")
    assert frida.post("/admin/clients/registration-token").status_code == 403
