"""Clients that others wrote, as they are, against a whole server with tokens as it gives them."""

import pytest

from radloop.demo.oauth import BackendToken
from tests.server import Server


@pytest.fixture(scope="session")
def ehr(server: Server) -> BackendToken:
    """Tokens of an EHR by SMART Backend Services, for all that it may do."""
    return server.backend("demo-ehr")
