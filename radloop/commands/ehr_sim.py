"""`radloop ehr-sim`: a small EHR whose chart opens our app, for demonstrations."""

import signal
import threading

import click

from radloop.commands.common import settings
from radloop.demo.ehr_sim import PORT, STYLE, running


@click.command(name="ehr-sim")
@click.option("--styled", is_flag=True, help="Ask the app to take on the EHR's colours, and to show no banner.")
@click.option("--port", type=click.IntRange(0, 65535), default=PORT, help="Another port; 0: a free one.")
def ehr_sim(styled: bool, port: int) -> None:
    """Run an EHR with one physician and one patient on this machine; Ctrl-C stops it.

    A demonstration server (`radloop serve --demo`) knows it on its own port and lets it open our app.
    """
    with running(f"{settings().origin}/tracker/launch", port) as ehr:
        if styled:
            ehr.style, ehr.banner = STYLE, False
        stopped = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):  # also where a shell started it in the background
            signal.signal(number, lambda _number, _frame: stopped.set())
        click.echo(f"the chart is at {ehr.origin}/ ; Ctrl-C stops it")
        stopped.wait()
        click.echo("stopped")
