"""An app with the operations of fhir_server, and how the tests call them."""

import json
from typing import Any

from flask import Flask, g
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from fhir_server import http, routes
from fhir_server.operation import Operation
from fhir_server.repository import Repository
from tests.fhir_server.conftest import PRACTICE


def app_with(repository: Repository, operations: list[Operation]) -> Flask:
    """The FHIR API with these operations; `app.config["ACCESS"]` is the caller's."""
    app = Flask("test")
    http.install(app)
    app.config["ACCESS"] = PRACTICE

    @app.before_request
    def let_in() -> None:
        g.access = app.config["ACCESS"]

    app.register_blueprint(routes.create_blueprint(repository, operations, dict), url_prefix="/fhir")
    return app


def post(client: FlaskClient, path: str, body: Any, **headers: str) -> TestResponse:
    """POST of a resource, of bytes, or of a list as the entries of a Parameters."""
    if isinstance(body, list):
        body = {"resourceType": "Parameters", "parameter": body}
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.post(f"/fhir/{path}", data=data, content_type="application/fhir+json", headers=names)


def json_of(answer: TestResponse, status: int = 200) -> dict:
    """The content of an answer with that status."""
    assert answer.status_code == status, answer.text
    return answer.get_json(force=True)


def values(parameters: dict) -> dict[str, Any]:
    """The values of a Parameters by name; the last one of a name that repeats."""
    assert parameters["resourceType"] == "Parameters"
    return {
        entry["name"]: next(value for key, value in entry.items() if key != "name")
        for entry in parameters["parameter"]
    }
