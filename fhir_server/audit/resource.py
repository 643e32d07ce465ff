"""AuditEvents of an event, in the form of IHE BALP 1.1. https://profiles.ihe.net/ITI/BALP/content.html"""

import uuid
from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fhir_server import fhir_json
from fhir_server.audit.event import OK, BadLine, Datum, Event
from fhir_server.audit.kinds import KINDS, Kind
from fhir_server.prepare import instant
from fhir_server.references import RELATIVE

PROFILES = "https://profiles.ihe.net/ITI/BALP/StructureDefinition/IHE.BasicAudit."
_TERMS = "http://terminology.hl7.org/CodeSystem"
_ENTITY_TYPE, _OBJECT_ROLE = f"{_TERMS}/audit-entity-type", f"{_TERMS}/object-role"
_PERSON, _SYSTEM_OBJECT = "1", "2"  # of audit-entity-type
_PATIENT, _DOMAIN_RESOURCE, _QUERY = "1", "4", "24"  # of object-role
_USER = {"coding": [{"system": f"{_TERMS}/v3-ParticipationType", "code": "IRCP"}]}
_SOURCE_TYPE = {"system": f"{_TERMS}/security-source-type", "code": "4", "display": "Application Server"}
_REQUEST_ID = {"system": "https://profiles.ihe.net/ITI/BALP/CodeSystem/BasicAuditEntityType", "code": "XrequestId"}
_URI = "urn:ietf:rfc:3986"
_BY_ADDRESS, _BY_URI = "2", "5"  # of network-type
MAX_DATA = 500  # of one AuditEvent; what is more is told by others beside it


@dataclass(frozen=True, slots=True)
class Observer:
    """This server as its AuditEvents name it. base_url: of FHIR; site: the instance."""

    base_url: str
    site: str

    @property
    def reference(self) -> dict:
        return {"identifier": {"system": _URI, "value": self.base_url}, "display": "Radloop"}


def audit_events(event: Event, observer: Observer) -> Iterator[dict]:
    """One AuditEvent a patient that the event is about, or one when it is about none; ids follow from its id."""
    kind = KINDS.get(event.kind)
    if kind is None:
        raise BadLine("the line is of a kind that this version does not know")
    patients = tuple(dict.fromkeys([*event.patients, *(name for datum in event.data for name in datum.patients)]))
    for index, (patient, data) in enumerate(_shares(event, kind, patients)):
        id = str(uuid.uuid5(uuid.UUID(event.id), str(index))) if index else event.id
        yield _audit_event(event, kind, observer, patient, id, data)


def _shares(event: Event, kind: Kind, patients: tuple[str, ...]) -> Iterator[tuple[str | None, Sequence[Datum]]]:
    """The patient and the data of each AuditEvent."""
    if kind.split:  # what was found is not told, only whose data it was
        yield from ((patient, ()) for patient in patients or (None,))
        return
    for patient in patients or (None,):
        own = patient is None or patient in event.patients
        data = [datum for datum in event.data if own or patient in datum.patients]
        yield from ((patient, data[at : at + MAX_DATA]) for at in range(0, max(1, len(data)), MAX_DATA))
    if patients and not event.patients:  # what of it is of no patient, as beside one in a transaction
        data = [datum for datum in event.data if not datum.patients]
        yield from ((None, data[at : at + MAX_DATA]) for at in range(0, len(data), MAX_DATA))


def _audit_event(
    event: Event, kind: Kind, observer: Observer, patient: str | None, id: str, data: Sequence[Datum]
) -> dict:
    resource: dict = {"resourceType": "AuditEvent", "id": id}
    if kind.profile:
        about = "Patient" if patient and not kind.purpose else ""
        resource["meta"] = {"profile": [f"{PROFILES}{about}{kind.profile}"]}
    resource["type"] = kind.type.as_fhir()
    if kind.subtype:
        resource["subtype"] = [kind.subtype.as_fhir()]
    resource |= {"action": kind.action, "recorded": instant(event.recorded), "outcome": event.outcome}
    if event.outcome != OK and event.why:
        resource["outcomeDesc"] = event.why
    if kind.purpose:
        resource["purposeOfEvent"] = [{"coding": [kind.purpose.as_fhir()]}]
    resource["agent"] = list(_agents(event, kind, observer))
    resource["source"] = {"site": observer.site, "observer": observer.reference, "type": [_SOURCE_TYPE]}
    if entities := list(_entities(event, patient, data)):
        resource["entity"] = entities
    return resource


def _agents(event: Event, kind: Kind, observer: Observer) -> Iterator[dict]:
    actor = event.actor
    sort, _, name = actor.subject.partition(":")
    is_user = sort == "user"
    token = {"policy": [actor.token]} if actor.token else {}
    client: dict = {"type": {"coding": [kind.client.as_fhir()]}, "who": _client(actor.client, actor.subject)}
    client["requestor"] = not is_user
    if actor.address:
        client["network"] = {"address": actor.address, "type": _BY_ADDRESS}
    yield client | ({} if is_user else token)
    yield {
        "type": {"coding": [kind.server.as_fhir()]},
        "who": observer.reference,
        "requestor": False,
        "network": {"address": observer.base_url, "type": _BY_URI},
    }
    if event.recipient:
        who = _target(event.recipient)
        yield {"type": {"coding": [kind.client.as_fhir()]}, "who": who, "requestor": False}
    if is_user:
        user: dict = {"type": _USER}
        if actor.roles:
            user["role"] = [{"text": role} for role in actor.roles]
        user["who"] = {"reference": actor.user} if actor.user else {"identifier": {"value": name}}
        yield user | {"altId": actor.subject, "name": name, "requestor": True} | token


def _client(client: str | None, subject: str) -> dict:
    if client:
        return {"identifier": {"value": client}}
    known = {"user": "a browser, or a token of the command line", "system": subject, "": "not known"}
    return {"display": known.get(subject.partition(":")[0], subject)}


def _entities(event: Event, patient: str | None, data: Sequence[Datum]) -> Iterator[dict]:
    failure = _detail(event)
    if patient:
        yield _entity(_PERSON, _PATIENT) | {"what": {"reference": patient}}
    for datum in data:
        yield _entity(_SYSTEM_OBJECT, _DOMAIN_RESOURCE) | {"what": _target(datum.reference)} | failure
        failure = {}
    if event.query:
        query = _entity(_SYSTEM_OBJECT, _QUERY)
        query |= {"description": event.description} if event.description else {}
        yield query | {"query": b64encode(event.query.encode()).decode()} | failure
        failure = {}
    elif event.description or failure:
        yield _entity(_SYSTEM_OBJECT, _DOMAIN_RESOURCE) | {"description": event.description or event.why} | failure
    if event.request:
        yield {"type": _REQUEST_ID, "what": {"identifier": {"value": event.request}}}


def _entity(type: str, role: str) -> dict:
    return {"type": {"system": _ENTITY_TYPE, "code": type}, "role": {"system": _OBJECT_ROLE, "code": role}}


def _target(reference: str) -> dict:
    """What was asked for may be none of ours, or no reference at all."""
    return {"reference": reference} if RELATIVE.fullmatch(reference) else {"identifier": {"value": reference}}


def _detail(event: Event) -> dict:
    if event.detail is None:
        return {}
    outcome = b64encode(fhir_json.dumps(event.detail)).decode()
    return {"detail": [{"type": "OperationOutcome", "valueBase64Binary": outcome}]}
