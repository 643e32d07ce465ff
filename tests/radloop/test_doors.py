"""Every door of the whole server: closed without a token, and wrong input gets its 4xx and changes nothing."""

import re
from collections.abc import Iterator
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from flask import Flask

from radloop.parts import create_parts
from radloop.web import create_app
from tests.server import Server
from tests.smart_auth.oauth import FOREIGN

PUBLIC = re.compile(
    r"/fhir/metadata|/fhir/openapi\.json|/fhir/\.well-known/.*|/auth/.*|/health/.*|/static/.*|/mail/confirm/.*"
    r"|/tracker/(jwks|launch|callback)?"  # where an EHR opens it, and what its administrator reads
)


@pytest.fixture(scope="module")
def app(server: Server) -> Iterator[Flask]:
    """The very app that gunicorn serves, for its list of addresses."""
    parts = create_parts(server.settings)
    yield create_app(parts)
    parts.close()


def addresses(app: Flask) -> Iterator[tuple[str, str]]:
    """Each (method, path) of the app, with something plausible in the place of variables."""
    for rule in app.url_map.iter_rules():
        path = re.sub(r"<(?:[^<>:]*:)?(\w+)>", lambda match: _plausible(match[1]), rule.rule)
        for method in sorted((rule.methods or set()) - {"OPTIONS", "HEAD"}):
            yield method, path


def _plausible(name: str) -> str:
    known = {"resource_type": "Patient", "version": "1", "name": "find", "frames": "1"}
    return known.get(name, "1.2.3" if name in ("study", "series", "instance", "sop") else "x1")


class TestWithoutAToken:
    def test_everything_but_the_public_addresses_answers_401(self, app: Flask, server: Server) -> None:
        asked = [(method, path) for method, path in addresses(app) if not PUBLIC.fullmatch(path)]
        assert len(asked) > 20
        for method, path in asked:
            answer = requests.request(method, server.settings.origin + path, timeout=10, allow_redirects=False)
            assert answer.status_code == 401, f"{method} {path}: {answer.status_code}"
            assert "WWW-Authenticate" in answer.headers

    @pytest.mark.parametrize(
        "path",
        [
            "/fhir/metadata",
            "/fhir/openapi.json",
            "/fhir/.well-known/smart-configuration",
            "/auth/jwks",
            "/health/live",
            "/health/ready",
        ],
    )
    def test_the_public_addresses_answer(self, server: Server, path: str) -> None:
        assert requests.get(server.settings.origin + path, timeout=10).status_code == 200

    @pytest.mark.parametrize(
        "token", ["", "xyzzy", "a.b.c", "é", pytest.param("foreign", id="signed by a key of somebody else")]
    )
    def test_a_foreign_token_opens_nothing(self, server: Server, token: str) -> None:
        if token == "foreign":
            token = _foreign_token(server)
        headers = {"Authorization": f"Bearer {token}".encode()}
        for path in ("/fhir/Patient", "/dicomweb/studies"):
            answer = requests.get(server.settings.origin + path, headers=headers, timeout=10)
            assert answer.status_code == 401
            assert token == "" or token.encode() not in answer.content

    def test_the_websocket_takes_no_unknown_token(self, server: Server) -> None:
        import json

        import simple_websocket

        socket = simple_websocket.Client.connect(f"{server.settings.live_url}/ws/subscriptions")
        socket.send(json.dumps({"type": "bind-with-token", "payload": {"token": "x" * 43}}))
        with pytest.raises(simple_websocket.ConnectionClosed) as closed:
            while socket.receive(timeout=10) is not None:
                pass
        assert closed.value.reason == 4401


