"""Our SMART app inside another EHR: what a visit begins with, and what its page shows."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from fhir_server.access import Access
from portal.detail import detail
from portal.overview import overview
from portal.tracker_ehr import colours
from portal.words import PRIORITIES, when, words_of
from referral.board import Card
from referral.context import Practice
from smart_auth.models import EhrVisit
from smart_auth.outside.flow import Arrival
from smart_auth.outside.users import user_of
from smart_auth.service import AuthService

LASTS = timedelta(hours=1)
_LONGEST = 2000
# What the page does here, and no more: it reads referrals and what belongs to them, sends one, and hears of news.
SCOPE = " ".join(
    [
        *(
            f"user/{name}.rs"
            for name in (
                "Appointment Communication DiagnosticReport Endpoint HealthcareService ImagingStudy Location "
                "Organization Practitioner PractitionerRole Questionnaire QuestionnaireResponse"
            ).split()
        ),
        *(f"user/{name}.crs" for name in ("Coverage", "Patient", "ServiceRequest", "Task")),
        "user/Subscription.crus",
    ]
)


@dataclass(frozen=True, slots=True)
class Opened:
    """A visit that has begun. token: of its page, for us; colours: that the EHR asks for."""

    token: str
    user: str
    visit: EhrVisit
    colours: Mapping[str, str]


def begin(auth: AuthService, arrival: Arrival) -> Opened:
    """Keep what the EHR gave, and give the page a token of its own. Raises Refused."""
    user, answer = user_of(auth, arrival), arrival.answer
    token = auth.issuer.issue_for_user(user, SCOPE, LASTS)
    references = [one.get("reference") for one in _list(answer.get("fhirContext")) if isinstance(one, dict)]
    visit = EhrVisit(
        grant=auth.verifier.claims(token)["grant"],
        server=arrival.server.name,
        token=answer["access_token"],
        scope=_text(answer.get("scope")) or arrival.server.scope,
        patient=_text(answer.get("patient")) or None,
        references=tuple(one for one in references if isinstance(one, str))[:20],
        banner=answer.get("need_patient_banner") is not False,
        style=_text(answer.get("smart_style_url")) or None,
        expires=auth.clock() + LASTS,
    )
    auth.store.add_visit(visit)
    return Opened(token, user.name, visit, colours(arrival.server, visit.style))


def lines(practice: Practice, access: Access, after: str | None) -> dict[str, Any]:
    """A page of the user's referrals."""
    found, zone = overview(practice, access, after), practice.policy.time_zone
    return {
        "next": found.next,
        "referrals": [
            _card(line.card, zone) | {"appointment": _when(line.appointment, zone)} for line in found.lines
        ],
    }


def one(practice: Practice, access: Access, task_id: str) -> dict[str, Any]:
    """One referral with its time line, studies and reports. Raises NotFound."""
    found, zone = detail(practice, access, task_id), practice.policy.time_zone
    return _card(found.card, zone) | {
        "appointment": _when(found.next_visit.start if found.next_visit else None, zone),
        "place": found.next_visit.room if found.next_visit else "",
        "preparation": found.preparation,
        "reasons": list(found.reasons),
        "insurance": list(found.insurance),
        "studies": [asdict(study) | {"started": _when(study.started, zone)} for study in found.studies],
        "reports": [asdict(report) | {"issued": _when(report.issued, zone)} for report in found.reports],
        "entries": [
            {
                "at": when(entry.at, zone),
                "actor": entry.actor,
                "what": entry.display,
                "text": entry.text,
                "reason": entry.reason,
                "tone": words_of(entry.code).tone,
                "heard_later": entry.late,
            }
            for entry in found.entries
        ],
    }


def _card(card: Card, zone: ZoneInfo) -> dict[str, Any]:
    words = words_of(card.code)
    return {
        "id": card.task.partition("/")[2],
        "order": card.order,
        "number": card.number,
        "patient": card.patient_name,
        "birth_date": card.birth_date,
        "exam": card.exam,
        "priority": PRIORITIES.get(card.priority, card.priority),
        "state": words.text,
        "next_step": words.next_step,
        "tone": words.tone,
        "reason": card.reason,
        "sent": when(card.sent, zone),
        "late": card.late,
    }


def _when(moment: datetime | None, zone: ZoneInfo) -> str:
    return when(moment, zone) if moment is not None else ""


def _text(value: Any) -> str:
    return value if isinstance(value, str) and len(value) <= _LONGEST else ""


def _list(value: Any) -> list:
    return value if isinstance(value, list) else []
