"""Security keys, and what opens a door once, in MongoDB: links for a new password, tokens of programs that register.

Knows pymongo, as `store` does, and follows its rules: what expires has a TTL index and is compared with the clock.
"""

from dataclasses import asdict
from datetime import datetime

from bson.codec_options import CodecOptions
from pymongo.database import Database
from pymongo.errors import DuplicateKeyError
from pymongo.read_preferences import ReadPreference
from pymongo.write_concern import WriteConcern

from smart_auth.models import Challenge, Passkey, Reset, Ticket

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
        self._passkeys = self._database["auth_passkeys"]
        self._challenges = self._database["auth_challenges"]

    def prepare(self) -> None:
        """Create the indexes. Harmless to repeat, also by several processes at once."""
        for expiring in (self._resets, self._tickets, self._challenges):
            expiring.create_index("expires", expireAfterSeconds=0, name="ttl")
        for owned in (self._resets, self._passkeys):
            owned.create_index("user", name="user")

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

    def add_challenge(self, challenge: Challenge) -> None:
        document = asdict(challenge)
        self._challenges.insert_one({"_id": document.pop("digest"), **document})

    def take_challenge(self, digest: str) -> Challenge | None:
        """The challenge, for exactly one of any number of callers."""
        document = self._challenges.find_one_and_delete({"_id": digest})
        return Challenge(digest=document.pop("_id"), **document) if document else None

    def add_passkey(self, key: Passkey) -> bool:
        """False when somebody has this key already."""
        document = asdict(key)
        try:
            self._passkeys.insert_one({"_id": document.pop("id"), **document})
        except DuplicateKeyError:
            return False
        return True

    def passkeys_of(self, user: str) -> list[Passkey]:
        """The oldest first."""
        return [_passkey(one) for one in self._passkeys.find({"user": user}).sort([("added", 1), ("_id", 1)])]

    def passkey(self, user: str, id: str) -> Passkey | None:
        document = self._passkeys.find_one({"_id": id, "user": user})
        return _passkey(document) if document else None

    def use_passkey(self, key: Passkey, sign_count: int, now: datetime) -> bool:
        """Note its use; False when it was used or removed since it was read."""
        same = {"_id": key.id, "user": key.user, "sign_count": key.sign_count}
        return self._passkeys.update_one(same, {"$set": {"sign_count": sign_count, "used": now}}).matched_count == 1

    def remove_passkey(self, user: str, id: str) -> bool:
        """False when the user has no such key."""
        return self._passkeys.delete_one({"_id": id, "user": user}).deleted_count == 1

    def remove_passkeys(self, user: str) -> int:
        """How many there were."""
        return self._passkeys.delete_many({"user": user}).deleted_count

    def with_passkeys(self) -> frozenset[str]:
        """The names of all users who have one."""
        return frozenset(self._passkeys.distinct("user"))


def _passkey(document: dict) -> Passkey:
    return Passkey(id=document.pop("_id"), **document)


def _reset(document: dict | None) -> Reset | None:
    return Reset(digest=document.pop("_id"), **document) if document else None
