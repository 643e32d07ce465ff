"""A practice with a CT and an MR room, two referring offices, and its rules, driven step by step by `settle`."""

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pymongo
import pytest
from pymongo.database import Database

from fhir_server.access import Access, Scope
from fhir_server.operation import OperationRequest
from fhir_server.prepare import Draft
from fhir_server.repository import Repository
from fhir_server.store import VersionStore
from fhir_server.version import Version
from referral import rules, store, tracker
from referral.admission import ADMISSIONS
from referral.codes import BUSINESS_STATUS, TASK, code_of
from referral.context import Practice
from referral.event import recorded
from referral.policy import Policy
from referral.scheduling.operations import operations

BASE = "http://127.0.0.1:8080/fhir"
ALL = (Scope("system", "*", "cruds"),)
MONDAY = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)
SNOMED = "http://snomed.info/sct"
PLACER = "urn:oid:2.999.7.1"
KINDS = {"ct": ("77477000", "Computerized axial tomography"), "mr": ("113091000", "Magnetic resonance imaging")}

STAFF = Access("user:frontdesk", ALL, None, roles=frozenset({"staff"}))


def an_office(name: str) -> Access:
    """A client of a referring organization."""
    audience = frozenset({"@any", f"@Organization/{name}", f"@owner/client:{name}"})
    return Access(f"client:{name}", ALL, audience, client_id=name, organization=f"Organization/{name}")


LAKESIDE, HILLCREST = an_office("lakeside"), an_office("hillcrest")


class Clock:
    """The practice's time, which a test moves."""

    def __init__(self) -> None:
        self.now = MONDAY

    def __call__(self) -> datetime:
        return self.now

    def move(self, **by: float) -> None:
        self.now += timedelta(**by)


@dataclass
class Loop:
    """The practice under test. settle: let the rules take every version that is new, until nothing new comes."""

    practice: Practice
    clock: Clock
    _done: int = 0
    _handle: Callable[[Version], None] = field(init=False)

    def __post_init__(self) -> None:
        self._handle = rules.handler(self.practice)

    @property
    def repository(self) -> Repository:
        return self.practice.repository

    def settle(self) -> None:
        while versions := list(self.repository.store.since(self._done)):
            for version in versions:
                self._handle(version)
                self._done = version.number

    def settle_again(self) -> None:
        """As after a crash: every version comes once more."""
        self._done = 0
        self.settle()

    # Looking

    def get(self, reference: str) -> dict:
        resource_type, _, id = reference.partition("/")
        return self.repository.read(store.RULES, resource_type, id).resource()

    def version(self, reference: str) -> int:
        return int(self.get(reference)["meta"]["versionId"])

    def state(self, task: str) -> tuple[str, str | None]:
        found = self.get(task)
        return found["status"], code_of(found.get("businessStatus"), BUSINESS_STATUS)

    def states(self, task: str) -> list[str]:
        """The business statuses that the Task went through, in order."""
        history = self.repository.history(store.RULES, "Task", task.partition("/")[2], count=500)
        codes = [code_of(version.resource().get("businessStatus"), BUSINESS_STATUS) for version in reversed(history)]
        return [code for i, code in enumerate(codes) if code and (i == 0 or code != codes[i - 1])]

    def happened(self, task: str, code: str) -> datetime:
        """When the event that brought the referral into this state happened, as the time line has it."""
        history = self.repository.history(store.RULES, "Task", task.partition("/")[2], count=500)
        events = [recorded(version.resource()) for version in history]
        return next(event.at for event in events if event is not None and event.code == code)

    def find(self, resource_type: str, **query: str) -> list[dict]:
        wanted = [(name.replace("_", "-"), value) for name, value in query.items()]
        return [version.resource() for version in store.every(self.repository, resource_type, wanted)]

    def steps(self, kind: str, status: str = "requested") -> list[dict]:
        return self.find("Task", code=f"{TASK}|{kind}", status=status)

    def messages(self, code: str) -> list[str]:
        """Texts of the messages about a business status."""
        found = [m for m in self.find("Communication") if code_of(m["reasonCode"][0], BUSINESS_STATUS) == code]
        return [m["payload"][0]["contentString"] for m in found]

    # Doing

    def refer(self, number: str = "LK-1", office: Access = LAKESIDE, settle: bool = True, **order: Any) -> str:
        """An office sends a referral with its Task; the reference of the Task."""
        name = number.lower()
        order = {"subject": {"reference": "Patient/p1" if office is LAKESIDE else "Patient/p2"}} | order
        placed = an_order(f"order-{name}", number, office.organization or "", **order)
        task = a_task(f"task-{name}", placed, office.organization or "")
        self.repository.write(office, [Draft("update", placed), Draft("update", task)])
        if settle:
            self.settle()
        return f"Task/{task['id']}"

    def accepted(self, number: str = "LK-1", office: Access = LAKESIDE, **order: Any) -> str:
        task = self.refer(number, office, **order)
        self.set_status(task, "accepted")
        return task

    def booked(self, number: str = "LK-1", slot: str = "ct-0900") -> tuple[str, str]:
        """(Task, Appointment) of a referral that has an appointment."""
        task = self.accepted(number)
        return task, self.book_more(task, slot)

    def book_more(self, task: str, slot: str) -> str:
        answer = self.call(STAFF, "book", **{
            "appointment-resource": {
                "resourceType": "Appointment",
                "status": "booked",
                "slot": [{"reference": f"Slot/{slot}"}],
                "participant": [{"status": "needs-action", "type": [{"text": "patient"}]}],
            },
            "order-reference": {"reference": self.get(task)["focus"]["reference"]},
        })  # fmt: skip
        self.settle()
        return f"Appointment/{answer['entry'][0]['resource']['id']}"

    def set_status(self, reference: str, status: str, access: Access = STAFF, **changed: Any) -> None:
        self.repository.update(access, self.get(reference) | {"status": status} | changed)
        self.settle()

    def put(self, resource: dict, access: Access = STAFF) -> str:
        self.repository.update(access, resource)
        self.settle()
        return f"{resource['resourceType']}/{resource['id']}"

    def call(self, access: Access, operation: str, **parameters: Any) -> dict:
        """Call a scheduling operation; values by their Python type, lists for repeated parameters."""
        entries = [
            entry(name, value)
            for name, values in parameters.items()
            for value in (values if isinstance(values, list) else [values])
        ]
        return self.call_raw(access, operation, entries)

    def call_raw(self, access: Access, operation: str, entries: list[dict]) -> dict:
        handler = {one.name: one.handler for one in operations(self.practice)}[operation]
        return handler(OperationRequest(access, "Appointment", None, entries))

    def proposals(self, access: Access = STAFF, **parameters: Any) -> list[dict]:
        span = {"start": "2026-03-02T00:00:00Z", "end": "2026-03-04T00:00:00Z"}
        found = self.call(access, "find", **(span | parameters))
        return [one["resource"] for one in found.get("entry", [])]


