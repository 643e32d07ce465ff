"""The front desk: what waits, today's visits, missed ones, and the moves on them."""

from collections.abc import Callable, Mapping
from urllib.parse import urlencode

from flask import Blueprint, Response, redirect, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from fhir_server.access import Access
from fhir_server.errors import NotFound
from fhir_server.version import Version
from portal import office
from portal import times as free
from portal.lists import VISIT_MOVES, lists
from portal.page import page, require_staff, sent_text, sent_version
from portal.words import day
from referral import board, desk
from referral.context import Practice
from referral.desk import MAX_REASON

# What the page says after a move; the address carries the key.
DONE = {
    "accepted": "Accepted. The referring office is told; next, find a time.",
    "declined": "Declined. The referring office is told why.",
    "asked": "The referring office is asked to complete the order.",
    "failed": "Closed as not performed. The referring office is told why.",
    "cancelled": "Cancelled, as the referring office asked.",
    "kept": "The referral goes on; the referring office is told why.",
    "seen": "Noted.",
    "booked": "The appointment is set, and the referring office is told.",
    "arrived": "The patient is here.",
    "fulfilled": "The exam is done.",
    "noshow": "Marked as missed. The referring office is told, with the next step.",
    "undo": "Corrected: the patient is here. The referring office is told.",
}
Mark = Callable[[Practice, Access, str, int], Version]
MARKS: Mapping[str, Mark] = {
    "arrived": desk.mark_arrived,
    "fulfilled": desk.mark_fulfilled,
    "noshow": desk.mark_noshow,
    "undo": desk.undo_noshow,
}


def add(portal: Blueprint, practice: Practice) -> None:
    """Add these pages to the portal."""

    @portal.get("/desk", endpoint="desk")
    def front_desk() -> Response:
        found = lists(practice, require_staff())
        if request.args.get("part") == "lists":
            return page("lists.html", lists=found, visit_moves=VISIT_MOVES, longest=MAX_REASON)
        return page(
            "desk.html",
            lists=found,
            visit_moves=VISIT_MOVES,
            longest=MAX_REASON,
            today=day(practice.clock(), practice.policy.time_zone),
            done=DONE.get(request.args.get("done", "")),
        )

    @portal.post("/desk/referrals/<task_id>/accept")
    def accept(task_id: str) -> AnyResponse:
        desk.accept(practice, require_staff(), task_id, sent_version())
        return _back("accepted")

    @portal.post("/desk/referrals/<task_id>/decline")
    def decline(task_id: str) -> AnyResponse:
        desk.decline(practice, require_staff(), task_id, sent_version(), sent_text("reason"))
        return _back("declined")

    @portal.post("/desk/referrals/<task_id>/ask")
    def ask(task_id: str) -> AnyResponse:
        desk.ask_information(practice, require_staff(), task_id, sent_version(), sent_text("reason"))
        return _back("asked")

    @portal.post("/desk/referrals/<task_id>/fail")
    def fail(task_id: str) -> AnyResponse:
        desk.fail(practice, require_staff(), task_id, sent_version(), sent_text("reason"))
        return _back("failed")

    @portal.get("/desk/referrals/<task_id>/times")
    def times(task_id: str) -> Response:
        """The next free times for a referral, once the kind of exam is known."""
        access = require_staff()
        card = board.card_of(practice, access, task_id)
        offered = free.services(practice, access)
        chosen = request.args.get("service") or free.service_of(practice, access, card, offered)
        begin = free.first_day(practice, request.args.get("from"))
        step = office.rebook_step(practice, access, task_id)
        days = []
        if chosen:
            days = free.free_times(practice, access, card, free.chosen_service(offered, chosen), begin)
        return page(
            "times.html",
            id=task_id,
            card=card,
            services=offered,
            chosen=chosen,
            from_day=begin.isoformat(),
            first_day=free.first_day(practice, None).isoformat(),
            days=days,
            span=free.SPAN_DAYS,
            wish=office.wish_of(step.resource) if step else None,
            gone="gone" in request.args,
        )

    @portal.post("/desk/referrals/<task_id>/book")
    def book(task_id: str) -> AnyResponse:
        """Take one of the times; when somebody was quicker, the page shows the times that are left."""
        access = require_staff()
        card = board.card_of(practice, access, task_id)
        try:
            free.book(practice, access, card, request.form.get("time", ""))
        except free.Taken:
            service, begin = request.form.get("service", ""), request.form.get("from", "")
            again = urlencode({"service": service, "from": begin, "gone": "1"})
            return redirect(f"{url_for('portal.times', task_id=task_id)}?{again}", 303)
        return _back("booked")

    @portal.post("/desk/requests/<abort_id>/<answer>")
    def answer_abort(abort_id: str, answer: str) -> AnyResponse:
        """Answer a wish to cancel: `cancel` grants it, `keep` does not."""
        if answer not in ("cancel", "keep"):
            raise NotFound("a request is answered with cancel or keep")
        accepted = answer == "cancel"
        desk.answer_abort(
            practice, require_staff(), abort_id, sent_version(), accepted=accepted, reason=sent_text("reason")
        )
        return _back("cancelled" if accepted else "kept")

    @portal.post("/desk/steps/<step_id>/seen")
    def seen(step_id: str) -> AnyResponse:
        """An escalation was looked at."""
        desk.complete_step(practice, require_staff(), step_id, sent_version())
        return _back("seen")

    @portal.post("/desk/appointments/<appointment_id>/<status>")
    def mark(appointment_id: str, status: str) -> AnyResponse:
        if status not in MARKS:
            raise NotFound(f"an appointment is marked with one of {', '.join(MARKS)}")
        MARKS[status](practice, require_staff(), appointment_id, sent_version())
        return _back(status)


def _back(done: str) -> AnyResponse:
    return redirect(url_for("portal.desk", done=done), 303)
