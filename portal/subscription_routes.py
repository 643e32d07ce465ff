"""Pages about Subscriptions: one's own, and everybody's for administrators and the practice's staff."""

from flask import Blueprint, Response, redirect, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from fhir_server.errors import BadRequest
from fhir_server.http import current_access
from portal.live import REASON
from portal.page import page, sent_text
from subscriptions.desk import SubscriptionDesk

DONE = {
    "pause": "Paused. Events are kept and come once it is resumed.",
    "resume": "Resumed: what waited comes after a new handshake.",
    "replay": "It begins again with that event.",
}
STATUSES = {"requested": "Waiting for its handshake", "active": "At work", "error": "In error", "off": "Off"}
MAX_NUMBER_DIGITS = 15


def add(portal: Blueprint, subscriptions: SubscriptionDesk) -> None:
    """Add these pages to the portal."""

    @portal.get("/subscriptions", endpoint="own_subscriptions")
    def own() -> Response:
        return _list(everybodys=False)

    @portal.get("/admin/subscriptions", endpoint="all_subscriptions")
    def everybodys() -> Response:
        return _list(everybodys=True)

    @portal.post("/subscriptions/<id>/pause")
    def pause(id: str) -> AnyResponse:
        subscriptions.pause(current_access(), id)
        return _back("pause")

    @portal.post("/subscriptions/<id>/resume")
    def resume(id: str) -> AnyResponse:
        subscriptions.resume(current_access(), id)
        return _back("resume")

    @portal.post("/subscriptions/<id>/replay")
    def replay(id: str) -> AnyResponse:
        number = sent_text("number")
        if not (number.isascii() and number.isdigit() and len(number) <= MAX_NUMBER_DIGITS):
            raise BadRequest("the number of an event is needed: digits")
        subscriptions.replay(current_access(), id, int(number))
        return _back("replay")

    def _list(everybodys: bool) -> Response:
        rows = subscriptions.rows(current_access(), everybodys, without=(REASON,))
        done = DONE.get(request.args.get("done", ""))
        return page("subscriptions.html", rows=rows, everybodys=everybodys, statuses=STATUSES, done=done)

    def _back(done: str) -> AnyResponse:
        endpoint = "portal.all_subscriptions" if request.form.get("from") == "all" else "portal.own_subscriptions"
        return redirect(url_for(endpoint, done=done), 303)
