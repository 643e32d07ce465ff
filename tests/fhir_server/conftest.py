"""A repository over an empty store, and the FHIR API over it with an Access of the test's choice."""

from datetime import UTC, datetime

import pytest
from flask import Flask, g
from flask.testing import FlaskClient
from pymongo.database import Database

from fhir_server import http, routes
from fhir_server.access import Access, Scope
from fhir_server.repository import Repository
from fhir_server.store import VersionStore

BASE = "http://127.0.0.1:8080/fhir"
ALL = (Scope("system", "*", "cruds"),)
PRACTICE = Access.system("test")


def an_office(name: str) -> Access:
    """A client of a referring organization."""
    audience = frozenset({"@any", f"@Organization/{name}", f"@owner/client:{name}"})
    return Access(f"client:{name}", ALL, audience, client_id=name, organization=f"Organization/{name}")


@pytest.fixture
def store(database: Database) -> VersionStore:
    return VersionStore(database)


@pytest.fixture
def repository(store: VersionStore) -> Repository:
    return Repository(store, BASE, lambda: datetime.now(UTC))


@pytest.fixture
def app(repository: Repository) -> Flask:
    app = Flask("test")
    http.install(app)
    app.config["ACCESS"] = PRACTICE

    @app.before_request
    def let_in() -> None:
        g.access = app.config["ACCESS"]

    app.register_blueprint(routes.create_blueprint(repository, [], dict), url_prefix="/fhir")
    return app


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()
