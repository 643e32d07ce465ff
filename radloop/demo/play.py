"""The play: two referrals from the EHR to images, report and every notice."""

import json
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from radloop import practice
from radloop.demo.oauth import AppToken, BackendToken
from radloop.demo.players import OFFICE, App, Desk, Ehr, Modality, Referral, business_status
from radloop.demo.receivers import HookListener, Inbox, SocketListener
from radloop.demo.stage import Caller, StepFailed, TimeLine, wait_for
from radloop.loading import CREDENTIALS

NOSHOW_MARGIN_MINUTES = 2


class Play:
    """One run against a server at `origin`. credentials: as `radloop load demo` wrote them."""

    def __init__(self, origin: str, credentials: dict, noshow_minutes: int, tell: TimeLine) -> None:
        """noshow_minutes: from the start of an appointment until it counts as missed."""
        self.origin = origin
        self.tell = tell
        self._noshow_minutes = noshow_minutes
        self._hook = HookListener()
        self._socket: SocketListener | None = None
        self._on: list[tuple[Caller, str]] = []  # Subscriptions to switch off at the end

        fhir, users = f"{origin}/fhir", credentials["users"]
        clients = credentials["clients"]
        app, redirect = clients["demo-app"]["client_id"], clients["demo-app"]["redirect_uri"]

        def logged_in(user: str, scope: str) -> Caller:
            return Caller(fhir, AppToken(origin, app, redirect, user, users[user], scope))

        def backend(name: str) -> BackendToken:
            client = clients[name]
            return BackendToken(origin, client["client_id"], client["key"], client["scope"])

        self._ehr = Ehr(Caller(fhir, backend("demo-ehr")), self._hook.endpoint, self._hook.secret)
        scope = "user/*.rs user/Subscription.cruds user/QuestionnaireResponse.cu"
        self._app = App(logged_in("lakeside", scope))
        self._desk = Desk(logged_in("frontdesk", "user/*.cruds"), origin)
        self._modality = Modality(backend("demo-modality"), f"{origin}/dicomweb")

    def run(self) -> None:
        """Play both paths. Raises StepFailed at the first step that fails."""
        try:
            self._subscribe()
            self._path_a()
            self._path_b()
            self._hook.inbox.check_complete()
            self._heard_by_app().check_complete()
            self.tell(
                "all", f"{self._hook.inbox.count()} events by rest-hook, {self._heard_by_app().count()} by websocket"
            )
        finally:
            self._leave()

    # Preparation

    def _subscribe(self) -> None:
        self._ehr.caller.token()
        self.tell("EHR", "has a token (client_credentials, private_key_jwt)")
        self._app.caller.token()
        self.tell("SMART app", "has a token (authorization code with PKCE, Dr. Lindqvist logged in)")
        wanted = (
            ("referral-status", f"Task?requester={OFFICE}"),
            ("appointment-status", "Appointment?status=booked,arrived,noshow,fulfilled"),
            ("referral-order", "ServiceRequest?status=active"),
        )
        hooks = [self._ehr.subscribe(topic, filter) for topic, filter in wanted]
        self._on = [(self._ehr.caller, id) for id in hooks]
        self._referrals, self._appointments, _ = hooks
        self._app.subscribe("referral-status", f"Task?requester={OFFICE}")
        self._on.append((self._app.caller, self._app.subscription))
        self._socket = SocketListener(self._app.binding)
        for id in hooks:
            wait_for(f"handshake of Subscription/{id}", lambda id=id: id in self._hook.inbox.handshakes)  # type: ignore[misc]
        wait_for("handshake by websocket", lambda: self._app.subscription in self._heard_by_app().handshakes)
        self.tell("EHR", "subscribed to orders, referrals and appointments by rest-hook; handshakes taken")
        self.tell("SMART app", "subscribed to referrals by websocket; bound")

    def _heard_by_app(self) -> Inbox:
        if self._socket is None:
            raise StepFailed("the app has no websocket")
        self._socket.check()
        return self._socket.inbox

    # Path A: the patient comes

    def _path_a(self) -> None:
        self.tell("", "path A: the patient comes")
        patient = practice.patients()[0]
        referral = self._refer(patient, "CT abdomen with contrast", "urgent")
        appointment = self._book(referral, "Computerized axial tomography")
        self._desk.mark(appointment, "arrived")
        self.tell("front desk", "the patient arrived")
        self._hear(referral, "patient-arrived", "kept: the patient is there")

        accession = self._accession(referral)
        study, slices = self._modality.scan(patient, accession)
        self._modality.store(study, slices)
        self.tell("CT scanner", f"stored {len(slices)} slices by STOW-RS, accession {accession}")
        imaging = wait_for("ImagingStudy", lambda: self._imaging(referral, study))
        self.tell(
            "server", f"ImagingStudy: {imaging['numberOfSeries']} series, {imaging['numberOfInstances']} instances"
        )
        self._hear(referral, "images-available", "images available")
        for line in self._modality.look_back(study):
            self.tell("viewer", line)

        self._desk.report(referral, imaging, "No acute finding. Follow-up not needed.")
        self.tell("radiologist", "signed the final report")
        self._hear(referral, "report-final", "the report is there; the loop is closed")
        self._app.answer_survey(referral)
        self.tell("physician", "answered the survey")
        self._hear(referral, "feedback-received", "thanks for the feedback")

    def _imaging(self, referral: Referral, study: str) -> dict | None:
        """The ImagingStudy once it is complete: series and instances, on the order, with its Endpoint."""
        found = self._ehr.caller.find("ImagingStudy", identifier=f"urn:dicom:uid|urn:oid:{study}")
        if not found:
            return None
        imaging = found[0]
        on_order = {"reference": referral.order} in [
            {"reference": based_on.get("reference")} for based_on in imaging.get("basedOn", [])
        ]
        complete = imaging["status"] == "available" and imaging["series"][0]["instance"] and imaging["endpoint"]
        return imaging if on_order and complete else None

    def _accession(self, referral: Referral) -> str:
        """The accession number that the practice gave at acceptance."""
        for identifier in self._desk.caller.get(referral.task)["identifier"]:
            if any(c.get("code") == "ACSN" for c in identifier.get("type", {}).get("coding", [])):
                return identifier["value"]
        raise StepFailed("the referral has no accession number")

    # Path B: the patient does not come

    def _path_b(self) -> None:
        self.tell("", "path B: the patient does not come")
        referral = self._refer(practice.patients()[1], "MR lumbar spine", "routine")
        missed = self._book(referral, "Magnetic resonance imaging")
        try:
            self._move_clock_past(missed)
            self._hear(referral, "appointment-noshow", "missed: the patient did not come")
            rebook = wait_for("the rebook step", lambda: self._rebook(referral))
            self.tell("EHR", f"next step: {rebook.get('description') or rebook['code'].get('text')}")
        finally:
            self._desk.move_clock(0)
            self.tell("clock", "back to the real time")
        appointment = self._book(referral, "Magnetic resonance imaging")
        self._desk.mark(appointment, "arrived")
        self._hear(referral, "patient-arrived", "kept: this time the patient is there")
        self._desk.mark(appointment, "fulfilled")
        self._hear(referral, "exam-performed", "the exam is done")

    def _move_clock_past(self, appointment: dict) -> None:
        start = datetime.fromisoformat(appointment["start"]).timestamp()
        minutes = (start - time.time()) / 60 + self._noshow_minutes + NOSHOW_MARGIN_MINUTES
        self._desk.move_clock(round(minutes, 1))
        self.tell("clock", f"moved {minutes:.0f} minutes ahead, past the grace period")

    def _rebook(self, referral: Referral) -> dict | None:
        tasks = self._ehr.caller.find("Task", part_of=referral.task, code="rebook")
        return tasks[0] if tasks else None

    # Both

    def _refer(self, patient: dict, exam: str, priority: str) -> Referral:
        referral = self._ehr.refer(patient, exam, priority)
        self.tell("EHR", f"sent referral {referral.number}: {exam}, {priority}")
        self._hear(referral, "received", "received")
        self._desk.accept(referral)
        self.tell("front desk", "accepted it")
        self._hear(referral, "awaiting-scheduling", "accepted")
        return referral

    def _book(self, referral: Referral, service: str) -> dict:
        appointment = self._desk.book(referral, service)
        self.tell("front desk", f"found, held and booked {appointment['start']}")
        self._hear(referral, "appointment-booked", "appointment set")
        wait_for(
            "the appointment by rest-hook",
            lambda: any(
                f.endswith(f"Appointment/{appointment['id']}") for f, _ in self._hook.inbox.foci(self._appointments)
            ),
        )
        return appointment

    def _hear(self, referral: Referral, status: str, text: str) -> None:
        """Wait until the business status has arrived at both, by rest-hook and by websocket."""
        began = time.monotonic()
        heard = wait_for(f"{status} by rest-hook", lambda: self._hook_position(referral, status))
        wait_for(f"{status} by websocket", lambda: self._socket_has(referral, heard))
        self.tell("EHR, app", f"<- {text} ({(time.monotonic() - began) * 1000:.0f} ms)")

    def _hook_position(self, referral: Referral, status: str) -> int | None:
        """How many events on this referral the EHR had when the newest with that status came."""
        mine = [
            resource for focus, resource in self._hook.inbox.foci(self._referrals) if focus.endswith(referral.task)
        ]
        positions = [n for n, task in enumerate(mine, 1) if task and business_status(task) == status]
        return positions[-1] if positions else None

    def _socket_has(self, referral: Referral, count: int) -> bool:
        mine = [
            focus for focus, _ in self._heard_by_app().foci(self._app.subscription) if focus.endswith(referral.task)
        ]
        return len(mine) >= count

    def _leave(self) -> None:
        """Switch the Subscriptions off, so that the server does not go on calling a listener that is gone."""
        for caller, id in self._on:
            current = caller.get(f"Subscription/{id}")
            caller.update({**current, "status": "off"})
        if self._socket is not None:
            self._socket.close()
        self._hook.close()


def load_credentials(data_dir: Path) -> dict:
    """What `radloop load demo` left for the players. Raises StepFailed when there is none."""
    file = data_dir / CREDENTIALS
    if not file.exists():
        raise StepFailed(f"{file} is not there: the server was not started with --demo on this data folder")
    return json.loads(file.read_text())


def play(origin: str, credentials: dict, noshow_minutes: int, say: Callable[[str], None]) -> None:
    """Play against the server at `origin`. Raises StepFailed."""
    Play(origin, credentials, noshow_minutes, TimeLine(say)).run()
