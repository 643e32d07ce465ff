"""`radloop load`: FHIR files, or the demonstration practice."""

import sys
from pathlib import Path

import click

from radloop.commands.common import settings
from radloop.loading import load_files
from radloop.parts import create_parts
from radloop.progress import bar
from radloop.setup import set_up_demo


@click.command()
@click.argument("what", nargs=-1, required=True, metavar="demo | FILE...")
def load(what: tuple[str, ...]) -> None:
    """Load the demonstration practice (`load demo`), or resources from JSON and NDJSON files.

    Resources with an id keep it. Refused ones are listed with the reason, and make the exit status 1.
    """
    parts = create_parts(settings())
    if what == ("demo",):
        set_up_demo(parts, click.echo)
        return
    missing = [name for name in what if not Path(name).is_file()]
    if missing:
        raise ValueError(f"there is no file {missing[0]}")
    stored, faults = load_files(parts.repository, [Path(name) for name in what], bar("loading"))
    for fault in faults:
        click.echo(f"{fault.place}: {fault.reason}", err=True)
    click.echo(f"{stored} stored, {len(faults)} refused")
    if faults:
        sys.exit(1)
