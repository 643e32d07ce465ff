"""Second factors, and what opens a door once, in MongoDB: links for a new password, tokens of programs that register.

Knows pymongo, as `store` does, and follows its rules: what expires has a TTL index and is compared with the clock.
"""

from dataclasses import asdict
from datetime import datetime
from typing import Any

from bson.codec_options import CodecOptions
from pymongo.database import Database
from pymongo.errors import DuplicateKeyError
from pymongo.read_preferences import ReadPreference
from pymongo.write_concern import WriteConcern

from smart_auth.models import Challenge, Passkey, Pending, Reset, SecondFactor, Ticket

PENDING, RESETS = "auth_pending", "auth_resets"


class Credentials:
    """One object a process; thread safe."""

    def __init__(self, database: Database) -> None:
        self._database: Database = database.with_options(
            codec_options=CodecOptions(tz_aware=True),
            read_preference=ReadPreference.PRIMARY,
            write_concern=WriteConcern("majority", j=True),
        )
        self._second_factors = self._database["auth_second_factors"]
        self._pending = self._database[PENDING]
        self._resets = self._database[RESETS]
        self._tickets = self._database["auth_tickets"]
        self._passkeys = self._database["auth_passkeys"]
        self._challenges = self._database["auth_challenges"]

    def prepare(self) -> None:
        """Create the indexes. Harmless to repeat, also by several processes at once."""
        for expiring in (self._pending, self._resets, self._tickets, self._challenges):
            expiring.create_index("expires", expireAfterSeconds=0, name="ttl")
        for owned in (self._resets, self._passkeys):
            owned.create_index("user", name="user")

    # Codes, and log-ins that wait for one

    def second_factor(self, name: str) -> SecondFactor | None:
        document = self._second_factors.find_one({"_id": name})
        return _second_factor(document) if document else None

    def with_second_factor(self) -> frozenset[str]:
        """The names of all users who have one."""
        return frozenset(self._second_factors.distinct("_id"))

    def set_second_factor(self, factor: SecondFactor) -> None:
        self._second_factors.replace_one({"_id": factor.user}, _document(factor, "user"), upsert=True)

    def end_second_factor(self, name: str) -> bool:
        """False when the user has none."""
        return self._second_factors.delete_one({"_id": name}).deleted_count == 1

    def use_second_factor_step(self, name: str, step: int) -> bool:
        """True for exactly one of any number of callers with a code of this time step, and for no older one."""
        newer = {"_id": name, "last": {"$lt": step}}
        return self._second_factors.update_one(newer, {"$set": {"last": step}}).modified_count == 1

    def use_recovery_code(self, name: str, code_digest: str) -> bool:
        """True for exactly one of any number of callers."""
        there = {"_id": name, "recovery": code_digest}
        return self._second_factors.update_one(there, {"$pull": {"recovery": code_digest}}).modified_count == 1

    def add_pending(self, pending: Pending) -> None:
        self._pending.insert_one(_document(pending, "digest"))

    def pending(self, digest: str) -> Pending | None:
        document = self._pending.find_one({"_id": digest})
        return Pending(digest=document.pop("_id"), **document) if document else None

    def end_pending(self, digest: str) -> None:
        self._pending.delete_one({"_id": digest})

    def end_pendings(self, name: str) -> None:
        """All log-ins of a user that wait: one begun without a second factor shall not set one up beside another."""
        self._pending.delete_many({"user": name})

    # Links and tokens that are good once

    def add_reset(self, reset: Reset) -> None:
        self._resets.insert_one(_document(reset, "digest"))

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

    # Security keys

    def add_challenge(self, challenge: Challenge) -> None:
        self._challenges.insert_one(_document(challenge, "digest"))

    def take_challenge(self, digest: str) -> Challenge | None:
        """The challenge, for exactly one of any number of callers."""
        document = self._challenges.find_one_and_delete({"_id": digest})
        return Challenge(digest=document.pop("_id"), **document) if document else None

    def add_passkey(self, key: Passkey) -> bool:
        """False when somebody has this key already."""
        try:
            self._passkeys.insert_one(_document(key, "id"))
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


def _document(value: Any, key: str) -> dict:
    document = asdict(value)
    return {"_id": document.pop(key), **document}


def _second_factor(document: dict) -> SecondFactor:
    return SecondFactor(user=document.pop("_id"), **document | {"recovery": tuple(document["recovery"])})


def _passkey(document: dict) -> Passkey:
    return Passkey(id=document.pop("_id"), **document)


def _reset(document: dict | None) -> Reset | None:
    return Reset(digest=document.pop("_id"), **document) if document else None
