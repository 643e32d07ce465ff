"""Users, clients and all that a log-in or a token leaves behind, in MongoDB. Knows pymongo, as `credentials` does and
no other module here.

Whatever expires has a TTL index, so that it goes away, and is compared with the clock by its reader, so that it
counts for nothing before MongoDB gets round to it. Writes are majority and journaled, reads are from the primary:
a deactivation that was acknowledged holds.
"""

import logging
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

from bson.codec_options import CodecOptions
from pymongo.client_session import ClientSession
from pymongo.database import Database
from pymongo.errors import DuplicateKeyError
from pymongo.read_preferences import ReadPreference
from pymongo.write_concern import WriteConcern

from smart_auth.credentials import PENDING, RESETS
from smart_auth.models import (
    AuthorizationCode,
    Client,
    Context,
    EhrVisit,
    Grant,
    Journey,
    Launch,
    RefreshToken,
    Session,
    User,
)

# At DEBUG pymongo writes each command and reply, so password hashes and signing keys, to the log.
logging.getLogger("pymongo").setLevel(logging.INFO)

T = TypeVar("T")
_EXPIRING = tuple(
    f"auth_{name}" for name in "attempts codes grants journeys jtis launches refresh sessions visits".split()
)


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private JWK, and when it begins to sign."""

    jwk: dict
    signs_from: datetime


class AlreadyThere(ValueError):
    """The name is taken."""


class AuthStore:
    """One object a process; thread safe."""

    def __init__(self, database: Database) -> None:
        self._database: Database = database.with_options(
            codec_options=CodecOptions(tz_aware=True),
            read_preference=ReadPreference.PRIMARY,
            write_concern=WriteConcern("majority", j=True),
        )
        self._users = self._database["auth_users"]
        self._clients = self._database["auth_clients"]
        self._codes = self._database["auth_codes"]
        self._grants = self._database["auth_grants"]
        self._launches = self._database["auth_launches"]
        self._refresh = self._database["auth_refresh"]
        self._jtis = self._database["auth_jtis"]
        self._keys = self._database["auth_keys"]
        self._sessions = self._database["auth_sessions"]
        self._attempts = self._database["auth_attempts"]
        self._pending = self._database[PENDING]
        self._links = self._database["auth_links"]
        self._journeys = self._database["auth_journeys"]
        self._visits = self._database["auth_visits"]
        self._resets = self._database[RESETS]
        self._state = self._database["auth_state"]
        self.changes_here = 0  # changes made through this object, which its process need not wait to notice

    def prepare(self) -> None:
        """Create the indexes. Harmless to repeat, also by several processes at once."""
        for name in _EXPIRING:
            self._database[name].create_index("expires", expireAfterSeconds=0, name="ttl")
        self._sessions.create_index("user", name="user")
        self._grants.create_index("subject", name="subject")
        self._grants.create_index("client_id", name="client")
        self._clients.create_index("origins", name="origins")

    # Changes: a number that grows with each change that can end a token's validity, so that a process
    # may keep what it verified and read one small document to learn that all of it still holds.

    def generation(self) -> int:
        state = self._state.find_one({"_id": "state"})
        return state["generation"] if state else 0

    def _change(self, operation: Callable[[ClientSession], T]) -> T:
        """Run the operation and count the change, both or neither."""

        def both(session: ClientSession) -> T:
            self._state.update_one({"_id": "state"}, {"$inc": {"generation": 1}}, upsert=True, session=session)
            return operation(session)

        with self._database.client.start_session() as session:
            try:
                return session.with_transaction(both)
            finally:
                self.changes_here += 1

    # Users

    def add_user(self, user: User) -> None:
        """Raises AlreadyThere."""
        document = _document(user, "name") | {"roles": sorted(user.roles)}
        try:
            self._users.insert_one(document)
        except DuplicateKeyError:
            raise AlreadyThere(f"there is a user {user.name!r} already") from None

    def user(self, name: str) -> User | None:
        document = self._users.find_one({"_id": name})
        return _user(document) if document else None

    def users_of(self, names: Collection[str]) -> list[User]:
        """Those of these names that there are."""
        return [_user(document) for document in self._users.find({"_id": {"$in": list(names)}})] if names else []

    def users(self) -> list[User]:
        return [_user(document) for document in self._users.find().sort("_id", 1)]

    def set_user(self, name: str, **fields: Any) -> bool:
        """Change fields of a user and end their sessions, tokens, and log-ins half done; False when unknown."""

        def operation(session: ClientSession) -> bool:
            for ending in (self._sessions, self._pending, self._codes, self._launches, self._resets):
                ending.delete_many({"user": name}, session=session)
            self._grants.update_many({"subject": f"user:{name}"}, {"$set": {"revoked": True}}, session=session)
            return self._users.update_one({"_id": name}, {"$set": fields}, session=session).matched_count == 1

        return self._change(operation)

    # Clients

    def add_client(self, client: Client) -> None:
        """Raises AlreadyThere."""
        try:
            self._clients.insert_one(_document(client, "client_id"))
        except DuplicateKeyError:
            raise AlreadyThere(f"there is a client {client.client_id!r} already") from None

    def client(self, client_id: str) -> Client | None:
        document = self._clients.find_one({"_id": client_id})
        return _client(document) if document else None

    def clients_of(self, ids: Collection[str]) -> list[Client]:
        """Those of these ids that there are."""
        return [_client(document) for document in self._clients.find({"_id": {"$in": list(ids)}})] if ids else []

    def clients(self) -> list[Client]:
        return [_client(document) for document in self._clients.find().sort("_id", 1)]

    def set_client(self, client_id: str, **fields: Any) -> bool:
        """Change fields of a client and end its tokens; False when unknown."""

        def operation(session: ClientSession) -> bool:
            self._grants.update_many({"client_id": client_id}, {"$set": {"revoked": True}}, session=session)
            found = self._clients.update_one({"_id": client_id}, {"$set": fields}, session=session)
            return found.matched_count == 1

        return self._change(operation)

    def remove_client(self, client_id: str) -> bool:
        """End a client's tokens and forget it; False when unknown."""

        def operation(session: ClientSession) -> bool:
            self._grants.update_many({"client_id": client_id}, {"$set": {"revoked": True}}, session=session)
            return self._clients.delete_one({"_id": client_id}, session=session).deleted_count == 1

        return self._change(operation)

    def count_self_registered(self) -> int:
        return self._clients.count_documents({"self_registered": True})

    def origins(self) -> frozenset[str]:
        """Origins at which active clients run in a browser (for CORS)."""
        return frozenset(self._clients.distinct("origins", {"active": True}))

    def has_origin(self, origin: str) -> bool:
        """Whether it is one of `origins`, by an index."""
        return self._clients.find_one({"origins": origin, "active": True}, {"_id": 1}) is not None

    # Authorization codes and grants

    def add_code(self, code: AuthorizationCode, keep_until: datetime) -> None:
        """keep_until: how long a second use is still recognized; the code itself is good until `code.expires`."""
        document = _document(code, "digest")
        self._codes.insert_one(document | {"good_until": document["expires"], "expires": keep_until})

    def code(self, digest: str) -> AuthorizationCode | None:
        document = self._codes.find_one({"_id": digest})
        if document is None:
            return None
        document["expires"] = document.pop("good_until")
        return AuthorizationCode(digest=document.pop("_id"), **_with_context(document))

    def use_code(self, digest: str) -> bool:
        """True for exactly one of any number of callers."""
        return self._codes.update_one({"_id": digest, "used": False}, {"$set": {"used": True}}).modified_count == 1

    def add_grant(self, grant: Grant) -> bool:
        """False when this grant was revoked before it was made (a code that was used twice at once)."""
        try:
            self._grants.insert_one(_document(grant, "id"))
        except DuplicateKeyError:
            return False
        return True

    def grant(self, id: str) -> Grant | None:
        document = self._grants.find_one({"_id": id, "subject": {"$exists": True}})
        return _grant(document) if document else None

    def grants_of(self, subject: str, now: datetime) -> list[Grant]:
        """The grants of a user that stand, the newest first."""
        found = self._grants.find({"subject": subject, "revoked": False, "expires": {"$gt": now}})
        return [_grant(document) for document in found.sort("created", -1)]

    def extend_grant(self, id: str, expires: datetime) -> bool:
        """Let a grant live on until then; False when it was revoked."""
        standing = {"_id": id, "revoked": False}
        return self._grants.update_one(standing, {"$max": {"expires": expires}}).matched_count == 1

    def revoke_grant(self, id: str, keep_until: datetime) -> None:
        """End all tokens of the grant, also of one that is just being made. keep_until: when none can be left."""
        self._change(
            lambda session: self._grants.update_one(
                {"_id": id},
                {"$set": {"revoked": True}, "$max": {"expires": keep_until}},
                upsert=True,
                session=session,
            )
        )

    # Launches

    def add_launch(self, launch: Launch) -> None:
        self._launches.insert_one(_document(launch, "digest"))

    def launch(self, digest: str) -> Launch | None:
        document = self._launches.find_one({"_id": digest})
        return Launch(digest=document.pop("_id"), **_with_context(document)) if document else None

    def use_launch(self, digest: str) -> bool:
        """True for exactly one of any number of callers."""
        unused = {"_id": digest, "used": False}
        return self._launches.update_one(unused, {"$set": {"used": True}}).modified_count == 1

    # Refresh tokens

    def add_refresh_token(self, token: RefreshToken) -> None:
        self._refresh.insert_one(_document(token, "digest"))

    def refresh_token(self, digest: str) -> RefreshToken | None:
        document = self._refresh.find_one({"_id": digest})
        return RefreshToken(digest=document.pop("_id"), **document) if document else None

    def use_refresh_token(self, digest: str, now: datetime) -> bool:
        """True for exactly one of any number of callers."""
        return self._refresh.update_one({"_id": digest, "used": None}, {"$set": {"used": now}}).modified_count == 1

    # Assertions

    def use_jti(self, issuer: str, jti_digest: str, expires: datetime) -> bool:
        """True the first time; the unique _id decides, so two requests at once cannot both win."""
        try:
            self._jtis.insert_one({"_id": {"issuer": issuer, "jti": jti_digest}, "expires": expires})
        except DuplicateKeyError:
            return False
        return True

    # Signing keys

    def signing_keys(self) -> list[SigningKey]:
        """The newest last; empty before the first start."""
        document = self._keys.find_one({"_id": "signing"})
        if document is None:
            return []
        begins = document.get("signs_from", {})
        return [SigningKey(jwk, begins.get(jwk["kid"], document["created"])) for jwk in document["keys"]]

    def first_signing_key(self, jwk: dict, created: datetime) -> None:
        """Store the first key unless another process was quicker; read `signing_keys` afterwards."""
        try:
            self._keys.insert_one({"_id": "signing", "keys": [jwk], "created": created})
        except DuplicateKeyError:
            pass  # theirs is as good, and theirs is the one that counts

    def set_signing_keys(self, keys: Sequence[SigningKey], *, instead_of: Sequence[SigningKey]) -> bool:
        """False when others are stored by now than `instead_of`."""
        expected = [key.jwk["kid"] for key in instead_of]
        found = self._keys.update_one(
            {"_id": "signing", "keys.kid": expected[-1], "keys": {"$size": len(expected)}},
            {
                "$set": {
                    "keys": [key.jwk for key in keys],
                    "signs_from": {key.jwk["kid"]: key.signs_from for key in keys},
                }
            },
        )
        return found.matched_count == 1

    # Sessions

    def add_session(self, session: Session) -> None:
        self._sessions.insert_one(_document(session, "digest"))

    def session(self, digest: str) -> Session | None:
        document = self._sessions.find_one({"_id": digest})
        return Session(digest=document.pop("_id"), **document) if document else None

    def touch_session(self, digest: str, last_seen: datetime, expires: datetime) -> None:
        self._sessions.update_one({"_id": digest}, {"$max": {"last_seen": last_seen, "expires": expires}})

    def end_session(self, digest: str) -> None:
        self._sessions.delete_one({"_id": digest})

    # Users of other servers

    def linked(self, server: str, subject_digest: str) -> str | None:
        """The name here of who has that `sub` there."""
        document = self._links.find_one({"_id": {"server": server, "subject": subject_digest}})
        return document["user"] if document else None

    def link(self, server: str, subject_digest: str, name: str) -> None:
        """For good: who has that `sub` there is that user here."""
        self._links.update_one(
            {"_id": {"server": server, "subject": subject_digest}}, {"$setOnInsert": {"user": name}}, upsert=True
        )

    def users_by_email(self, email: str) -> list[User]:
        """Two active users at most with that address, in whatever case."""
        wanted = {"email": {"$regex": f"^{re.escape(email)}$", "$options": "i"}, "active": True}
        return [_user(document) for document in self._users.find(wanted).limit(2)]

    # Journeys to other servers

    def add_journey(self, journey: Journey) -> None:
        self._journeys.insert_one(_document(journey, "digest"))

    def take_journey(self, digest: str) -> Journey | None:
        """The journey, for exactly one of any number of callers."""
        document = self._journeys.find_one_and_delete({"_id": digest})
        return Journey(digest=document.pop("_id"), **document) if document else None

    def add_visit(self, visit: EhrVisit) -> None:
        self._visits.insert_one(_document(visit, "grant"))

    def visit(self, grant: str) -> EhrVisit | None:
        document = self._visits.find_one({"_id": grant})
        if document is None:
            return None
        return EhrVisit(grant=document.pop("_id"), **document | {"references": tuple(document["references"])})

    # Log-in attempts

    def begin_attempt(self, key: str, now: datetime, free: int, longest: timedelta, memory: timedelta) -> bool:
        """Count one attempt, before its outcome is known; False while the key is paused.

        The `free`-th attempt pauses the key for a second, each further one twice as long as the one before, up to
        `longest`; `memory` after the last one all is forgotten. Counting first, in one atomic step, leaves nothing
        to gain from many guesses at once.
        """
        failures = {"$add": [{"$ifNull": ["$failures", 0]}, 1]}
        pause_ms = {
            "$cond": [
                {"$lt": ["$failures", free]},
                0,
                {
                    "$min": [
                        {"$multiply": [1000, {"$pow": [2, {"$min": [{"$subtract": ["$failures", free]}, 30]}]}]},
                        longest.total_seconds() * 1000,
                    ]
                },
            ]
        }
        update: list[dict] = [
            {"$set": {"failures": failures, "expires": now + memory}},
            {"$set": {"until": {"$add": [now, {"$toLong": pause_ms}]}}},
        ]
        unpaused = {"_id": key, "$or": [{"until": {"$exists": False}}, {"until": {"$lte": now}}]}
        try:
            self._attempts.update_one(unpaused, update, upsert=True)
        except DuplicateKeyError:
            return False  # there, and paused
        return True

    def take_attempt_back(self, key: str) -> None:
        """The last attempt was none to be counted."""
        self._attempts.update_one({"_id": key, "failures": {"$gt": 0}}, {"$inc": {"failures": -1}})

    def forget_attempts(self, key: str) -> None:
        self._attempts.delete_one({"_id": key})


def _document(value: Any, key: str) -> dict:
    document = asdict(value)
    return {"_id": document.pop(key), **document}


def _grant(document: dict) -> Grant:
    return Grant(id=document.pop("_id"), **_with_context(document))


def _with_context(document: dict) -> dict:
    context = document["context"]
    return document | {"context": Context(**context | {"fhir_context": tuple(context["fhir_context"])})}


def _user(document: dict) -> User:
    return User(name=document.pop("_id"), **document | {"roles": frozenset(document["roles"])})


def _client(document: dict) -> Client:
    for name in ("redirect_uris", "launch_uris", "origins"):
        document[name] = tuple(document[name])
    return Client(client_id=document.pop("_id"), **document)
