"""The pages of the portal: the front desk for the practice's staff, their referrals for the referring offices.

Server-rendered, complete without script; every page shows what its user's Access gives, and every form is one write
with that Access.
"""

from collections.abc import Iterable

from flask import Blueprint, Response, g, jsonify, redirect, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from dicomweb.attach import Attachments
from fhir_server.http import current_access
from portal import (
    client_routes,
    desk_routes,
    mail_routes,
    referral_routes,
    study_routes,
    subscription_routes,
    user_routes,
)
from portal.live import keep_subscriptions
from portal.page import Viewer, headers, is_refusal, page, refusal, require_staff, viewer
from portal.studies import Imaging
from portal.words import PRIORITIES, clock_time, when, words_of
from referral.context import Practice
from referral.naming import local_time
from smart_auth.guard import longest_form
from smart_auth.service import AuthService
from subscriptions.addresses import Addresses
from subscriptions.binding import Bindings
from subscriptions.desk import SubscriptionDesk
from subscriptions.mail_store import Outbox

MAX_FORM_BYTES = 64 * 1024
MAX_MESSAGES = 200


def create_blueprint(
    practice: Practice,
    auth: AuthService,
    bindings: Bindings,
    outbox: Outbox,
    live_url: str,
    addresses: Addresses,
    subscriptions: SubscriptionDesk,
    attachments: Attachments,
    imaging: Imaging,
) -> Blueprint:
    """All pages. live_url: the public address of the subscriptions websocket, `ws://127.0.0.1:8081/ws/subscriptions`.

    The guard of smart_auth stands before it: it takes the session cookie, and a CSRF token with each POST.
    """
    portal = Blueprint(
        "portal", __name__, template_folder="templates", static_folder="static", static_url_path="/static/portal"
    )
    zone, common = practice.policy.time_zone, headers(live_url)

    @portal.before_request
    def limit() -> None:
        request.max_content_length = max(MAX_FORM_BYTES, longest_form())
        request.max_form_memory_size = MAX_FORM_BYTES

    @portal.after_request
    def dress(response: Response) -> Response:
        """Refusals as pages for people; the headers of a page on all of them."""
        if is_refusal(response) and request.endpoint != "portal.live":
            response = refusal(response, viewer())
        for name, value in common.items():
            response.headers.setdefault(name, value)
        return response

    @portal.context_processor
    def shared() -> dict[str, object]:
        return {
            "viewer": viewer(),
            "pages": tuple(_pages(viewer())),
            "waiting": {"portal.waiting_studies": imaging.store.count_waiting} if "access" in g else {},
            "priorities": PRIORITIES,
            "clock_time": lambda moment: clock_time(moment, zone),
            "when": lambda moment: when(moment, zone),
            "words_of": words_of,
            "local_time": lambda moment: local_time(moment, zone),
        }

    @portal.get("/")
    def home() -> AnyResponse:
        """The page that belongs to the user's role."""
        found = next(iter(_pages(Viewer.of(current_access()))), None)
        return page("nothing.html") if found is None else redirect(url_for(found[0]), 303)

    @portal.post("/live")
    def live() -> Response:
        """Where the page's websocket goes, and the token that binds it to the user's Subscriptions."""
        access = current_access()
        token, _until = bindings.bind(access.subject, keep_subscriptions(practice, access))
        return jsonify(url=live_url, token=token)

    @portal.get("/outbox")
    def sent_mail() -> Response:
        """Mail to referring offices, while no mail server is set up."""
        require_staff()
        return page("outbox.html", messages=outbox.list(MAX_MESSAGES))

    desk_routes.add(portal, practice)
    study_routes.add(portal, practice, imaging)
    referral_routes.add(portal, practice, auth, attachments, imaging.files)
    client_routes.add(portal, auth)
    user_routes.add(portal, auth)
    mail_routes.add(portal, addresses)
    subscription_routes.add(portal, subscriptions)
    return portal


def _pages(looking: Viewer | None) -> Iterable[tuple[str, str]]:
    """(endpoint, words) of the pages that a user has, the first one being home."""
    if looking is None:
        return
    if looking.is_staff:
        yield "portal.desk", "Front desk"
        yield "portal.waiting_studies", "Unmatched studies"
    if looking.is_staff or looking.office:
        yield "portal.referrals", "Referrals"
    if looking.office:
        yield "portal.new_referral", "New referral"
    if looking.is_staff:
        yield "portal.sent_mail", "Sent mail"
    if looking.is_admin:
        yield "portal.clients", "Apps and systems"
        yield "portal.users", "Log-ins"
    if looking.is_staff or looking.is_admin:
        yield "portal.all_subscriptions", "Subscriptions"
    elif looking.office:
        yield "portal.own_subscriptions", "Subscriptions"
