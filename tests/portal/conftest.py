"""The pages over a real database, as people see them: they log in, read, and send the forms that the page has."""

import uuid
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from flask import Flask
from flask.testing import FlaskClient
from pymongo import MongoClient
from pymongo.database import Database

import conformance
import fhir_server.http
from dicomweb.attach import Attachments
from dicomweb.attached import AttachedFiles
from dicomweb.blobs import BlobStore, FolderBlobStore
from dicomweb.corrections import Corrections
from dicomweb.pool import PixelPool
from dicomweb.projection import Projector, ensure_endpoint
from dicomweb.store import DicomStore
from fhir_server.access import Access
from fhir_server.audit.service import Audit
from fhir_server.prepare import Draft
from fhir_server.repository import Repository
from fhir_server.store import VersionStore
from portal.routes import create_blueprint
from portal.studies import Imaging, account
from referral import escalation, rules, sweeper
from referral.admission import ADMISSIONS
from referral.codes import FULFILL, TASK_CODE, concept
from referral.context import Practice
from referral.policy import Policy
from smart_auth import guard, routes
from smart_auth.passwords import Passwords
from smart_auth.service import AuthService, create_service
from smart_auth.users import add_user
from subscriptions.addresses import PATH as CONFIRM
from subscriptions.addresses import Addresses
from subscriptions.admission import SubscriptionAdmission
from subscriptions.binding import Bindings
from subscriptions.desk import SubscriptionDesk
from subscriptions.mail_store import MongoAddresses, Outbox
from subscriptions.outgoing import Outgoing
from subscriptions.store import BindingTokens, SubscriptionStore
from tests.smart_auth.oauth import ORIGIN, PASSWORD, SIGNING, Clock, log_in

LIVE = "ws://127.0.0.1:8081/ws/subscriptions"
ZONE = ZoneInfo("Europe/Zurich")
MONDAY = datetime(2027, 3, 1, 8, tzinfo=UTC)  # 9:00 in the practice
SYSTEM = Access.system("test")
CT = ("http://snomed.info/sct", "77477000")
PRACTICE, LAKESIDE, HILLCREST = (f"Organization/{name}" for name in ("practice", "lakeside", "hillcrest"))


@pytest.fixture(scope="session")
def shared_database(mongo_client: MongoClient) -> Iterator[Database]:
    name = f"test_{uuid.uuid4().hex[:16]}"
    yield mongo_client[name]
    mongo_client.drop_database(name)


@pytest.fixture
def database(shared_database: Database) -> Database:
    """One database, emptied for each test: making and dropping indexes would take most of these tests' time."""
    for name in shared_database.list_collection_names():
        shared_database[name].delete_many({})
    return shared_database


@pytest.fixture
def real_clock() -> Clock:
    """What log-ins go by."""
    return Clock()


@pytest.fixture
def clock() -> Clock:
    """What the practice goes by."""
    clock = Clock()
    clock.now = MONDAY
    return clock


@pytest.fixture
def repository(database: Database, clock: Clock) -> Repository:
    topics = conformance.topics()
    admissions: dict[str, Any] = dict(ADMISSIONS)
    admissions["Subscription"] = (SubscriptionAdmission(topics, Outgoing(()), clock),)
    return Repository(VersionStore(database), f"{ORIGIN}/fhir", clock, admissions)


@pytest.fixture
def practice(repository: Repository, clock: Clock) -> Practice:
    repository.write(SYSTEM, [Draft("update", resource) for resource in [*a_practice(), *a_questionnaire()]])
    return Practice(repository, Policy(phone="+1-555-0100", time_zone=ZONE), clock)


@pytest.fixture
def auth(database: Database, real_clock: Clock) -> AuthService:
    service = create_service(database, real_clock, ORIGIN, Passwords(memory_cost=64, time_cost=1))
    service.store.first_signing_key(dict(SIGNING.as_dict(private=True)), real_clock())

    def add(name: str, *roles: str, **more: Any) -> None:
        add_user(service.store, service.passwords, name, PASSWORD, roles=roles, **more)

    add("frida", "front-desk", fhir_user="Practitioner/frida")
    add("ruth", "referrer", organization=LAKESIDE, fhir_user="PractitionerRole/lakeside-role")
    add("otto", "referrer", organization=HILLCREST)
    add("adam", "admin")
    return service


@pytest.fixture
def outbox(database: Database) -> Outbox:
    return Outbox(database)


@pytest.fixture
def bindings(database: Database, clock: Clock) -> Bindings:
    return Bindings(SubscriptionStore(database), BindingTokens(database), clock)


