"""The FHIR API with its audit trail, whose lines become AuditEvents when a test asks for it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask, g
from flask.testing import FlaskClient

from fhir_server import http, routes
from fhir_server.access import AUDIT_SCOPE, AUDIT_TRAIL, Access, Scope
from fhir_server.audit import rest
from fhir_server.audit.service import Audit, create_audit
from fhir_server.operations import standard
from fhir_server.repository import Repository

EVERYTHING = Scope("user", "*", "cruds")
NURSE = Access(
    "user:nina",
    (EVERYTHING,),
    None,
    client_id="tracker",
    fhir_user="Practitioner/nina",
    roles=frozenset({"front-desk"}),
    token="jti-of-nina",
)
AUDITOR = Access("user:otto", (Scope("user", AUDIT_TRAIL, "rs"),), frozenset({"@any", AUDIT_SCOPE}))

# The AuditEvents that a search finds, oldest first.
Audited = Callable[..., list[dict]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "audit"


@pytest.fixture
def audit(repository: Repository, folder: Path) -> Audit:
    return create_audit(repository, folder)


@pytest.fixture
def app(repository: Repository, audit: Audit) -> Flask:
    app = Flask("test")
    http.install(app)
    rest.install(app, audit.trail)
    app.config["ACCESS"] = NURSE

    @app.before_request
    def let_in() -> None:
        if app.config["ACCESS"] is not None:
            g.access = app.config["ACCESS"]

    app.register_blueprint(
        routes.create_blueprint(repository, standard.operations(repository), dict), url_prefix="/fhir"
    )
    return app


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def audited(audit: Audit, repository: Repository) -> Audited:
    def search(query: str = "") -> list[dict]:
        audit.ingester.catch_up()
        found = repository.search(AUDITOR, AUDIT_TRAIL, f"{query}&_count=1000")
        return [version.resource() for version in reversed(found.matches)]

    return search


@pytest.fixture
def ada(repository: Repository) -> str:
    """A patient who was there before."""
    patient = {"resourceType": "Patient", "id": "ada", "name": [{"family": "Byron"}]}
    return repository.update(Access.system("test"), patient).version.reference
