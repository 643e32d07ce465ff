"""`radloop worker`: consumers of the version stream, deliveries and timers, as one process."""

import signal
import threading

import click

from radloop.commands.common import settings
from radloop.parts import create_parts
from radloop.work import run


@click.command()
def worker() -> None:
    """Run the consumers, deliveries and timers. Any number of workers may run; each job runs in one of them."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    run(create_parts(settings()), stop)