PATIENT: dict[str, Any] = {"resourceType": "Patient", "gender": "male"}
ORDER: dict[str, Any] = {"resourceType": "ServiceRequest", "status": "active", "intent": "order"}


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/fhir/Patient", b'{"resourceType": "Patient"', 400),
        ("POST", "/fhir/Patient", b"", 400),
        ("POST", "/fhir/Patient", b"[" * 5000, 400),
        ("POST", "/fhir/Patient", {**PATIENT, "colour": "blue"}, 400),
        ("POST", "/fhir/Nothing", {"resourceType": "Nothing"}, 404),
        ("POST", "/fhir/Patient", {"resourceType": "Observation"}, 400),
        ("GET", "/fhir/Nothing/1", None, 404),
        ("GET", "/fhir/Patient/a_b", None, 400),
        ("GET", "/fhir/Patient/nobody", None, 404),
        ("PUT", "/fhir/Patient/a", {**PATIENT, "id": "b"}, 400),
        ("POST", "/fhir/ServiceRequest", {**ORDER, "subject": {"reference": "Patient/nobody"}}, 422),
        ("POST", "/fhir", {"resourceType": "Bundle", "type": "transaction", "entry": [{"resource": PATIENT}]}, 400),
        ("POST", "/fhir", {"resourceType": "Bundle", "type": "nonsense"}, 400),
        ("GET", "/fhir/Patient?birthdate=yesterday", None, 400),
        ("GET", "/fhir/Patient?_count=many", None, 400),
        ("POST", "/fhir/Appointment/$find", {"resourceType": "Parameters"}, 400),
        ("POST", "/fhir/Appointment/$nothing", {"resourceType": "Parameters"}, 404),
        (
            "POST",
            "/fhir/Subscription",
            {
                "resourceType": "Subscription",
                "status": "requested",
                "reason": "x",
                "criteria": "Patient?",
                "channel": {"type": "sms"},
            },
            422,
        ),
        ("GET", "/dicomweb/studies/not-a-uid/metadata", None, 400),
        ("GET", "/dicomweb/studies/1.2.3/metadata", None, 404),
        ("GET", "/dicomweb/studies?NoSuchKey=1", None, 400),
    ],
)
def test_wrong_input_is_refused_with_a_reason(server: Server, method: str, path: str, body: Any, status: int) -> None:
    caller = server.user("frontdesk")
    headers = {"Authorization": f"Bearer {caller.token()}", "Content-Type": "application/fhir+json"}
    send = {"data": body} if isinstance(body, bytes) else {"json": body}
    before = caller.get("Patient", _summary="count")["total"]
    answer = requests.request(method, server.settings.origin + path, headers=headers, timeout=20, **send)
    assert answer.status_code == status, answer.text
    outcome = answer.json()
    assert outcome["resourceType"] == "OperationOutcome"
    assert outcome["issue"][0]["diagnostics"]
    assert caller.get("Patient", _summary="count")["total"] == before


def test_an_unknown_parameter_is_refused_or_told_never_ignored(server: Server) -> None:
    caller = server.user("frontdesk")
    address = f"{server.settings.fhir_base}/Patient?colour=blue&gender=male"
    headers = {"Authorization": f"Bearer {caller.token()}"}
    strict = requests.get(address, headers=headers | {"Prefer": "handling=strict"}, timeout=10)
    assert strict.status_code == 400
    assert "birthdate" in strict.text
    lenient = requests.get(address, headers=headers, timeout=10).json()
    assert "colour" not in lenient["link"][0]["url"]
    assert "outcome" in [entry["search"]["mode"] for entry in lenient["entry"]]


def test_a_malformed_instance_is_refused_and_stores_nothing(server: Server) -> None:
    token = server.backend("demo-modality")()
    boundary = "b"
    body = (
        b"--b\r\nContent-Type: application/dicom\r\n\r\n" + b"\0" * 128 + b"DICM" + b"\xff" * 500 + b"\r\n--b--\r\n"
    )
    headers = {
        "Authorization": f"Bearer {token}",
        "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
        "Accept": "application/dicom+json",
    }
    answer = requests.post(f"{server.settings.dicomweb_base}/studies", data=body, headers=headers, timeout=20)
    assert answer.status_code == 409
    assert answer.json()["00081198"]["Value"]


@pytest.mark.parametrize(
    ("user", "content_type", "status"),
    [
        ("lakeside", 'multipart/related; type="application/dicom"; boundary=b', 403),
        ("frontdesk", 'multipart/related; type="application/dicom"; boundary=b', 400),
        ("frontdesk", "text/plain", 415),
    ],
)
def test_who_sends_a_study_in_vain_hears_why(server: Server, user: str, content_type: str, status: int) -> None:
    """And sees no broken connection, though the answer is clear before the end of what they send."""
    connection = HTTPConnection(urlsplit(server.settings.origin).netloc, timeout=60)
    connection.putrequest("POST", "/dicomweb/studies")
    size = 64 * 2**20
    headers = {
        "Authorization": f"Bearer {server.user(user).token()}",
        "Content-Type": content_type,
        "Content-Length": str(size),
    }
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    for _ in range(size // 2**20):
        connection.send(bytes(2**20))
    answer = connection.getresponse()
    assert (answer.status, b"OperationOutcome" in answer.read()) == (status, True)
    connection.close()


def _foreign_token(server: Server) -> str:
    import time

    from joserfc import jwt

    now = int(time.time())
    base = server.settings.fhir_base
    claims = {
        "iss": base,
        "aud": base,
        "sub": "user:frontdesk",
        "scope": "user/*.cruds",
        "iat": now,
        "exp": now + 600,
    }
    return jwt.encode({"alg": "RS256", "kid": FOREIGN.kid, "typ": "at+jwt"}, claims, FOREIGN)
