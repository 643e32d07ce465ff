"""`radloop keys`: the keys that tokens are signed with."""

import click

from radloop.commands.common import auth_service


@click.group()
def keys() -> None:
    """List and renew the keys that tokens are signed with."""


@keys.command(name="list")
def list_() -> None:
    """List the published keys by id, with the time from which each signs."""
    auth = auth_service()
    signing = auth.keys.signing_key().kid
    for key in auth.store.signing_keys():
        now = "  signs now" if key.jwk["kid"] == signing else ""
        click.echo(f"{key.jwk['kid']}  from {key.signs_from:%Y-%m-%d %H:%M} UTC{now}")


@keys.command()
def rotate() -> None:
    """Add a key that signs ten minutes from now. The old one stays published for two hours more; no token ends."""
    click.echo(f"added key {auth_service().keys.rotate()}")
