"""`radloop`: the command line. Each command is a thin layer over plain functions."""

import logging
import os
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click

from radloop import __version__
from radloop.connection import NotRunning
from radloop.demo.stage import StepFailed
from radloop.settings import BadSettings
from radloop.supervise import CannotStart

# Refusals that a person can act upon: told in a line, without a traceback.
REFUSALS = (BadSettings, CannotStart, NotRunning, StepFailed, ValueError)

# Name -> where it is, as `module:function`. Each is imported when it is asked for: together they take a second.
COMMANDS: Mapping[str, str] = {
    "check": "check:check",
    "client": "clients:client",
    "demo": "demo:demo",
    "dicom": "dicom:dicom",
    "ehr-sim": "ehr_sim:ehr_sim",
    "keys": "keys:keys",
    "load": "load:load",
    "reindex": "reindex:reindex",
    "serve": "serve:serve",
    "subscribe": "subscribe:subscribe",
    "token": "token:token",
    "user": "users:user",
    "worker": "worker:worker",
}


class Commands(click.Group):
    """Turns refusals into one line and exit status 1."""

    def list_commands(self, _context: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, _context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, _, function = COMMANDS[name].partition(":")
        command: click.Command = getattr(import_module(f"radloop.commands.{module}"), function)
        return command

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except REFUSALS as refusal:
            click.echo(f"radloop: {refusal}", err=True)
            sys.exit(1)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="%(version)s")
def main() -> None:
    """Radloop: no referral goes silent.

    Settings come from RADLOOP_* variables (docs/operations.md); flags of `serve` win over them. Commands that need a
    running server find its database by RADLOOP_MONGODB_URI, or else by RADLOOP_DATA_DIR.
    """
    level = os.environ.get("RADLOOP_LOG_LEVEL", "WARNING").upper()
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
