"""`radloop load`: FHIR files, or the demonstration practice."""

import sys
import time
from pathlib import Path

import click

from radloop.commands.common import settings
from radloop.file_loading import Fault, load_files
from radloop.parts import create_parts
from radloop.progress import bar
from radloop.setup import set_up_demo


@click.command()
@click.argument("what", nargs=-1, required=True, metavar="demo | FILE...")
def load(what: tuple[str, ...]) -> None:
    """Load the demonstration practice (`load demo`), or resources from JSON and NDJSON files, also gzipped (.gz).

    Resources with an id keep it. Files and lines may come in any order. Transactions and batches are performed, and
    what is in collections is stored. Refused resources are listed with the reason, and make the exit status 1.
    """
    parts = create_parts(settings())
    if what == ("demo",):
        set_up_demo(parts, click.echo)
        return
    missing = [name for name in what if not Path(name).is_file()]
    if missing:
        raise ValueError(f"there is no file {missing[0]}")
    refused = 0

    def refuse(fault: Fault) -> None:
        nonlocal refused
        refused += 1
        click.echo(f"{fault.place}: {fault.reason}", err=True)

    began = time.monotonic()
    stored = load_files(parts.repository, [Path(name) for name in what], bar, refuse)
    took = time.monotonic() - began
    click.echo(f"{stored} stored, {refused} refused, in {took:.1f} s ({stored / max(took, 0.001):.0f} a second)")
    if refused:
        sys.exit(1)