def entry(name: str, value: Any) -> dict:
    """One Parameters.parameter."""
    if name in ("start", "end"):
        return {"name": name, "valueDateTime": value}
    if isinstance(value, dict):
        if "resourceType" in value:
            return {"name": name, "resource": value}
        return {"name": name, "valueIdentifier" if "value" in value else "valueReference": value}
    return {"name": name, "valueInteger" if isinstance(value, int) else "valueString": value}


def number(value: str) -> dict:
    """A placer's number."""
    coding = {"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "PLAC"}
    return {"type": {"coding": [coding]}, "system": PLACER, "value": value}


def an_order(id: str, placer_number: str, office: str, **changed: Any) -> dict:
    return {
        "resourceType": "ServiceRequest",
        "id": id,
        "identifier": [number(placer_number)],
        "status": "active",
        "intent": "order",
        "category": [{"coding": [{"system": SNOMED, "code": "363679005"}]}],
        "priority": "routine",
        "code": {"text": "CT abdomen with contrast"},
        "subject": {"reference": "Patient/p1"},
        "authoredOn": "2026-03-02T07:59:00Z",
        "requester": {"reference": office},
        "performer": [{"reference": "Organization/practice"}],
    } | changed


def a_task(id: str, order: dict, office: str, **changed: Any) -> dict:
    return {
        "resourceType": "Task",
        "id": id,
        "identifier": order["identifier"],
        "status": "requested",
        "intent": "order",
        "priority": order.get("priority"),
        "code": {"coding": [{"system": "http://hl7.org/fhir/CodeSystem/task-code", "code": "fulfill"}]},
        "focus": {"reference": f"ServiceRequest/{order['id']}"},
        "for": order["subject"],
        "authoredOn": "2026-03-02T07:59:00Z",
        "requester": {"reference": office},
        "owner": {"reference": "Organization/practice"},
    } | changed


def a_study(order: str, status: str = "available", id: str = "study") -> dict:
    return {
        "resourceType": "ImagingStudy",
        "id": id,
        "status": status,
        "subject": {"reference": "Patient/p1"},
        "basedOn": [{"reference": order}],
    }


def a_report(order: str, status: str = "final", id: str = "report") -> dict:
    return {
        "resourceType": "DiagnosticReport",
        "id": id,
        "status": status,
        "code": {"text": "Radiology report"},
        "subject": {"reference": "Patient/p1"},
        "basedOn": [{"reference": order}],
    }


def a_slot(kind: str, start: datetime, minutes: int = 30, **changed: Any) -> dict:
    code, display = KINDS[kind]
    return {
        "resourceType": "Slot",
        "id": f"{kind}-{start:%H%M}" if start.date() == MONDAY.date() else f"{kind}-{start:%d-%H%M}",
        "serviceType": [{"coding": [{"system": SNOMED, "code": code, "display": display}]}],
        "schedule": {"reference": f"Schedule/{kind}"},
        "status": "free",
        "start": start.isoformat(),
        "end": (start + timedelta(minutes=minutes)).isoformat(),
    } | changed


def the_practice() -> list[dict]:
    """Directory, rooms and three times a room: 09:00 and 09:30 on Monday, 09:00 on Tuesday (UTC)."""
    made: list[dict] = [
        {"resourceType": "Organization", "id": name, "name": name.capitalize()}
        for name in ("practice", "lakeside", "hillcrest")
    ]
    made.append({"resourceType": "Location", "id": "site", "name": "Pier Street 4"})
    for kind, (code, display) in KINDS.items():
        types = [{"coding": [{"system": SNOMED, "code": code, "display": display}]}]
        made += [
            {
                "resourceType": "Location",
                "id": f"room-{kind}",
                "name": f"{kind.upper()} room",
                "partOf": {"reference": "Location/site"},
                "managingOrganization": {"reference": "Organization/practice"},
            },
            {"resourceType": "Device", "id": f"device-{kind}"},
            {
                "resourceType": "HealthcareService",
                "id": kind,
                "name": {"ct": "Computed tomography", "mr": "Magnetic resonance"}[kind],
                "type": types,
                "extraDetails": "Nothing to eat for four hours before.",
            },
            {
                "resourceType": "Schedule",
                "id": kind,
                "active": True,
                "serviceType": types,
                "actor": [
                    {"reference": f"HealthcareService/{kind}"},
                    {"reference": f"Location/room-{kind}"},
                    {"reference": f"Device/device-{kind}"},
                ],
            },
        ]
        starts = (timedelta(hours=1), timedelta(hours=1.5), timedelta(hours=25))
        made += [a_slot(kind, MONDAY + start) for start in starts]
    return made


@pytest.fixture(scope="session")
def referral_database(mongo_client: pymongo.MongoClient) -> Iterator[Database]:
    """One for all tests here: emptying it costs a tenth of making its collections and indexes anew."""
    name = f"test_{uuid.uuid4().hex[:16]}"
    yield mongo_client[name]
    mongo_client.drop_database(name)


@pytest.fixture
def database(referral_database: Database) -> Iterator[Database]:
    yield referral_database
    for name in referral_database.list_collection_names():
        referral_database[name].delete_many({})


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def loop(database: Database, clock: Clock) -> Loop:
    """The practice, open, with nothing referred yet."""
    repository = Repository(VersionStore(database), BASE, clock, admissions=ADMISSIONS)
    policy = Policy(phone="+1-555-0100", time_zone=ZoneInfo("Europe/Warsaw"))
    loop = Loop(Practice(repository, policy, clock), clock)
    repository.write(store.RULES, [Draft("update", resource) for resource in the_practice()])
    for office, id, family in ((LAKESIDE, "p1", "Nowak"), (HILLCREST, "p2", "Silva")):
        name = [{"family": family, "given": ["Ada"]}]
        repository.update(office, {"resourceType": "Patient", "id": id, "name": name, "birthDate": "1970-01-01"})
    loop.settle()
    return loop


def task_of(loop: Loop, order: str) -> str:
    """The coordination Task of an order."""
    found = tracker.tracker_of(loop.repository, order)
    assert found is not None
    return found.reference
