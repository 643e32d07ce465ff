"""What is kept ready of studies: the metadata of each series as it is sent, and thumbnails. Knows pymongo.

All of it can be made anew from the instances, and is never asked whether somebody may see it: whoever reads it has
asked `DicomStore.check_visible` before, which also tells the state of the study that it has to be of.
"""

import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from pymongo import ReplaceOne
from pymongo.client_session import ClientSession
from pymongo.database import Database

from dicomweb.records import state_of

METADATA, THUMBNAILS = "dicom_series_metadata", "dicom_thumbnails"
DUE = "unprepared"  # of a study: when to prepare it, as something about it is not
MAX_METADATA_BYTES = 8 * 1024 * 1024  # compressed; a document holds 16 MB
_GZIP = zlib.MAX_WBITS | 16


@dataclass(frozen=True, slots=True)
class Unprepared:
    """A study, and the state it was in when it was looked at."""

    study: str
    revision: int
    changed: datetime

    @property
    def state(self) -> str:
        return state_of({"revision": self.revision, "changed": self.changed})


@dataclass(frozen=True, slots=True)
class SeriesMetadata:
    """A JSON array of data sets, compressed by gzip. base: address of the service in its BulkDataURIs."""

    base: str
    compressed: bytes = field(repr=False)

    @classmethod
    def of(cls, base: str, body: bytes) -> "SeriesMetadata":
        compressor = zlib.compressobj(6, wbits=_GZIP)
        return cls(base, compressor.compress(body) + compressor.flush())

    @property
    def body(self) -> bytes:
        return zlib.decompress(self.compressed, _GZIP)


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A picture of an instance. state: of the study, where the picture depends on other instances as well."""

    series: str
    sop_instance: str
    blob_key: str
    jpeg: bytes = field(repr=False)
    state: str | None = None


class Prepared:
    """Thread safe."""

    def __init__(self, database: Database) -> None:
        self._client = database.client
        self._studies = database["dicom_studies"]
        self._metadata = database[METADATA]
        self._thumbnails = database[THUMBNAILS]

    # Reading

    def metadata(self, state: str, study: str, series: str, base: str) -> SeriesMetadata | None:
        """None when there is none for the study as it is now, below that address."""
        found = self._metadata.find_one({"_id": f"{study}/{series}", "state": state, "base": base})
        return SeriesMetadata(base, found["gzip"]) if found else None

    def thumbnail(self, state: str, study: str, series: str, sop_instance: str) -> Thumbnail | None:
        """None when there is none that shows the instance as it is now."""
        found = self._thumbnails.find_one({"_id": sop_instance, "study": study, "series": series})
        if found is None or found["state"] not in (None, state):
            return None
        return Thumbnail(series, sop_instance, found["blob"], found["jpeg"], found["state"])

    def have(self, study: Unprepared) -> set[str]:
        """The instances that have a thumbnail for the study as it is now."""
        names = {"state": 1}
        return {
            d["_id"]
            for d in self._thumbnails.find({"study": study.study}, names)
            if d["state"] in (None, study.state)
        }

    # Preparing

    def due(self, now: datetime, limit: int = 20) -> list[Unprepared]:
        """Studies that are to be prepared, the longest waiting first."""
        names = {"revision": 1, "changed": 1}
        found = self._studies.find({DUE: {"$lte": now}}, names).sort(DUE, 1).limit(limit)
        return [Unprepared(d["_id"], d["revision"], d["changed"]) for d in found]

    def keep(
        self, study: Unprepared, metadata: dict[str, SeriesMetadata], thumbnails: Iterable[Thumbnail] = ()
    ) -> bool:
        """Keep what was made of the study, by Series Instance UID; False when it has changed since: nothing is kept.

        A study that is changed or deleted at this moment waits for this transaction, or this one is not made: so
        nothing is left of what is deleted.
        """
        uid = study.study
        series = [
            ReplaceOne(
                {"_id": f"{uid}/{one}"},
                {"_id": f"{uid}/{one}", "study": uid, "state": study.state, "base": m.base, "gzip": m.compressed},
                upsert=True,
            )
            for one, m in metadata.items()
        ]
        pictures = [
            ReplaceOne(
                {"_id": t.sop_instance},
                {
                    "_id": t.sop_instance,
                    "study": uid,
                    "series": t.series,
                    "blob": t.blob_key,
                    "state": t.state,
                    "jpeg": t.jpeg,
                },
                upsert=True,
            )
            for t in thumbnails
        ]

        def transact(session: ClientSession) -> bool:
            here = {"_id": uid, "revision": study.revision, "changed": study.changed}
            if not self._studies.update_one(here, {"$inc": {"prepared": 1}}, session=session).matched_count:
                return False
            if series:
                self._metadata.bulk_write(series, session=session)
            if pictures:
                self._thumbnails.bulk_write(pictures, session=session)
            return True

        with self._client.start_session() as session:
            return session.with_transaction(transact)

    def done(self, study: Unprepared) -> None:
        """All of it is kept, unless the study has changed since."""
        here = {"_id": study.study, "revision": study.revision, "changed": study.changed}
        self._studies.update_one(here, {"$unset": {DUE: ""}})

    def postpone(self, study: Unprepared, now: datetime, seconds: float) -> None:
        """Try again later: it could not be made now."""
        self._studies.update_one({"_id": study.study}, {"$set": {DUE: now + timedelta(seconds=seconds)}})


def forget(database: Database, session: ClientSession, study: str, sop_instances: Iterable[str]) -> None:
    """Within the transaction that changes or removes these instances of a study."""
    database[METADATA].delete_many({"study": study}, session=session)
    database[THUMBNAILS].delete_many({"_id": {"$in": list(sop_instances)}}, session=session)


def prepare(database: Database) -> None:
    """Make the collections and indexes; a transaction cannot."""
    for name in (METADATA, THUMBNAILS):
        database[name].create_index([("study", 1)], name="study")
