"""`radloop serve`: all processes of one machine."""

import os
import threading
import time
from importlib import import_module

import click

from radloop.settings import Settings
from radloop.supervise import Supervisor


@click.command()
@click.option("--host", help="Address to listen on.")
@click.option("--port", type=int, help="Port of the web server.")
@click.option("--live-port", type=int, help="Port of the websockets.")
@click.option("--data-dir", help="Folder for MongoDB, images and demonstration secrets.")
@click.option("--public-url", help="Address that clients use, when it is not http://HOST:PORT.")
@click.option("--mongodb-uri", help="An existing replica set instead of the embedded MongoDB.")
@click.option("--demo", is_flag=True, default=None, help="With a demonstration practice; loopback only.")
@click.option("--open", is_flag=True, default=None, help="Without authorization, to try things out; loopback only.")
def serve(**flags: str | int | bool | None) -> None:
    """Start MongoDB (unless one is named), web, live and worker; Ctrl-C stops them."""
    began = time.monotonic()
    settings = Settings.from_env(os.environ, **flags)
    supervisor = Supervisor(settings, click.echo)
    supervisor.stop_on_signals()
    try:
        # To import the rest takes as long as MongoDB takes to start, so both are done at once.
        importing = threading.Thread(target=import_module, args=("radloop.setup",), daemon=True)
        importing.start()
        supervisor.start_store()
        importing.join()
        credentials = _fill(settings, supervisor.mongodb_uri)
        click.echo("starting web, live and worker")
        supervisor.start_processes()
        if supervisor.wait_until_ready():
            click.echo("\n".join(welcome(settings, credentials, time.monotonic() - began)))
            supervisor.run()
    finally:
        supervisor.stop()


def _fill(settings: Settings, mongodb_uri: str) -> dict | None:
    """Store what is stored before a server answers; the credentials of a demonstration."""
    from radloop.connection import connect
    from radloop.parts import create_parts
    from radloop.setup import set_up, set_up_demo

    parts = create_parts(settings, connect(settings, mongodb_uri))
    try:
        set_up(parts, click.echo)
        return set_up_demo(parts, click.echo) if settings.demo else None
    finally:
        parts.close()


def welcome(settings: Settings, credentials: dict | None, seconds: float) -> list[str]:
    """What stands on the screen once the server is ready."""
    lines = [
        "",
        f"Radloop is ready ({seconds:.1f} s)",
        f"  portal    {settings.origin}/",
        f"  FHIR R4   {settings.fhir_base}   (open to all: {settings.fhir_base}/metadata)",
        f"  DICOMweb  {settings.dicomweb_base}",
        f"  websocket {settings.live_url}/ws/subscriptions",
    ]
    if settings.open:
        lines.append("  authorization is OFF (--open)")
    if credentials is not None:
        lines += ["", "Demonstration log-ins"]
        lines += [f"  {name:<12} {password}" for name, password in credentials["users"].items()]
        lines += ["", "`radloop demo` in another terminal plays two referrals through this server."]
        lines += ["`radloop ehr-sim` in another terminal is an EHR that opens our app on this server."]
    return [*lines, "Ctrl-C stops it.", ""]
