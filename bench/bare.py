"""Flask and pymongo alone, served as the web process is: what a FHIR read and create are measured against."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson
import pymongo
from flask import Flask, Response, request

from radloop import mongod
from radloop.settings import Settings

URI = "BENCH_MONGODB_URI"
DATABASE = "BENCH_DATABASE"
STOP_S = 20


def app() -> Flask:
    """GET /read/<id>: one find_one of a stored body. POST /write: one insert, by a journaled majority."""
    bare = Flask("bare")
    database: Any = pymongo.MongoClient(os.environ[URI])[os.environ[DATABASE]]
    journaled = pymongo.WriteConcern(w="majority", j=True)
    written = database["bench_written"].with_options(write_concern=journaled)

    @bare.get("/read/<id>")
    def read(id: str) -> Response:
        return Response(database["versions_Patient"].find_one({"id": id})["body"], mimetype="application/fhir+json")

    @bare.post("/write")
    def write() -> Response:
        resource = orjson.loads(request.get_data())
        written.insert_one({"resource": resource})
        return Response(orjson.dumps(resource), 201, mimetype="application/fhir+json")

    return bare


@contextmanager
def served(settings: Settings, uri: str, app: str = "bench.bare:app()") -> Iterator[int]:
    """The port on which as many workers and threads as the web process has serve the app."""
    port = mongod.free_port()
    command = [sys.executable, "-m", "gunicorn", "--config", "python:radloop.gunicorn", "--worker-class", "gthread"]
    command += ["--workers", str(settings.web_workers), "--threads", str(settings.web_threads)]
    process = subprocess.Popen(
        [*command, "--bind", f"{settings.host}:{port}", app],
        env=os.environ | {URI: uri, DATABASE: settings.mongodb_database},
    )
    try:
        _wait(settings.host, port)
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(STOP_S)


def _wait(host: str, port: int) -> None:
    deadline = time.monotonic() + STOP_S
    while True:
        try:
            socket.create_connection((host, port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
