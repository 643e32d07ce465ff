"""`radloop subscribe`: events in the terminal, for integrators."""

import os
import signal
from typing import NoReturn

import click

from radloop.subscriber import following
from radloop.subscriber.api import SERVER, Api, Away, Refused, token_source

USUAL_SERVER = "http://127.0.0.1:8080/fhir"


@click.command()
@click.option("--topic", help="Name or canonical URL of a topic, such as 'referral-status'.")
@click.option("--filter", "filters", multiple=True, help="Such as 'Task?status=accepted'; several must all hold.")
@click.option("--payload", type=click.Choice(["empty", "id-only", "full-resource"]), default="id-only",
              show_default=True)  # fmt: skip
@click.option("--server", envvar=SERVER, default=USUAL_SERVER, show_default=True, help=f"FHIR base, or ${SERVER}.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.option("--keep", is_flag=True, help="Leave the Subscription at the server.")
@click.option("--id", "kept", help="Go on with a Subscription by websocket that was kept.")
@click.option("--after", type=click.IntRange(0), help="With --id: number of the last event that you have.")
def subscribe(
    topic: str | None,
    filters: tuple[str, ...],
    payload: str,
    server: str,
    as_json: bool,
    keep: bool,
    kept: str | None,
    after: int | None,
) -> None:
    """Print events by websocket as they come; Ctrl-C stops it and ends its Subscription.

    A client of the public interface: $FHIR_TOKEN is its access token, or $FHIR_CLIENT_ID and $FHIR_CLIENT_KEY_FILE
    (a private key as a JWK) get one, with the scopes of $FHIR_SCOPE. A lost connection is opened again, and what was
    missed is asked for by $events. Events go to stdout, everything else to stderr.
    """
    if (topic is None) == (kept is None):
        raise click.UsageError("give one of --topic and --id")
    if kept is not None and (filters or keep):
        raise click.UsageError("--filter and --keep are for a new Subscription, --id for one that is there")
    if after is not None and kept is None:
        raise click.UsageError("--after goes with --id")
    for number in (signal.SIGINT, signal.SIGTERM):  # also where a shell started it in the background
        signal.signal(number, _stop)
    try:
        api = Api(server, token_source(os.environ, server))
        id = kept or following.create(api, topic or "", filters, payload)
        _say(f"Subscription/{id} at {api.base}; Ctrl-C stops")
        try:
            for event in following.Follower(api, id, after if kept else 0, _say).events():
                click.echo(event.json() if as_json else event.line())
        except KeyboardInterrupt:
            _say("stopped")
        finally:
            if kept is None and not keep:
                _end(api, id)
            else:
                _say(f"goes on with: radloop subscribe --id {id}")
    except Away as fault:
        raise Refused(str(fault)) from None


def _end(api: Api, id: str) -> None:
    try:
        api.call("DELETE", f"Subscription/{id}")
        _say(f"ended Subscription/{id}")
    except (Away, Refused) as fault:
        _say(f"Subscription/{id} could not be ended: {fault}")


def _say(text: str) -> None:
    click.echo(text, err=True)


def _stop(_number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt
