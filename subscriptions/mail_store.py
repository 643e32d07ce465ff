"""Mail in MongoDB: what went out or waits to be seen, and the addresses that want it."""

from dataclasses import asdict
from datetime import datetime, timedelta

from pymongo import ReturnDocument
from pymongo.database import Database
from pymongo.errors import DuplicateKeyError

from subscriptions.addresses import Asked
from subscriptions.mail import Message
from subscriptions.store import aware

KEEP = timedelta(days=30)  # questions to addresses, answered or not


class Outbox:
    """Mail that went out, for the front desk to see; without a mail server it goes no further."""

    def __init__(self, database: Database) -> None:
        self._messages = aware(database)["outbox"]

    def deliver(self, message: Message) -> None:
        """Keep a message; once, however often it comes."""
        document = asdict(message)
        try:
            self._messages.insert_one({"_id": document.pop("id"), **document})
        except DuplicateKeyError:
            pass  # the same event again, after a crash between sending and noting it

    def has(self, id: str) -> bool:
        """Whether this message is there."""
        return self._messages.find_one({"_id": id}, {"_id": 1}) is not None

    def list(self, limit: int = 200) -> list[Message]:
        """The newest messages first."""
        found = self._messages.find().sort([("at", -1), ("_id", -1)]).limit(limit)
        return [Message(id=one.pop("_id"), **one) for one in found]


class MongoAddresses:
    """The AddressStore."""

    def __init__(self, database: Database) -> None:
        self._asked = aware(database)["mail_questions"]
        self._verified = aware(database)["mail_addresses"]

    def prepare(self) -> None:
        """Make the indexes; does nothing where they are."""
        self._asked.create_index("at", expireAfterSeconds=int(KEEP.total_seconds()))
        self._asked.create_index("wish")
        self._asked.create_index([("owner", 1), ("at", 1)])
        self._asked.create_index([("address", 1), ("at", 1)])

    def is_verified(self, owner: str, address: str) -> bool:
        return self._verified.find_one({"_id": f"{owner} {address}"}) is not None

    def asked_for(self, wish: str) -> Asked | None:
        return _asked(self._asked.find_one({"wish": wish}))

    def earlier(self, asked: Asked, since: datetime, name: str) -> int:
        """How many questions of the same `name` (owner, address) came before this one."""
        before = [{"at": {"$gte": since, "$lt": asked.at}}, {"at": asked.at, "_id": {"$lt": asked.digest}}]
        return self._asked.count_documents({name: getattr(asked, name), "$or": before})

    def remove(self, asked: Asked) -> None:
        self._asked.delete_one({"_id": asked.digest})

    def add(self, asked: Asked) -> None:
        document = asdict(asked)
        self._asked.insert_one({"_id": document.pop("digest"), **document})

    def find(self, digest: str, now: datetime) -> Asked | None:
        """A question that can still be answered."""
        return _asked(self._asked.find_one({"_id": digest, "used": False, "until": {"$gt": now}}))

    def confirm(self, digest: str, now: datetime) -> Asked | None:
        """Answer a question, once."""
        asked = _asked(
            self._asked.find_one_and_update(
                {"_id": digest, "used": False, "until": {"$gt": now}},
                {"$set": {"used": True}},
                return_document=ReturnDocument.AFTER,
            )
        )
        if asked is not None:
            key = f"{asked.owner} {asked.address}"
            self._verified.update_one({"_id": key}, {"$setOnInsert": {"at": now}}, upsert=True)
        return asked


def _asked(document: dict | None) -> Asked | None:
    return Asked(digest=document.pop("_id"), **document) if document else None
