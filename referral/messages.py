"""Messages to the referring office: Communications on the order, which the subscriptions carry out.

The text names no patient and no exam; it stands behind the reader's log-in all the same.
"""

from datetime import datetime

from fhir_server.repository import Repository
from referral import store
from referral.codes import (
    ACCESSION_SYSTEM,
    BUSINESS_STATUS,
    IDENTIFIER_TYPE,
    MESSAGE_CLASS,
    code_of,
    concept,
    reference,
)
from referral.states import STATES


def send(
    repository: Repository,
    referral: dict,
    code: str,
    cause: str,
    text: str,
    now: datetime,
    reason: dict | None = None,
) -> bool:
    """Write one message about the referral, once for each (code, cause). reason: why, as a CodeableConcept."""
    order = reference(referral["focus"])
    communication = {
        "resourceType": "Communication",
        "id": store.derived_id("message", code, cause),
        "basedOn": [{"reference": order}],
        "partOf": [{"reference": f"Task/{referral['id']}"}],
        "status": "completed",
        "category": [concept(MESSAGE_CLASS, "transactional")],
        "sent": now.isoformat(timespec="seconds"),
        "reasonCode": [concept(BUSINESS_STATUS, code, STATES[code].display), *([reason] if reason else [])],
        "payload": [{"contentString": text}],
    }
    optional = {
        "priority": referral.get("priority"),
        "subject": referral.get("for"),
        "sender": referral.get("owner"),
        "recipient": [referral["requester"]] if "requester" in referral else None,
    }
    return store.ensure(repository, communication | {name: value for name, value in optional.items() if value})


def referral_number(referral: dict) -> str:
    """The number both sides know the referral by: the placer's where there is one, never the accession number."""
    numbers = [i for i in referral.get("identifier", []) if not is_accession(i) and i.get("value")]
    placer = [i for i in numbers if code_of(i.get("type"), IDENTIFIER_TYPE) == "PLAC"]
    return next((i["value"] for i in placer or numbers), referral["id"])


def is_accession(identifier: dict) -> bool:
    return identifier.get("system") == ACCESSION_SYSTEM or code_of(identifier.get("type"), IDENTIFIER_TYPE) == "ACSN"


def call_us(phone: str) -> str:
    """` Questions: +1-555-0100.`, or nothing where the practice has set no number."""
    return f" Questions: {phone}." if phone else ""
