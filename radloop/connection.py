"""From settings to a database: the one that is named, or that of the server running on this data folder."""

import pymongo
from pymongo.database import Database

from radloop import mongod
from radloop.settings import Settings


class NotRunning(RuntimeError):
    """No MongoDB is named, and no server runs on the data folder."""


def store_uri(settings: Settings) -> str:
    """The MongoDB to use. Raises NotRunning."""
    if settings.mongodb_uri:
        return settings.mongodb_uri
    port = mongod.last_port(settings.data_path / "mongod")
    if port is None or not mongod.answers(port):
        raise NotRunning(
            f"no server runs on the data folder {settings.data_path}; start one with `radloop serve`, "
            "or name a MongoDB in RADLOOP_MONGODB_URI"
        )
    return mongod.uri(port)


def connect(settings: Settings, uri: str | None = None) -> Database:
    """The server's database; writes are acknowledged by a journaled majority whatever the address says."""
    client: pymongo.MongoClient = pymongo.MongoClient(
        uri or store_uri(settings),
        tz_aware=True,
        w="majority",
        journal=True,
        readConcernLevel="majority",
        serverSelectionTimeoutMS=5_000,
        appname="radloop",
    )
    return client[settings.mongodb_database]
