"""A small app behind the guard, with users and clients of every kind."""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from flask import Flask, Response, g, jsonify
from flask.testing import FlaskClient
from pymongo import MongoClient
from pymongo.database import Database

import fhir_server.http
from fhir_server.repository import Repository
from fhir_server.store import VersionStore
from smart_auth import guard
from smart_auth.clients import Registered, add_client
from smart_auth.passwords import Passwords
from smart_auth.routes import create_blueprint
from smart_auth.service import AuthService, create_service
from smart_auth.users import add_user
from tests.smart_auth.oauth import CALLBACK, FHIR, JWKS, ORIGIN, PASSWORD, SIGNING, Assertions, Clock


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
def clock() -> Clock:
    return Clock()


@pytest.fixture
def quick_passwords() -> Passwords:
    return Passwords(memory_cost=64, time_cost=1)


@pytest.fixture
def service(database: Database, clock: Clock, quick_passwords: Passwords) -> AuthService:
    service = create_service(database, clock, ORIGIN, quick_passwords)
    service.store.first_signing_key(dict(SIGNING.as_dict(private=True)), clock())  # making one takes a while
    return service


@pytest.fixture
def repository(database: Database, clock: Clock) -> Repository:
    """Where users choose patients from."""
    return Repository(VersionStore(database), FHIR, clock)


@pytest.fixture
def users(service: AuthService) -> None:
    def add(name: str, *roles: str, **more: Any) -> None:
        add_user(service.store, service.passwords, name, PASSWORD, roles=roles, **more)

    add("frida", "front-desk", fhir_user="Practitioner/frida")
    add("ruth", "referrer", organization="Organization/o1", fhir_user="Practitioner/ruth")
    add("adam", "admin")
    add("lone", "referrer")
    add("paul", fhir_user="Patient/p1")


@dataclass(frozen=True)
class Clients:
    public: Registered
    symmetric: Registered
    asymmetric: Registered
    launched: Registered
    practice: Registered
    office: Registered


APP_SCOPE = "openid fhirUser user/*.cruds patient/*.rs"


@pytest.fixture
def clients(service: AuthService) -> Clients:
    def app(name: str, type: str, **more: Any) -> Registered:
        return add_client(service.store, name, type=type, scope=APP_SCOPE, redirect_uris=[CALLBACK], **more)

    def backend(name: str, scope: str, **more: Any) -> Registered:
        return add_client(service.store, name, type="backend", scope=scope, jwks=JWKS, **more)

    return Clients(
        public=app("app", "public", origins=["https://app.example.org"]),
        symmetric=app("portal-app", "confidential-symmetric"),
        asymmetric=app("ehr-app", "confidential-asymmetric", jwks=JWKS),
        practice=backend("pacs", "system/*.cruds", practice=True),
        launched=add_client(
            service.store,
            "viewer",
            type="public",
            scope=f"{APP_SCOPE} profile launch launch/patient online_access offline_access",
            redirect_uris=[CALLBACK],
            launch_uris=["https://app.example.org/launch"],
        ),
        office=backend("ehr", "system/*.rs system/Task.cu", organization="Organization/o1"),
    )


def create_app(service: AuthService, repository: Repository, **options: Any) -> Flask:
    app = Flask("guarded")
    fhir_server.http.install(app)
    guard.install(app, service, **options)
    app.register_blueprint(create_blueprint(service, repository, "Organization/practice"))

    @app.get("/fhir/metadata")
    def metadata() -> Response:
        return jsonify({"resourceType": "CapabilityStatement"})

    @app.route("/fhir/whoami", methods=["GET", "POST"])
    @app.get("/dicomweb/whoami")
    @app.get("/wado")
    @app.route("/desk", methods=["GET", "POST"])
    def whoami() -> Response:
        access = g.access
        return jsonify(
            subject=access.subject,
            scopes=[str(scope) for scope in access.scopes],
            audience=None if access.audience is None else sorted(access.audience),
            client=access.client_id,
            patient=access.patient,
            **({} if access.compartment is None else {"compartment": sorted(access.compartment)}),
        )

    @app.get("/form")
    def form() -> str:
        return guard.csrf_token()

    return app


@pytest.fixture
def app(service: AuthService, repository: Repository, users: None, clients: Clients) -> Flask:
    return create_app(service, repository)


@pytest.fixture
def browser(app: Flask) -> Iterator[FlaskClient]:
    with app.test_client() as client:
        yield client


@pytest.fixture
def http(app: Flask) -> FlaskClient:
    """A program: keeps no cookies."""
    return app.test_client(use_cookies=False)


@pytest.fixture
def assertion(clock: Clock) -> Assertions:
    return Assertions(clock)
