"""A small EHR for demonstrations and tests, on the loopback interface: one physician, who is always logged in, one
patient with a chart, and the server side of SMART App Launch that opens an app from it. It keeps nothing.

https://hl7.org/fhir/smart-app-launch/app-launch.html
"""

import base64
import hashlib
import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode, urlsplit

from flask import Flask, Response, jsonify, redirect, render_template_string, request
from joserfc import jwt
from joserfc.jwk import RSAKey
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.wrappers import Response as AnyResponse

PORT = 8090
CLIENT_ID = "radloop-tracker"
TOKEN_S, ID_TOKEN_S = 3600, 300
SCOPES = (
    "launch openid fhirUser patient/Patient.rs patient/Condition.rs patient/Coverage.rs patient/ServiceRequest.rs"
)
OAUTH_URIS = "http://fhir-registry.smarthealthit.org/StructureDefinition/oauth-uris"
STYLE = {"color_background": "#fdf6e3", "color_text": "#2b2b2b", "color_highlight": "#7a3e00"}
PATIENT, PHYSICIAN, ORDER = "p1", "Practitioner/dr1", "ServiceRequest/o1"
_SUBJECT = {"reference": f"Patient/{PATIENT}"}

RESOURCES: tuple[dict[str, Any], ...] = (
    {
        "resourceType": "Patient",
        "id": PATIENT,
        "name": [{"use": "official", "family": "Sandoval", "given": ["Rosa"]}],
        "birthDate": "1968-04-12",
        "gender": "female",
        "telecom": [{"system": "phone", "value": "+1-555-0142"}],
    },
    {
        "resourceType": "Practitioner",
        "id": "dr1",
        "name": [{"family": "Lindqvist", "given": ["Ana"], "prefix": ["Dr."]}],
    },
    {
        "resourceType": "ServiceRequest",
        "id": "o1",
        "status": "active",
        "intent": "order",
        "priority": "urgent",
        "code": {"text": "MR of the right knee without contrast"},
        "subject": _SUBJECT,
        "authoredOn": "2026-01-12",
    },
    {
        "resourceType": "Condition",
        "id": "c1",
        "clinicalStatus": {"coding": [{"code": "active"}]},
        "code": {"text": "Locking of the right knee since a fall"},
        "subject": _SUBJECT,
    },
    {
        "resourceType": "Condition",
        "id": "c2",
        "clinicalStatus": {"coding": [{"code": "resolved"}]},
        "code": {"text": "Tonsillitis"},
        "subject": _SUBJECT,
    },
    {
        "resourceType": "Coverage",
        "id": "v1",
        "status": "active",
        "beneficiary": _SUBJECT,
        "subscriberId": "HL-204417",
        "payor": [{"display": "Helvia Health"}],
    },
)

