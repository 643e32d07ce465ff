"""What all pages have in common: headers that keep a page to itself, who looks at it, its forms, its refusals."""

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from flask import Response, g, render_template, request

from fhir_server import fhir_json
from fhir_server.access import Access
from fhir_server.errors import BadRequest, Forbidden
from fhir_server.http import FHIR_JSON, current_access

HTML = "text/html; charset=utf-8"
HEADINGS = {
    400: "That could not be understood",
    403: "This is not yours to do",
    404: "There is nothing here",
    409: "Somebody else was quicker",
    410: "This was removed",
    412: "Somebody else was quicker",
    413: "That was too much",
    422: "That does not go",
    503: "Just a moment",
}
_VERSION = re.compile(r"[1-9][0-9]{0,8}", re.ASCII)
# What a FHIR string cannot hold: control characters but tab and line ends.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who looks at a page. name: as they log in; office: their referring organization, where they have one."""

    name: str
    is_staff: bool
    office: str | None
    is_admin: bool = False

    @classmethod
    def of(cls, access: Access) -> "Viewer":
        name = access.subject.partition(":")[2]
        office = None if access.is_practice else access.organization
        return cls(name, access.is_practice, office, "admin" in access.roles)


def viewer() -> Viewer | None:
    """Who looks at this page; None where the guard has let nobody in."""
    return Viewer.of(g.access) if "access" in g else None


def require_staff() -> Access:
    """The Access of the practice's staff. Raises Forbidden for everybody else."""
    access = current_access()
    if not access.is_practice:
        raise Forbidden("this page is for the practice's staff")
    return access


def headers(live_url: str) -> dict[str, str]:
    """No content from anywhere else, no inline script or style, no frame; scripts may reach us and our websocket."""
    live = urlsplit(live_url)
    policy = (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
        f"connect-src 'self' {live.scheme}://{live.netloc}; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
    return {
        "Content-Security-Policy": policy,
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
    }


def page(template: str, status: int = 200, **values: object) -> Response:
    """A page, or a part of one, from the templates of the portal."""
    return Response(render_template(f"portal/{template}", **values), status, content_type=HTML)


def sent_version() -> int:
    """The version that the form's page showed. Raises BadRequest."""
    text = request.form.get("version", "")
    if not _VERSION.fullmatch(text):
        raise BadRequest("the form does not say which version it is about; load the page again")
    return int(text)


def sent_text(name: str) -> str:
    """What was typed into a field, line ends as FHIR has them. Raises BadRequest."""
    text = request.form.get(name, "").replace("\r\n", "\n").strip()
    if _CONTROL.search(text):
        raise BadRequest(f"there are characters in the field {name} that cannot be kept")
    return text


def is_refusal(response: Response) -> bool:
    """Whether an answer is an OperationOutcome, as `fhir_server.http` makes of every error."""
    return response.status_code >= 400 and response.mimetype == FHIR_JSON


def refusal(response: Response, looking: Viewer | None) -> Response:
    """The same refusal as a page for people."""
    outcome = fhir_json.loads(response.get_data())
    shown = page(
        "refusal.html",
        response.status_code,
        heading=HEADINGS.get(response.status_code, "This did not work"),
        texts=[issue["diagnostics"] for issue in outcome["issue"]],
        viewer=looking,
    )
    for name in ("Retry-After", "WWW-Authenticate"):
        if name in response.headers:
            shown.headers[name] = response.headers[name]
    return shown
