"""`radloop`: the command line. Each command is a thin layer over plain functions."""

import logging
import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from radloop import __version__
from radloop.commands import (
    check,
    clients,
    demo,
    dicom,
    ehr_sim,
    keys,
    load,
    reindex,
    serve,
    subscribe,
    token,
    users,
    worker,
)
from radloop.connection import NotRunning
from radloop.demo.stage import StepFailed
from radloop.settings import BadSettings
from radloop.supervise import CannotStart

# Refusals that a person can act upon: told in a line, without a traceback.
REFUSALS = (BadSettings, CannotStart, NotRunning, StepFailed, ValueError)

T = TypeVar("T", bound=Callable[..., Any])


class Commands(click.Group):
    """Turns refusals into one line and exit status 1."""

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


main.add_command(serve.serve)
main.add_command(demo.demo)
main.add_command(ehr_sim.ehr_sim)
main.add_command(load.load)
main.add_command(users.user)
main.add_command(clients.client)
main.add_command(keys.keys)
main.add_command(token.token)
main.add_command(check.check)
main.add_command(dicom.dicom)
main.add_command(subscribe.subscribe)
main.add_command(reindex.reindex)
main.add_command(worker.worker)
