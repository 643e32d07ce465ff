"""Leases: of any number of workers, one at a time does a named job. A crash frees it when the lease runs out."""

import os
import socket
import time
import uuid
from datetime import UTC, datetime, timedelta

from pymongo.database import Database
from pymongo.errors import DuplicateKeyError

DURATION_S = 8.0
RENEW_EVERY_S = 2.0


class Lease:
    """A named lease held by this object. Time is the machine's real clock: leases are not the practice's time."""

    def __init__(self, database: Database, name: str, duration_s: float = DURATION_S) -> None:
        self._leases = database["leases"]
        self._name = name
        self._duration_s = duration_s
        self._owner = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._renewed = float("-inf")

    def hold(self) -> bool:
        """Take or keep the lease; False while another holder's is running. Cheap to call in a loop."""
        if time.monotonic() - self._renewed < RENEW_EVERY_S:
            return True
        now = datetime.now(UTC)
        mine_or_over = {"_id": self._name, "$or": [{"owner": self._owner}, {"until": {"$lt": now}}]}
        until = now + timedelta(seconds=self._duration_s)
        try:
            self._leases.update_one(mine_or_over, {"$set": {"owner": self._owner, "until": until}}, upsert=True)
        except DuplicateKeyError:  # the upsert met a running lease of somebody else
            self._renewed = float("-inf")
            return False
        self._renewed = time.monotonic()
        return True

    def release(self) -> None:
        """Give the lease back, so that the next worker need not wait for its end."""
        self._leases.delete_one({"_id": self._name, "owner": self._owner})
        self._renewed = float("-inf")
