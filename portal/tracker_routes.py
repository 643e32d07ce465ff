"""The addresses of our SMART app: launch and callback for EHRs, and what its page asks with its own token."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from secrets import token_urlsafe
from typing import Any
from urllib.parse import urlsplit

from flask import Blueprint, Response, jsonify, render_template, request

from fhir_server.access import Access
from fhir_server.errors import BadRequest, Forbidden, NotAuthenticated
from fhir_server.http import current_access
from portal import refer, tracker
from portal.page import HTML
from portal.tracker_ehr import Reader
from portal.words import PRIORITIES
from referral.context import Practice
from smart_auth.guard import bearer_token
from smart_auth.models import EhrVisit
from smart_auth.outside.calls import NoAnswer
from smart_auth.outside.discovery import Discovery
from smart_auth.outside.flow import LASTS, Flow, Refused
from smart_auth.outside.servers import EHR, Server, by_issuer
from smart_auth.service import AuthService

log = logging.getLogger(__name__)

LAUNCH, CALLBACK = "/tracker/launch", "/tracker/callback"
PUBLIC_PATHS = ("/tracker/", "/tracker/jwks", LAUNCH, CALLBACK)
MAX_BODY_BYTES = 64 * 1024
BUILT = Path(__file__).parent / "static" / "tracker"
_ERRORS = {
    "access_denied": "Your EHR did not allow it. Nothing was read and nothing was sent.",
    "invalid_scope": "Your EHR does not know what we asked to read. Its administrator can help.",
    "temporarily_unavailable": "Your EHR cannot do this just now. Please try again in a moment.",
}
_AGAIN = "Please open it again from your EHR."


def create_blueprint(practice: Practice, auth: AuthService, live_url: str) -> Blueprint:
    """Everything below /tracker. live_url: the public address of the subscriptions websocket."""
    blueprint = Blueprint("tracker", __name__, template_folder="templates")
    servers = {name: server for name, server in auth.outside.items() if server.kind == EHR}
    flow = Flow(auth, servers, Discovery(auth.clock))
    cookie = f"{auth.sessions.cookie_name.replace('__Host-', '__Secure-')}-tracker"
    common = _headers(servers, live_url)

    @blueprint.before_request
    def limit() -> None:
        request.max_content_length = MAX_BODY_BYTES

    @blueprint.after_request
    def dress(response: Response) -> Response:
        for name, value in common.items():
            response.headers.setdefault(name, value)
        return response

    @blueprint.get("/tracker/")
    def about() -> Response:
        """For the administrators of EHRs: what they register."""
        scopes = sorted({server.scope for server in servers.values()})
        return _page(
            "tracker_about.html",
            launch=f"{auth.origin}{LAUNCH}",
            callback=f"{auth.origin}{CALLBACK}",
            keys=f"{auth.origin}/tracker/jwks",
            scopes=scopes,
            ehrs=sorted(server.title for server in servers.values()),
        )

    @blueprint.get("/tracker/jwks")
    def keys() -> Response:
        """The public parts of the keys that we sign client assertions with."""
        signing = [server.key for server in servers.values() if server.key is not None]
        unique = {key.kid: dict(key.as_dict(private=False)) | {"use": "sig"} for key in signing}
        response = jsonify(keys=list(unique.values()))
        response.headers["Cache-Control"] = "public, max-age=300"
        return response

    @blueprint.get(LAUNCH)
    def launch() -> Response:
        server = by_issuer(servers, request.args.get("iss", ""))
        if server is None:
            return _sorry("This EHR is not set up here. The practice's administrator can add it.", 403)
        if not (BUILT / "tracker.js").is_file():
            return _sorry("This app is not built on this server: install Node 20, then `make tracker`.", 503)
        given = request.args.get("launch", "")
        if not 0 < len(given) <= 2000:
            return _sorry(f"Your EHR did not say what to open. {_AGAIN}", 400)
        try:
            address, browser = flow.begin(server, f"{auth.origin}{CALLBACK}", launch=given, wanted=LAUNCH)
        except NoAnswer as failure:
            log.warning("EHR %s: %s", server.name, failure)
            return _sorry(f"{server.title} cannot be reached just now. {_AGAIN}", 502)
        response = Response(status=302, headers={"Location": address, "Cache-Control": "no-store"})
        _set_cookie(response, cookie, browser, auth.sessions.secure, int(LASTS.total_seconds()))
        return response

    @blueprint.get(CALLBACK)
    def callback() -> Response:
        if error := request.args.get("error"):
            log.info("an EHR refused a launch: %s", error[:40] if error.isidentifier() else "?")
            return _sorry(_ERRORS.get(error, f"Your EHR reported an error. {_AGAIN}"), 403)
        try:
            arrival = flow.finish(
                request.args.get("state", ""), request.args.get("code", ""), request.cookies.get(cookie, "")
            )
            if arrival.wanted != LAUNCH:
                raise Refused("This is not the way in from an EHR.")
            opened = tracker.begin(auth, arrival)
        except NoAnswer as failure:
            log.warning("EHR: %s", failure)
            return _sorry(f"Your EHR does not answer as it should. {_AGAIN}", 502)
        except Refused as refusal:
            return _sorry(f"{refusal} {_AGAIN}", 403)
        response = _page("tracker.html", session=_session(opened, arrival.server), version=_version())
        _set_cookie(response, cookie, "", auth.sessions.secure, 0)
        return response

    def _session(opened: tracker.Opened, server: Server) -> str:
        """What the page begins with; the EHR's token is not in it."""
        session = {
            "token": opened.token,
            "expires_in": int(tracker.LASTS.total_seconds()),
            "scope": tracker.SCOPE,
            "fhir": auth.fhir_base,
            "ehr": server.title,
            "phone": practice.policy.phone,
            "banner": opened.visit.banner,
            "colours": dict(opened.colours),
            "priorities": dict(reversed(list(PRIORITIES.items()))),
            "genders": refer.GENDERS,
            "once": token_urlsafe(16),
        }
        # In a script element only `<` matters: with it escaped, nothing in it ends the element.
        return json.dumps(session).replace("<", "\\u003c")

    def _visit() -> tuple[Access, EhrVisit, Server]:
        """Of the page that asks. Raises NotAuthenticated."""
        access = current_access()
        visit = auth.store.visit(auth.verifier.claims(bearer_token())["grant"])
        server = servers.get(visit.server) if visit is not None else None
        if visit is None or server is None or visit.expires <= auth.clock():
            raise NotAuthenticated(
                "open the app again from the EHR", headers={"WWW-Authenticate": 'Bearer error="invalid_token"'}
            )
        return access, visit, server

    @blueprint.get("/tracker/prefill")
    def prefill() -> Response:
        _, visit, server = _visit()
        found = Reader(server, visit).prefill()
        return jsonify(fields=dict(found.fields), missing=found.missing)

    @blueprint.post("/tracker/refer")
    def send() -> tuple[Response, int]:
        access, _, _ = _visit()
        if access.is_practice or access.organization is None:
            raise Forbidden("a referring office sends referrals")
        sent = _fields()
        order = refer.filled(practice, sent)
        if order.faults:
            return jsonify(faults=dict(order.faults)), 422
        return jsonify(id=refer.place(practice, access, order, sent.get("once", "")), once=token_urlsafe(16)), 201

    @blueprint.get("/tracker/referrals")
    def referrals() -> Response:
        access, _, _ = _visit()
        return jsonify(tracker.lines(practice, access, request.args.get("after")))

    @blueprint.get("/tracker/referrals/<task_id>")
    def referral(task_id: str) -> Response:
        access, _, _ = _visit()
        return jsonify(tracker.one(practice, access, task_id))

    @blueprint.post("/tracker/end")
    def end() -> Response:
        """The page is done: its token ends, and with it the EHR's is out of reach."""
        _, visit, _ = _visit()
        auth.store.revoke_grant(visit.grant, visit.expires)
        return Response(status=204)

    return blueprint


