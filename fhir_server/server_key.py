"""Secret keys of a server, in its store: the same for all of its processes, and after a restart."""

from cryptography.fernet import Fernet
from pymongo.database import Database
from pymongo.errors import DuplicateKeyError


def server_key(database: Database, name: str) -> bytes:
    """The key of that name, for `Fernet`; made when it is first asked for."""
    keys = database["server_keys"]
    try:
        keys.update_one({"_id": name}, {"$setOnInsert": {"key": Fernet.generate_key()}}, upsert=True)
    except DuplicateKeyError:
        pass  # another process made it in this moment
    document = keys.find_one({"_id": name})
    if document is None:
        raise RuntimeError(f"the key {name!r} of this server is gone")
    return document["key"]