CHART = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Chart · EHR simulator</title>
<style>
body { margin: 0; font: 1rem/1.5 system-ui, sans-serif; color: #20313d; background: #e9eef1; }
header { background: #23424f; color: #fff; padding: .5rem 1rem; }
main { display: flex; flex-wrap: wrap; gap: 1rem; padding: 1rem; }
section { background: #fff; padding: 1rem; flex: 1 1 16rem; border-radius: .375rem; }
h1 { font-size: 1.125rem; margin: 0; } h2 { font-size: 1rem; margin: 0 0 .25rem; }
iframe { border: 1px solid #8a9aa5; background: #fff; width: {{ width }}px; max-width: 100%; height: 900px; }
</style></head><body>
{% set name = patient.name[0] %}
<header><h1>EHR simulator · {{ name.given[0] }} {{ name.family }}, {{ patient.birthDate }}</h1></header>
<main><section><h2>Problems</h2><ul>{% for text in problems %}<li>{{ text }}</li>{% endfor %}</ul>
<h2>Orders</h2><ul>{% for text in orders %}<li>{{ text }}</li>{% endfor %}</ul>
<p>The app beside this is {{ width }} pixels wide: <a href="?width=320">320</a>, <a href="?width=720">720</a></p>
</section>
<iframe title="Referrals" src="{{ app }}"></iframe></main></body></html>"""


@dataclass(slots=True)
class EhrSimulator:
    """What it does; tests change it. scopes: that it grants at most; error: that it answers an authorization with;
    banner, style: launch context, None for none; good: whether its access tokens are (still) accepted; away: it
    does not say where its endpoints are; old: it does so in its metadata only."""

    origin: str
    app: str
    scopes: frozenset[str] = frozenset(SCOPES.split())
    error: str | None = None
    banner: bool | None = None
    style: Mapping[str, str] | None = None
    good: bool = True
    away: bool = False
    old: bool = False
    asked: list[str] = field(default_factory=list)  # paths below its FHIR base
    _key: RSAKey = field(default_factory=lambda: RSAKey.generate_key(2048, private=True, auto_kid=True))
    _launches: set[str] = field(default_factory=set)
    _codes: dict[str, dict[str, str]] = field(default_factory=dict)
    _tokens: dict[str, frozenset[str]] = field(default_factory=dict)

    @property
    def iss(self) -> str:
        return f"{self.origin}/fhir"

    def configuration(self) -> dict:
        return {
            "issuer": self.iss,
            "jwks_uri": f"{self.origin}/jwks",
            "authorization_endpoint": f"{self.origin}/authorize",
            "token_endpoint": f"{self.origin}/token",
            "code_challenge_methods_supported": ["S256"],
            "grant_types_supported": ["authorization_code"],
            "capabilities": ["launch-ehr", "client-public", "sso-openid-connect", "context-ehr-patient"],
        }

    def statement(self) -> dict:
        """A CapabilityStatement that says where to log in."""
        uris = [{"url": name, "valueUri": f"{self.origin}/{name}"} for name in ("authorize", "token")]
        security = {"extension": [{"url": OAUTH_URIS, "extension": uris}]}
        return {"resourceType": "CapabilityStatement", "rest": [{"mode": "server", "security": security}]}

    def launch_address(self) -> str:
        """Opens the app for the patient of the chart."""
        launch = secrets.token_urlsafe(16)
        self._launches.add(launch)
        return f"{self.app}?{urlencode({'iss': self.iss, 'launch': launch})}"

    def authorize(self, asked: Mapping[str, str]) -> str:
        """Where the browser goes next. The physician agrees to everything. Raises ValueError."""
        if asked.get("client_id") != CLIENT_ID or _origin(asked.get("redirect_uri", "")) != _origin(self.app):
            raise ValueError("unknown client or redirect_uri")
        answer = {"state": asked.get("state", "")}
        launch = asked.get("launch", "")
        if self.error is not None:
            answer["error"] = self.error
        elif (asked.get("aud"), asked.get("code_challenge_method")) != (self.iss, "S256") or (
            launch not in self._launches
        ):
            answer["error"] = "invalid_request"
        else:
            self._launches.remove(launch)
            answer["code"] = secrets.token_urlsafe(24)
            self._codes[answer["code"]] = dict(asked)
        return f"{asked['redirect_uri']}?{urlencode(answer)}"

    def token(self, form: Mapping[str, str]) -> dict:
        """The answer of the token endpoint. Raises ValueError, which says the OAuth error."""
        asked = self._codes.pop(form.get("code", ""), None)
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        if asked is None or asked["code_challenge"] != challenge or asked["redirect_uri"] != form.get("redirect_uri"):
            raise ValueError("invalid_grant")
        granted = [scope for scope in asked["scope"].split() if scope in self.scopes]
        token, now = secrets.token_urlsafe(24), int(time.time())
        self._tokens[token] = frozenset(granted)
        claims = {
            "iss": self.iss,
            "sub": "dr1",
            "aud": CLIENT_ID,
            "iat": now,
            "exp": now + ID_TOKEN_S,
            "nonce": asked.get("nonce"),
            "fhirUser": f"{self.iss}/{PHYSICIAN}",
        }
        answer: dict[str, Any] = {
            "access_token": token,
            "token_type": "Bearer",
            "expires_in": TOKEN_S,
            "scope": " ".join(granted),
            "patient": PATIENT,
            "fhirContext": [{"reference": ORDER}],
            "id_token": jwt.encode({"alg": "RS256", "kid": self._key.kid}, claims, self._key, algorithms=["RS256"]),
        }
        if self.banner is not None:
            answer["need_patient_banner"] = self.banner
        if self.style is not None:
            answer["smart_style_url"] = f"{self.origin}/style.json"
        return answer

    def jwks(self) -> dict:
        return {"keys": [dict(self._key.as_dict(private=False))]}

    def may_read(self, authorization: str, resource_type: str) -> bool | None:
        """None for a token that is none."""
        granted = self._tokens.get(authorization.removeprefix("Bearer ")) if self.good else None
        return None if granted is None else f"patient/{resource_type}.rs" in granted


def create_app(ehr: EhrSimulator) -> Flask:
    """Its pages and its API."""
    app = Flask("ehr-sim")

    @app.get("/")
    def chart() -> str:
        width = request.args.get("width", default=320, type=int)
        return render_template_string(
            CHART,
            app=ehr.launch_address(),
            width=min(max(width, 280), 2000),
            patient=RESOURCES[0],
            problems=[one["code"]["text"] for one in RESOURCES if one["resourceType"] == "Condition"],
            orders=[one["code"]["text"] for one in RESOURCES if one["resourceType"] == "ServiceRequest"],
        )

    @app.get("/favicon.ico")
    def icon() -> tuple[str, int]:
        return "", 204

    @app.get("/fhir/.well-known/smart-configuration")
    def configuration() -> tuple[Response, int]:
        return (jsonify({}), 503) if ehr.away or ehr.old else (jsonify(ehr.configuration()), 200)

    @app.get("/fhir/.well-known/openid-configuration")
    def openid_configuration() -> Response:
        return jsonify(ehr.configuration())

    @app.get("/fhir/metadata")
    def metadata() -> tuple[Response, int]:
        return (jsonify({}), 503) if ehr.away else (jsonify(ehr.statement()), 200)

    @app.get("/authorize")
    def authorize() -> AnyResponse:
        try:
            return redirect(ehr.authorize(request.args), 302)
        except ValueError as fault:
            return Response(str(fault), 400)

    @app.post("/token")
    def token() -> tuple[Response, int]:
        try:
            return jsonify(ehr.token(request.form)), 200
        except ValueError as fault:
            return jsonify(error=str(fault)), 400

    @app.get("/jwks")
    def jwks() -> Response:
        return jsonify(ehr.jwks())

    @app.get("/style.json")
    def style() -> Response:
        return jsonify(dict(ehr.style or {}))

    @app.get("/fhir/<resource_type>")
    @app.get("/fhir/<resource_type>/<id>")
    def read(resource_type: str, id: str | None = None) -> tuple[Response, int]:
        """A read, or a search that only knows `patient` (its one patient)."""
        ehr.asked.append(request.full_path)
        allowed = ehr.may_read(request.headers.get("Authorization", ""), resource_type)
        if not allowed:
            return jsonify(resourceType="OperationOutcome"), 401 if allowed is None else 403
        found = [one for one in RESOURCES if one["resourceType"] == resource_type]
        if id is None:
            if request.args.get("patient") != PATIENT:
                found = []
            return jsonify(resourceType="Bundle", type="searchset", entry=[{"resource": one} for one in found]), 200
        return next(((jsonify(one), 200) for one in found if one["id"] == id), (jsonify({}), 404))

    return app


@contextmanager
def running(app: str, port: int = 0) -> Iterator[EhrSimulator]:
    """The simulator on the loopback interface. app: the launch address of the app that its chart opens."""
    holder = Flask("not yet")
    http = make_server("127.0.0.1", port, holder, threaded=True, request_handler=_Quiet)
    ehr = EhrSimulator(f"http://127.0.0.1:{http.server_port}", app)
    http.app = create_app(ehr)
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    try:
        yield ehr
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


class _Quiet(WSGIRequestHandler):
    """Addresses of an authorization carry what belongs in no log."""

    def log_request(self, *_args: Any) -> None:
        pass


def _origin(address: str) -> tuple[str, str]:
    parts = urlsplit(address)
    return parts.scheme, parts.netloc