def create_app(
    auth: AuthService,
    practice: Practice,
    bindings: Bindings,
    outbox: Outbox,
    *,
    public_paths: Collection[str] = (),
    open_access: bool = False,
    attachments: Attachments | None = None,
    imaging: Imaging | None = None,
) -> Flask:
    app = Flask("portal-test")
    fhir_server.http.install(app)
    guard.install(app, auth, public_paths=public_paths, public_prefixes=(CONFIRM,), open_access=open_access)
    app.register_blueprint(routes.create_blueprint(auth, practice.repository, PRACTICE))
    database, repository = practice.repository.store.database, practice.repository
    nowhere = DicomStore(database), FolderBlobStore(Path("nowhere"))
    attachments = attachments or Attachments(*nowhere, 1, practice.clock)
    imaging = imaging or Imaging(
        nowhere[0],
        Corrections(*nowhere, practice.clock, lambda _act: None),
        AttachedFiles(*nowhere, PixelPool(1)),
    )
    desk = SubscriptionDesk(SubscriptionStore(database), repository, conformance.topics())
    addresses = Addresses(MongoAddresses(database), outbox, ORIGIN)
    app.register_blueprint(
        create_blueprint(practice, auth, bindings, outbox, LIVE, addresses, desk, attachments, imaging)
    )
    return app


@pytest.fixture
def studies(database: Database) -> DicomStore:
    store = DicomStore(database, quiet_s=0.0)
    store.prepare()
    return store


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return FolderBlobStore(tmp_path / "blobs")


@pytest.fixture(scope="session")
def pool() -> Iterator[PixelPool]:
    pool = PixelPool(1)
    yield pool
    pool.close()


@pytest.fixture
def project(studies: DicomStore, repository: Repository, react: Callable[[], None]) -> Callable[[], None]:
    """Let the worker do what is due."""
    ensure_endpoint(repository, f"{ORIGIN}/dicomweb")
    projector = Projector(studies, repository)

    def run() -> None:
        while projector.project_due():
            react()
        react()

    return run


@pytest.fixture
def attachments(studies: DicomStore, blobs: BlobStore, clock: Clock) -> Attachments:
    return Attachments(studies, blobs, 2 * 2**20, clock)


@pytest.fixture
def app(
    auth: AuthService,
    practice: Practice,
    bindings: Bindings,
    outbox: Outbox,
    attachments: Attachments,
    studies: DicomStore,
    blobs: BlobStore,
    audit: Audit,
    pool: PixelPool,
) -> Flask:
    record = account(audit.trail, practice.repository)
    imaging = Imaging(
        studies, Corrections(studies, blobs, practice.clock, record), AttachedFiles(studies, blobs, pool)
    )
    return create_app(auth, practice, bindings, outbox, attachments=attachments, imaging=imaging)


@pytest.fixture
def react(practice: Practice) -> Callable[[], None]:
    """Let the practice's rules react to everything that was written, until nothing more follows."""
    handle, seen = rules.handler(practice), set()

    def settle() -> None:
        while True:
            versions = [
                v for name in rules.REACTIONS for v in practice.repository.store.history(name, None, {}, 1000)
            ]
            new = [v for v in sorted(versions, key=lambda v: v.number) if v.number not in seen]
            if not new:
                return
            for version in new:
                seen.add(version.number)
                handle(version)

    return settle


@dataclass
class Person:
    """Somebody with a browser. `html` is the page they see."""

    browser: FlaskClient
    react: Callable[[], None]
    html: str = ""
    status: int = 0
    forms: list["Form"] = field(default_factory=list)

    def open(self, path: str, **more: Any) -> str:
        return self._see(self.browser.get(path, follow_redirects=True, headers={"Accept": "text/html"}, **more))

    def press(self, action: str, **fields: str) -> str:
        """Send the form of this page with that end of its address; a page must have it to send it."""
        form = next((form for form in self.forms if form.action.partition("?")[0].endswith(action)), None)
        assert form is not None, f"no form {action} among {[form.action for form in self.forms]}"
        return self.send(form.action, **(form.fields | fields))

    def send(self, path: str, **fields: str) -> str:
        """POST whatever one likes."""
        response = self.browser.post(path, data=fields, headers={"Accept": "text/html"})
        self.react()
        if response.status_code == 303:
            return self.open(response.location)
        return self._see(response)

    @property
    def csrf(self) -> str:
        return next(form.fields["csrf_token"] for form in self.forms if "csrf_token" in form.fields)

    def has(self, action: str) -> bool:
        return any(form.action.endswith(action) for form in self.forms)

    def _see(self, response: Any) -> str:
        self.html, self.status = response.text, response.status_code
        self.forms = forms_of(self.html)
        return self.html


@pytest.fixture
def person(app: Flask, react: Callable[[], None]) -> Callable[[str], Person]:
    """Somebody who has logged in, by user name."""

    def logged_in(name: str) -> Person:
        browser = app.test_client()
        assert log_in(browser, name, next="/").status_code == 303
        return Person(browser, react)

    return logged_in


@dataclass
class Form:
    action: str
    method: str
    fields: dict[str, str] = field(default_factory=dict)


