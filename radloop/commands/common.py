"""What commands share: settings from the environment, and the parts of a running server."""

import os

from radloop.clock import real_clock
from radloop.connection import connect
from radloop.settings import Settings
from smart_auth.service import AuthService, create_service


def settings() -> Settings:
    """Raises BadSettings, which names each."""
    return Settings.from_env(os.environ)


def auth_service() -> AuthService:
    """The authorization server's parts on the running server's database. Raises NotRunning."""
    found = settings()
    return create_service(connect(found), real_clock, found.origin)
