"""What the forms of this package share."""

from flask import Response, request

from fhir_server.errors import Forbidden
from smart_auth.models import Session
from smart_auth.sessions import csrf_matches


def check_csrf(session: Session) -> None:
    """Raises Forbidden unless the form carries the session's token."""
    if not csrf_matches(session, request.form.get("csrf_token")):
        raise Forbidden("this form is out of date; load the page again")


def json_text(text: str, status: int = 200) -> Response:
    """JSON for a script of ours, for nobody to keep."""
    return Response(text, status, {"Cache-Control": "no-store"}, content_type="application/json")


def see_other(path: str) -> Response:
    """On to another page of ours, as after a form."""
    return Response(status=303, headers={"Location": path, "Cache-Control": "no-store"})
