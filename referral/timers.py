"""What happens by the clock alone: appointments whose time has passed, holds that run out, referrals that wait."""

import threading
import time

from pymongo.database import Database

from fhir_server import periodic
from referral.context import Practice
from referral.escalation import escalate
from referral.sweeper import sweep

NAME = "timers"
EVERY_S = 2.0
ESCALATE_EVERY_S = 15.0  # it looks at every open referral, and its shortest limit is minutes


def run(practice: Practice, database: Database, stop: threading.Event, every_s: float = EVERY_S) -> None:
    """Sweep and escalate until `stop` is set; of any number of workers, one at a time does."""
    escalated = float("-inf")

    def job() -> None:
        nonlocal escalated
        sweep(practice)
        if time.monotonic() - escalated >= ESCALATE_EVERY_S:
            escalate(practice)
            escalated = time.monotonic()

    periodic.repeat(database, NAME, job, stop, every_s)
