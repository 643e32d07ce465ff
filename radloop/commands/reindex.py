"""`radloop reindex`: what stored resources are found by, made anew beside a running server."""

import threading

import click

import conformance
from fhir_server.reindex.state import IndexState, TypeState
from fhir_server.reindex.worker import wait_until_done
from radloop.commands.common import settings
from radloop.parts import create_parts


@click.command()
@click.argument("types", nargs=-1, metavar="[TYPE]...")
@click.option("--wait", is_flag=True, help="Make nothing anew; go on with what waits, and end when it is done.")
def reindex(types: tuple[str, ...], wait: bool) -> None:
    """Index all resources of these types anew, or of all types. Searches go on meanwhile.

    It can be interrupted: the worker of a running server, or this command with --wait, goes on where it was.
    """
    unknown = sorted(set(types) - conformance.resource_types())
    if unknown:
        raise ValueError(f"{unknown[0]} is no resource type")
    parts = create_parts(settings())
    try:
        state = IndexState(parts.database)
        for resource_type in () if wait else types or parts.repository.store.types():
            state.rebuild(resource_type)
        failed: dict[str, str] = {}
        for waiting in wait_until_done(parts.reindexer, threading.Event()):
            click.echo("\r" + _shown(waiting), nl=False)
            failed = {name: one.failure for name, one in waiting.items() if one.failure}
            if len(failed) == len(waiting):
                break
        click.echo()
        for name, failure in failed.items():
            raise ValueError(f"{name}: {failure}")
        click.echo("all resources are indexed as they should be")
    finally:
        parts.close()


def _shown(waiting: dict[str, TypeState]) -> str:
    first, *others = waiting.items()
    more = f", {len(others)} more types" if others else ""
    return f"{first[0]}: {first[1].done} indexed{more}".ljust(70)
