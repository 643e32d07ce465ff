"""`radloop token`: a token for scripts and trying out."""

from datetime import timedelta

import click

from radloop.commands.common import auth_service


@click.command()
@click.option("--client", "client_id", help="As this registered client.")
@click.option("--user", "user_name", help="As this user.")
@click.option("--scope", required=True, help="Scopes such as 'user/Task.rs', separated by spaces.")
@click.option("--minutes", type=click.IntRange(1, 60), default=60, show_default=True, help="How long it lives.")
def token(client_id: str | None, user_name: str | None, scope: str, minutes: int) -> None:
    """Print an access token for --client or --user."""
    if (client_id is None) == (user_name is None):
        raise click.UsageError("give one of --client and --user")
    auth, lifetime = auth_service(), timedelta(minutes=minutes)
    if client_id is not None:
        client = auth.store.client(client_id)
        if client is None or not client.active:
            raise ValueError(f"there is no active client {client_id}")
        click.echo(auth.issuer.issue_for_client(client, scope, lifetime))
    else:
        user = auth.store.user(user_name or "")
        if user is None or not user.active:
            raise ValueError(f"there is no active user {user_name}")
        click.echo(auth.issuer.issue_for_user(user, scope, lifetime))
