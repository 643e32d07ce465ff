"""`radloop client`: programs that may ask for tokens."""

import json
from pathlib import Path

import click

from radloop.commands.common import auth_service
from smart_auth import clients, registration
from smart_auth.models import CLIENT_TYPES


@click.group()
def client() -> None:
    """Register, list, deactivate SMART apps and backend systems."""


@client.command()
@click.argument("client_id")
@click.option("--type", "kind", required=True, type=click.Choice(sorted(CLIENT_TYPES)))
@click.option("--scope", required=True, help="All it may ever be granted, separated by spaces.")
@click.option("--name", default="", help="Shown to users who are asked for consent.")
@click.option("--redirect-uri", "redirect_uris", multiple=True, help="Exact address; may be repeated.")
@click.option("--launch-uri", "launch_uris", multiple=True, help="Where an EHR launches the app.")
@click.option("--origin", "origins", multiple=True, help="Origin of a browser app, for cross-origin requests.")
@click.option("--jwks-file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Its public keys.")
@click.option("--jwks-url", help="Where its public keys are.")
@click.option("--organization", help="Organization/<id> of the referring office whose data a backend sees.")
@click.option("--practice", is_flag=True, help="A system of the practice itself, which sees all.")
def add(
    client_id: str,
    kind: str,
    scope: str,
    name: str,
    redirect_uris: tuple[str, ...],
    launch_uris: tuple[str, ...],
    origins: tuple[str, ...],
    jwks_file: Path | None,
    jwks_url: str | None,
    organization: str | None,
    practice: bool,
) -> None:
    """Register a client; prints its secret, if it has one, this once."""
    registered = clients.add_client(
        auth_service().store,
        client_id,
        type=kind,
        scope=scope,
        name=name,
        redirect_uris=redirect_uris,
        launch_uris=launch_uris,
        origins=origins,
        jwks=json.loads(jwks_file.read_text()) if jwks_file else None,
        jwks_uri=jwks_url,
        organization=organization,
        practice=practice,
    )
    click.echo(f"registered client {client_id}")
    if registered.secret:
        click.echo(f"secret (kept nowhere, so note it now): {registered.secret}")


@client.command(name="list")
def list_() -> None:
    """List clients with type, scope and state."""
    for found in auth_service().store.clients():
        state = "" if found.active else "  deactivated"
        click.echo(f"{found.client_id:<20} {found.type:<24} {found.scope}{state}")


@client.command()
@click.argument("client_id")
def deactivate(client_id: str) -> None:
    """End a client's tokens and grant it no more."""
    _told(clients.deactivate_client(auth_service().store, client_id), client_id, "is deactivated")


@client.command()
@click.argument("client_id")
def activate(client_id: str) -> None:
    """Let a deactivated client in again."""
    _told(clients.activate_client(auth_service().store, client_id), client_id, "is active")


@client.command()
@click.argument("client_id")
def remove(client_id: str) -> None:
    """End a client's tokens and forget it; one that registered itself."""
    _told(clients.remove_client(auth_service().store, client_id), client_id, "is removed")


@client.command(name="registration-token")
def registration_token() -> None:
    """Print an initial access token, with which one program may register itself within a week.

    Where RADLOOP_CLIENT_REGISTRATION is `token`.
    """
    click.echo(registration.make_token(auth_service()))


def _told(known: bool, client_id: str, what: str) -> None:
    if not known:
        raise ValueError(f"there is no client {client_id}")
    click.echo(f"client {client_id} {what}")
