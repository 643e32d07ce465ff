"""What every rule is handed."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from fhir_server.repository import Repository
from referral.policy import Policy


@dataclass(frozen=True, slots=True)
class Practice:
    """The practice as its rules see it: the store, its policy, its clock (aware UTC)."""

    repository: Repository
    policy: Policy
    clock: Callable[[], datetime]