class _Forms(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[Form] = []
        self.inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.inside = True
            self.found.append(Form(given["action"], given.get("method", "get")))
        elif tag == "input" and self.inside and given.get("type") == "hidden":
            self.found[-1].fields[given["name"]] = given["value"]

    def handle_endtag(self, tag: str) -> None:
        self.inside = self.inside and tag != "form"


def forms_of(html: str) -> list[Form]:
    """Each form with its hidden fields."""
    parser = _Forms()
    parser.feed(html)
    return parser.found


@dataclass(frozen=True)
class Referral:
    """One referral that was sent; `id` is its Task's."""

    id: str
    order: str
    patient: str


@pytest.fixture
def refer(practice: Practice, react: Callable[[], None]) -> Callable[..., Referral]:
    """Send a referral as the system of an office does, and let the practice receive it."""

    def send(
        name: str = "Muster",
        exam: str = "CT abdomen",
        priority: str = "routine",
        office: str = LAKESIDE,
        received: bool = True,
        **order: Any,
    ) -> Referral:
        key = uuid.uuid4().hex[:8]
        number = {
            "type": concept("http://terminology.hl7.org/CodeSystem/v2-0203", "PLAC"),
            "system": "urn:oid:2.999.7.1",
            "value": f"LK-{key}",
        }
        patient = {
            "resourceType": "Patient",
            "id": f"patient-{key}",
            "name": [{"family": name, "given": ["Pat"]}],
            "birthDate": "1970-05-17",
        }
        request = {
            "resourceType": "ServiceRequest",
            "id": f"order-{key}",
            "identifier": [number],
            "status": "active",
            "intent": "order",
            "priority": priority,
            "code": {"text": exam},
            "subject": {"reference": f"Patient/patient-{key}"},
            "authoredOn": practice.clock().isoformat(),
            "requester": {"reference": office},
            "performer": [{"reference": PRACTICE}],
            "reasonCode": [{"text": "Pain for three weeks"}],
        }
        task = {
            "resourceType": "Task",
            "id": f"task-{key}",
            "identifier": [number],
            "status": "requested",
            "intent": "order",
            "priority": priority,
            "code": concept(TASK_CODE, FULFILL),
            "focus": {"reference": f"ServiceRequest/order-{key}"},
            "for": {"reference": f"Patient/patient-{key}"},
            "authoredOn": practice.clock().isoformat(),
            "requester": {"reference": office},
            "owner": {"reference": PRACTICE},
        }
        resources = [patient, request | order, task]
        practice.repository.write(an_office(office), [Draft("update", resource) for resource in resources])
        if received:
            react()
        return Referral(f"task-{key}", f"ServiceRequest/order-{key}", f"Patient/patient-{key}")

    return send


@pytest.fixture
def sweep(practice: Practice, react: Callable[[], None]) -> Callable[[], None]:
    """Let time have its effect: missed appointments, escalations."""

    def run() -> None:
        sweeper.sweep(practice)
        escalation.escalate(practice)
        react()

    return run


def an_office(organization: str) -> Access:
    """The system of a referring office."""
    name = organization.partition("/")[2]
    audience = frozenset({"@any", f"@{organization}", f"@owner/client:{name}"})
    return Access(f"client:{name}", SYSTEM.scopes, audience, client_id=name, organization=organization)


def a_practice() -> Iterator[dict]:
    for name, words in (
        ("practice", "Harbor Radiology"),
        ("lakeside", "Lakeside Family Medicine"),
        ("hillcrest", "Hillcrest"),
    ):
        yield {"resourceType": "Organization", "id": name, "name": words}
    yield {"resourceType": "Practitioner", "id": "lakeside-physician", "name": [{"family": "Lindqvist"}]}
    yield {
        "resourceType": "PractitionerRole",
        "id": "lakeside-role",
        "practitioner": {"reference": "Practitioner/lakeside-physician"},
        "organization": {"reference": LAKESIDE},
    }
    kind = concept(*CT)
    yield {"resourceType": "Location", "id": "room-ct", "name": "CT room", "status": "active"}
    yield {
        "resourceType": "HealthcareService",
        "id": "ct",
        "active": True,
        "type": [kind],
        "name": "Computed tomography",
        "providedBy": {"reference": PRACTICE},
        "extraDetails": "Nothing to eat for four hours before.",
    }
    yield {"resourceType": "HealthcareService", "id": "mr", "active": True, "name": "Magnetic resonance"}
    yield {
        "resourceType": "Schedule",
        "id": "ct",
        "active": True,
        "serviceType": [kind],
        "actor": [{"reference": "HealthcareService/ct"}, {"reference": "Location/room-ct"}],
    }
    for half_hours in range(2, 8):
        start = MONDAY + timedelta(minutes=30 * half_hours)
        yield {
            "resourceType": "Slot",
            "id": f"ct-{half_hours}",
            "serviceType": [kind],
            "schedule": {"reference": "Schedule/ct"},
            "status": "free",
            "start": start.isoformat(),
            "end": (start + timedelta(minutes=30)).isoformat(),
        }


def a_questionnaire() -> list[dict]:
    return [resource for resource in conformance.conformance_resources() if resource["id"] == "referral-feedback"]
