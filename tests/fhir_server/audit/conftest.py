"""The FHIR API with its audit trail, whose lines become AuditEvents when a test asks for it."""

from pathlib import Path

import pytest
from flask import Flask, g
from flask.testing import FlaskClient

from fhir_server import http, routes
from fhir_server.access import Access, Scope
from fhir_server.audit import rest
from fhir_server.audit.service import Audit
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


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "audit"


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
def ada(repository: Repository) -> str:
    """A patient who was there before."""
    patient = {"resourceType": "Patient", "id": "ada", "name": [{"family": "Byron"}]}
    return repository.update(Access.system("test"), patient).version.reference
