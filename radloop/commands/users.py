"""`radloop user`: who may log in."""

import click

from radloop.commands.common import auth_service
from smart_auth import second_factor, users
from smart_auth.models import ROLES


@click.group()
def user() -> None:
    """Add, list, deactivate users; set passwords."""


@user.command()
@click.argument("name")
@click.option(
    "--role", "roles", multiple=True, required=True, type=click.Choice(sorted(ROLES)), help="May be repeated."
)
@click.option("--organization", help="Organization/<id> of the referring office.")
@click.option("--fhir-user", help="Practitioner/<id>, PractitionerRole/<id>, Patient/<id> ... that the user is.")
@click.option("--email", help="Where mail to the user goes.")
@click.password_option(help="Asked for when left out, so that it stays out of the shell's history.")
def add(
    name: str,
    roles: tuple[str, ...],
    organization: str | None,
    fhir_user: str | None,
    email: str | None,
    password: str,
) -> None:
    """Add a user who can log in at once."""
    auth = auth_service()
    users.add_user(
        auth.store,
        auth.passwords,
        name,
        password,
        roles=roles,
        organization=organization,
        fhir_user=fhir_user,
        email=email,
    )
    click.echo(f"added user {name}")


@user.command(name="list")
def list_() -> None:
    """List users with roles, organization and state."""
    for found in auth_service().store.users():
        state = "" if found.active else "  deactivated"
        click.echo(f"{found.name:<20} {','.join(sorted(found.roles)):<24} {found.organization or '-'}{state}")


@user.command()
@click.argument("name")
@click.password_option()
def password(name: str, password: str) -> None:
    """Set a password; ends the user's sessions and tokens."""
    auth = auth_service()
    _told(users.set_password(auth.store, auth.passwords, name, password), name, "has a new password")


@user.command()
@click.argument("name")
def deactivate(name: str) -> None:
    """End a user's sessions and tokens, and let no new one begin."""
    _told(users.deactivate_user(auth_service().store, name), name, "is deactivated")


@user.command()
@click.argument("name")
def activate(name: str) -> None:
    """Let a deactivated user in again."""
    _told(users.activate_user(auth_service().store, name), name, "is active")


@user.command(name="reset-second-factor")
@click.argument("name")
def reset_second_factor(name: str) -> None:
    """Let a user who lost phone, recovery codes and security keys in by password alone, to set up anew."""
    if not second_factor.forget(auth_service(), name):
        raise ValueError(f"{name} has no second factor")
    click.echo(f"user {name} logs in by password alone now")


def _told(known: bool, name: str, what: str) -> None:
    if not known:
        raise ValueError(f"there is no user {name}")
    click.echo(f"user {name} {what}")
