"""What opens a door once, in MongoDB: links for a new password, and initial access tokens of programs.

Knows pymongo, as `store` does, and follows its rules: what expires has a TTL index and is compared with the clock.
"""

from dataclasses import asdict
from datetime import datetime

from bson.codec_options import CodecOptions
from pymongo.database import Database
from pymongo.read_preferences import ReadPreference
from pymongo.write_concern import WriteConcern

from smart_auth.models import Reset, Ticket

RESETS = "auth_resets"


class Credentials:
    """One object a process; thread safe."""

    def __init__(self, database: Database) -> None:
        self._database: Database = database.with_options(
            codec_options=CodecOptions(tz_aware=True),
            read_preference=ReadPreference.PRIMARY,
            write_concern=WriteConcern("majority", j=True),
        )
        self._resets = self._database[RESETS]
        self._tickets = self._database["auth_tickets"]

    def prepare(self) -> None:
        """Create the indexes. Harmless to repeat, also by several processes at once."""
        self._resets.create_index("expires", expireAfterSeconds=0, name="ttl")
        self._resets.create_index("user", name="user")
        self._tickets.create_index("expires", expireAfterSeconds=0, name="ttl")

    def add_reset(self, reset: Reset) -> None:
        document = asdict(reset)
        self._resets.insert_one({"_id": document.pop("digest"), **document})

    def reset(self, digest: str) -> Reset | None:
        return _reset(self._resets.find_one({"_id": digest}))

    def take_reset(self, digest: str) -> Reset | None:
        """The link, for exactly one of any number of callers."""
        return _reset(self._resets.find_one_and_delete({"_id": digest}))

    def add_ticket(self, ticket: Ticket) -> None:
        self._tickets.insert_one({"_id": ticket.digest, "expires": ticket.expires})

    def has_ticket(self, digest: str, now: datetime) -> bool:
        return self._tickets.find_one({"_id": digest, "expires": {"$gt": now}}) is not None

    def take_ticket(self, digest: str, now: datetime) -> bool:
        """True for exactly one of any number of callers."""
        return self._tickets.delete_one({"_id": digest, "expires": {"$gt": now}}).deleted_count == 1


def _reset(document: dict | None) -> Reset | None:
    return Reset(digest=document.pop("_id"), **document) if document else None