def _fields() -> Mapping[str, str]:
    """The fields of a sent form. Raises BadRequest."""
    body: Any = request.get_json(silent=True)
    if not isinstance(body, dict) or not all(isinstance(value, str) for value in body.values()):
        raise BadRequest("send the fields of the form as texts in a JSON object")
    return body


def _headers(servers: Mapping[str, Server], live_url: str) -> dict[str, str]:
    """As the pages of the portal, but that the EHRs which are set up may show it in a frame."""
    live = urlsplit(live_url)
    parts = [urlsplit(server.issuer) for server in servers.values()]
    around = " ".join(sorted({f"{part.scheme}://{part.netloc}" for part in parts})) or "'none'"
    policy = (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' blob:; "
        f"connect-src 'self' {live.scheme}://{live.netloc}; "
        f"form-action 'none'; base-uri 'none'; frame-ancestors {around}"
    )
    return {"Content-Security-Policy": policy, "Cache-Control": "no-store"}


def _set_cookie(response: Response, name: str, value: str, secure: bool, seconds: int) -> None:
    """Also inside the frame of another site, where it can be: browsers want https for that, and a jar for each site
    around it (Partitioned)."""
    response.set_cookie(
        name,
        value,
        max_age=seconds,
        httponly=True,
        secure=secure,
        samesite="None" if secure else "Lax",
        partitioned=secure,
        path=CALLBACK,
    )


def _version() -> int:
    """Changes when the app is built anew, so that browsers fetch it."""
    return int((BUILT / "tracker.js").stat().st_mtime)


def _page(template: str, status: int = 200, **values: object) -> Response:
    return Response(render_template(f"portal/{template}", **values), status, content_type=HTML)


def _sorry(text: str, status: int) -> Response:
    return _page("tracker_words.html", status, text=text)
