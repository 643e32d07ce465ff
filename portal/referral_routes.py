"""The pages of a referring office: its referrals, and each one's time line, survey and moves."""

from secrets import token_urlsafe
from typing import BinaryIO, cast

from flask import Blueprint, Response, g, redirect, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from dicomweb.attach import Attachments
from dicomweb.attached import AttachedFiles
from dicomweb.delivery import unless_known
from fhir_server.errors import BadRequest, Forbidden, NotFound
from fhir_server.http import current_access
from portal import office, refer
from portal.detail import attached_file, detail
from portal.launching import context_of
from portal.overview import overview
from portal.page import page, sent_text, sent_version
from portal.survey import Filled, Form, asked, fill
from referral import board
from referral.context import Practice
from referral.desk import MAX_REASON
from smart_auth.guard import MAX_FORM_BYTES, takes_files
from smart_auth.launch import begin, launchable
from smart_auth.service import AuthService

IMAGES = frozenset({"portal.file"})  # what the audit trail takes for seeing a study
# A file alone in a window of its own: the browser's viewers for PDF and film are let do their work, and no script.
FILE_POLICY = (
    "default-src 'none'; img-src 'self'; media-src 'self'; object-src 'self'; style-src 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_NAMES = {"Photo": "photo", "Document": "document", "Film": "film"}
_ENDINGS = {"image/jpeg": "jpg", "application/pdf": "pdf", "video/mp4": "mp4"}
DONE = {
    "sent": "The referral is on its way to the practice.",
    "withdrawn": "Your wish to withdraw the referral is on its way.",
    "asked": "The practice will look for a new time.",
    "attached": "The file is with the referral; it is listed here in a moment.",
    "answered": "Thank you for your feedback.",
}


def add(
    portal: Blueprint, practice: Practice, auth: AuthService, attachments: Attachments, files: AttachedFiles
) -> None:
    """Add these pages to the portal."""

    @portal.get("/referrals")
    def referrals() -> Response:
        """The referrals the user may see, newest first. `after`: the page that follows another."""
        after = request.args.get("after")
        found = overview(practice, current_access(), after)
        template = "referral_list.html" if request.args.get("part") == "list" else "referrals.html"
        return page(template, lines=found.lines, next=found.next, after=after)

    @portal.get("/referrals/<task_id>")
    def referral(task_id: str) -> Response:
        """One referral: where it is, what comes next, and all that happened."""
        shown = detail(practice, current_access(), task_id)
        template = "referral_parts.html" if request.args.get("part") == "referral" else "referral.html"
        return page(
            template,
            referral=shown,
            id=task_id,
            done=DONE.get(request.args.get("done", "")),
            phone=practice.policy.phone,
            longest=MAX_REASON,
            apps=launchable(auth) if "login" in g else [],
        )

    @portal.get("/referrals/<task_id>/open/<client_id>")
    def open_app(task_id: str, client_id: str) -> AnyResponse:
        """EHR launch: on to an app, which learns from us, and from no address, what it is opened for."""
        if "login" not in g:
            raise Forbidden("apps are opened by users who are logged in")
        address = begin(auth, g.login.user, client_id, context_of(practice, current_access(), task_id))
        if address is None:
            raise NotFound("there is no such app to open")
        return redirect(address, 302)

    @portal.route("/refer", methods=["GET", "POST"])
    def new_referral() -> AnyResponse:
        """The web form for an order."""
        access = current_access()
        if access.is_practice or access.organization is None:
            raise Forbidden("this form is for referring offices")
        order = refer.filled(practice, request.form) if request.method == "POST" else None
        if order is None or order.faults:
            return _form(
                refer.FORM,
                order,
                title="New referral",
                intro="The practice confirms it within minutes; you follow it on its page.",
                action=url_for("portal.new_referral"),
                back=url_for("portal.referrals"),
                back_words="My referrals",
                once=request.form.get("once") or token_urlsafe(16),
            )
        return _back(refer.place(practice, access, order, request.form.get("once", "")), "sent")

    @portal.post("/referrals/<task_id>/files")
    @takes_files(attachments.max_bytes + MAX_FORM_BYTES)
    def attach(task_id: str) -> AnyResponse:
        """Add a photo, PDF or film: by the referring office, and by staff."""
        access = current_access()
        card = board.card_of(practice, access, task_id)
        patient = practice.repository.read(access, "Patient", card.patient.partition("/")[2])
        file = request.files.get("file")
        if file is None or not file.filename:
            raise BadRequest("choose a file first")
        attachments.add(cast(BinaryIO, file.stream), card.order, patient.resource())
        return _back(task_id, "attached")

    @portal.get("/referrals/<task_id>/files/<study>/<series>/<instance>")
    def file(task_id: str, study: str, series: str, instance: str) -> Response:
        """A photo, PDF or film of the referral: for whoever sees the referral and the study."""
        access = current_access()
        found = attached_file(practice, access, task_id, study, series, instance)
        state = files.state(access, study, series, instance)
        answer = unless_known(state, lambda: files.content(study, series, instance))
        answer.headers["Content-Security-Policy"] = FILE_POLICY
        ending = _ENDINGS.get(answer.mimetype or "", "bin")
        answer.headers["Content-Disposition"] = f'inline; filename="{_NAMES.get(found.words, "file")}.{ending}"'
        return answer

    @portal.post("/referrals/<task_id>/withdraw")
    def withdraw(task_id: str) -> AnyResponse:
        office.withdraw(practice, current_access(), task_id, sent_version(), sent_text("reason"))
        return _back(task_id, "withdrawn")

    @portal.post("/referrals/<task_id>/rebook")
    def rebook(task_id: str) -> AnyResponse:
        card = board.card_of(practice, current_access(), task_id)
        office.ask_rebook(practice, current_access(), card.task.partition("/")[2], sent_text("wish"))
        return _back(task_id, "asked")

    @portal.route("/referrals/<task_id>/feedback", methods=["GET", "POST"])
    def feedback(task_id: str) -> AnyResponse:
        """The survey; sent with faults, it comes back with each of them at its question."""
        access = current_access()
        card = board.card_of(practice, access, task_id)
        if access.is_practice:
            raise Forbidden("the referring office answers the survey")
        if not office.may_answer(card):
            return page("thanks.html", id=task_id, answered=card.code == "feedback-received")
        form = office.survey(practice, access)
        filled = fill(form, request.form) if request.method == "POST" else None
        if filled is None or filled.faults:
            return _form(
                form,
                filled,
                title="Feedback",
                intro=f"Referral {card.number}. It takes about a minute, and changes nothing in how your patients "
                "are treated.",
                action=url_for("portal.feedback", task_id=task_id),
                back=url_for("portal.referral", task_id=task_id),
                back_words="Back to the referral",
            )
        office.answer_survey(practice, access, card, form, filled)
        return _back(task_id, "answered")


def _form(form: Form, filled: Filled | None, **words: str) -> Response:
    """The form, empty or with what was sent and the faults of it."""
    faults = filled.faults if filled else {}
    named = {question.field: question.text for question in asked(form.questions)}
    sent = request.form if filled else {}
    return page("form.html", 422 if faults else 200, form=form, sent=sent, faults=faults, named=named, **words)


def _back(task_id: str, done: str) -> AnyResponse:
    return redirect(url_for("portal.referral", task_id=task_id, done=done), 303)
