"""The desk for studies that match no order: staff says whose they are, and what is one exam."""

import re

from flask import Blueprint, Response, redirect, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from fhir_server.access import Access
from fhir_server.errors import BadRequest
from portal import studies
from portal.page import page, require_staff, sent_text
from portal.studies import Imaging
from referral import board
from referral.context import Practice

MAX_SOUGHT = 100
DONE = {
    "assigned": "The study has its patient now.",
    "merged": "The two studies are one.",
    "split": "The series are a study of their own; it waits here for its patient.",
    "deleted": "The study is deleted.",
}
_STATE = re.compile(r"[0-9]{1,12}-[0-9.]{1,24}", re.ASCII)


def add(portal: Blueprint, practice: Practice, imaging: Imaging) -> None:
    """Add these pages to the portal."""

    @portal.get("/desk/studies")
    def waiting_studies() -> Response:
        require_staff()
        found = list(studies.waiting(practice, imaging))
        return page("studies.html", studies=found, done=DONE.get(request.args.get("done", "")))

    @portal.route("/desk/studies/<id>", methods=["GET", "POST"])
    def study(id: str) -> Response:
        """One study. POST: with the patients that were sought, so that no name gets into an address."""
        access = require_staff()
        shown = studies.study(practice, imaging, id)
        sought = sent_text("sought")[:MAX_SOUGHT] if request.method == "POST" else ""
        return page(
            "study.html",
            study=shown,
            sought=sought,
            patients=studies.patients(practice, access, sought) if sought else [],
            alike=studies.alike(practice, imaging, access, shown),
        )

    @portal.post("/desk/studies/<id>/assign")
    def assign_study(id: str) -> AnyResponse:
        access = _may_correct()
        task_id, shown = sent_text("task"), studies.study(practice, imaging, id)
        card = board.card_of(practice, access, task_id) if task_id else None
        patient_id = card.patient.partition("/")[2] if card else sent_text("patient")
        patient = practice.repository.read(access, "Patient", patient_id).resource()
        accession = studies.accession_of(practice, access, task_id) if task_id else None
        order = card.order if card else None
        imaging.corrections.assign(access.subject, shown.uid, _sent_state(), patient, order, accession)
        return _back("assigned")

    @portal.post("/desk/studies/<id>/merge")
    def merge_study(id: str) -> AnyResponse:
        access = _may_correct()
        shown, into = studies.study(practice, imaging, id), studies.study(practice, imaging, sent_text("into"))
        imaging.corrections.merge(access.subject, shown.uid, _sent_state(), into.uid, _sent_state("into_state"))
        return _back("merged")

    @portal.post("/desk/studies/<id>/split")
    def split_study(id: str) -> AnyResponse:
        access = _may_correct()
        shown = studies.study(practice, imaging, id)
        imaging.corrections.split(access.subject, shown.uid, _sent_state(), request.form.getlist("series"))
        return _back("split")

    @portal.post("/desk/studies/<id>/delete")
    def delete_study(id: str) -> AnyResponse:
        access = require_staff()
        access.require("delete", "ImagingStudy")
        imaging.corrections.delete(access.subject, studies.study(practice, imaging, id).uid, _sent_state())
        return _back("deleted")


def _may_correct() -> Access:
    access = require_staff()
    access.require("update", "ImagingStudy")
    return access


def _sent_state(name: str = "state") -> str:
    """The state of a study that the form's page showed. Raises BadRequest."""
    state = request.form.get(name, "")
    if not _STATE.fullmatch(state):
        raise BadRequest("the form does not say which state it is about; load the page again")
    return state


def _back(done: str) -> AnyResponse:
    return redirect(url_for("portal.waiting_studies", done=done), 303)
