"""`radloop demo`: the outside world of a practice, against a running server or one of its own."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from radloop import mongod
from radloop.commands.check import report_on_loop
from radloop.commands.common import settings
from radloop.demo.play import load_credentials, play
from radloop.demo.stage import StepFailed
from radloop.settings import Settings
from radloop.supervise import wait_for_health

STOP_S = 60
CHECK_WAIT_S = 20.0


@click.command()
@click.option("--serve", "own", is_flag=True, help="On a server of its own, which is stopped after it.")
def demo(own: bool) -> None:
    """Play two referrals from the EHR to images, report and every notice, then prove that none is silent.

    Exit status 1 at the first step that fails.
    """
    if own:
        with server_of_its_own() as found:
            _play(found)
    else:
        _play(settings())


def _play(found: Settings) -> None:
    grace = found.noshow_grace_minutes + found.noshow_correction_minutes
    play(found.origin, load_credentials(found.data_path), grace, click.echo)
    if not report_on_loop(found, CHECK_WAIT_S):
        raise StepFailed("radloop check loop found faults")


@contextmanager
def server_of_its_own(**more: str) -> Iterator[Settings]:
    """The settings of a demonstration server on free ports, started from nothing and stopped at the end.

    more: other settings by name, such as OPEN="true".
    """
    beside = settings().data_path
    beside.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="demo-", dir=beside) as folder:
        port, live_port = mongod.free_port(), mongod.free_port()
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RADLOOP_")}
        given = {"PORT": str(port), "LIVE_PORT": str(live_port), "DATA_DIR": folder, "DEMO": "true"} | more
        environment |= {f"RADLOOP_{name}": value for name, value in given.items()}
        found = Settings.from_env(environment)
        log = Path(folder) / "serve.log"
        with log.open("w") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "radloop", "serve"], env=environment, stdout=output, stderr=subprocess.STDOUT
            )
        try:
            click.echo(f"starting a server on {found.origin}")
            wait_for_health(found, lambda: process.poll() is not None)
            yield found
        except BaseException:
            click.echo(log.read_text(), err=True)
            raise
        finally:
            process.terminate()
            process.wait(STOP_S)
