"""Studies, series and instances in MongoDB. The only module of dicomweb that knows pymongo.

Everything is keyed by UIDs alone: two patient ids below one series are two values, not two series. An instance and
the new revision of its study are one transaction, so the projection to FHIR can always tell what it has not seen.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import orjson
import pymongo
from pymongo.client_session import ClientSession
from pymongo.database import Database
from pymongo.errors import BulkWriteError, DuplicateKeyError, OperationFailure, PyMongoError

from dicomweb import prepared
from dicomweb.attributes import (
    INSTANCE_UID,
    MODALITIES,
    MODALITY,
    SERIES_NUMBER,
    SERIES_UID,
    STUDY_DATE,
    STUDY_UID,
    Level,
    of_level,
)
from dicomweb.dicom_json import Attributes, integer, text
from dicomweb.instance import Received
from dicomweb.matching_keys import keys_of
from dicomweb.records import (
    Condition,
    IndexedFile,
    InstanceFile,
    Link,
    SeriesContent,
    StoredInstance,
    StudyContent,
    StudyState,
    attributes_of,
    batches,
    instance_document,
    merged,
    state_of,
    stored_instance,
)
from dicomweb.uids import imaging_study_id
from dicomweb.windows import inflated
from fhir_server.access import Access
from fhir_server.errors import FhirError, Gone, NotFound, PreconditionFailed, Unavailable

SEARCH_TIMEOUT_MS = 20_000
ATTEMPTS = 5  # at a transaction that meets the same SOP Instance UID in another study's
_DUPLICATE = 11000  # MongoDB's code of a key that is there already
EVERYTHING = Access.system("dicomweb")
DATE_FIELD = f"f.{STUDY_DATE}"
# Bytes of an instance: of what is served, and of what was received where a person has corrected it.
OBJECTS_SIZE = {"$add": ["$size", {"$ifNull": ["$original_size", 0]}]}
_STATED = {"study": "dicom_studies", "series": "dicom_series", "instance": "dicom_instances"}
# Where the UIDs of the hierarchy are, by level; other keys are below `f`.
_UID_FIELDS: dict[Level, dict[str, str]] = {
    "study": {STUDY_UID: "_id"},
    "series": {STUDY_UID: "study", SERIES_UID: "series"},
    "instance": {STUDY_UID: "study", SERIES_UID: "series", INSTANCE_UID: "_id"},
}
_ORDER: dict[Level, list[tuple[str, int]]] = {
    "study": [(DATE_FIELD, -1), ("_id", 1)],
    "series": [("study", 1), ("n", 1), ("_id", 1)],
    "instance": [("study", 1), ("series", 1), ("n", 1), ("_id", 1)],
}


class DicomStore:
    """The index of the stored instances. Thread safe.

    quiet_s: a study is complete when nothing was added for so long.
    """

    def __init__(self, database: Database, quiet_s: float = 2.0, clock: Callable[[], datetime] | None = None) -> None:
        self._database = database
        self._studies = database["dicom_studies"]
        self._series = database["dicom_series"]
        self._instances = database["dicom_instances"]
        self._removed = database["dicom_removed"]
        self._quiet = timedelta(seconds=quiet_s)
        self._now = clock or (lambda: datetime.now(UTC))
        self._prepared = threading.Lock()
        self._ready = False

    @property
    def database(self) -> Database:
        """For leases."""
        return self._database

    def now(self) -> datetime:
        """The time that completeness goes by."""
        return self._now()

    def prepare(self) -> None:
        """Make the collections and indexes; a transaction cannot."""
        with self._prepared:
            if self._ready:
                return
            index = pymongo.IndexModel
            self._studies.create_indexes(
                [
                    index([("due", 1)], name="due", partialFilterExpression={"due": {"$exists": True}}),
                    index([(DATE_FIELD, -1), ("_id", 1)], name="date"),
                    index([("scope", 1), (DATE_FIELD, -1), ("_id", 1)], name="scope"),
                    index([("resource", 1)], name="resource"),
                    index([("waits", 1)], name="waits", partialFilterExpression={"waits": True}),
                    index(
                        [(prepared.DUE, 1)],
                        name="unprepared",
                        partialFilterExpression={prepared.DUE: {"$exists": True}},
                    ),
                    index([("looks_for", 1)], name="looks_for"),
                    index([("f.00100020", 1)], name="patient"),
                    index([("f.00100010", 1)], name="name"),
                    index([("f.00080050", 1)], name="accession"),
                    index([("f.00080061", 1), (DATE_FIELD, -1)], name="modality"),
                ]
            )
            self._series.create_indexes(
                [
                    index([("study", 1), ("n", 1), ("_id", 1)], name="study"),
                    index([("series", 1)], name="series"),
                    index([("f.00080060", 1), (DATE_FIELD, -1)], name="modality"),
                    index([("f.00100020", 1)], name="patient"),
                ]
            )
            self._instances.create_indexes(
                [
                    index([("study", 1), ("series", 1), ("n", 1), ("_id", 1)], name="study"),
                    index([("series", 1)], name="series"),
                    index([("f.00100020", 1)], name="patient"),
                ]
            )
            prepared.prepare(self._database)
            pending = {"pending": {"$exists": True}}
            self._database["dicom_corrections"].create_indexes([index([("from", 1)], name="from")])
            self._removed.create_indexes([index([("pending", 1)], name="pending", partialFilterExpression=pending)])
            self._ready = True

    # Storing

    def known(self, sop_instances: Iterable[str]) -> dict[str, str]:
        """SOP Instance UID -> blob key, of those that are stored."""
        found = self._instances.find({"_id": {"$in": list(sop_instances)}}, {"blob": 1})
        return {document["_id"]: document["blob"] for document in found}

    def originals(self, sop_instances: Iterable[str]) -> dict[str, str]:
        """SOP Instance UID -> blob key of the object as received, of those that a person has corrected."""
        asked = list(sop_instances)
        if not asked:
            return {}
        wanted = {"_id": {"$in": asked}, "original": {"$exists": True}}
        return {d["_id"]: d["original"] for d in self._instances.find(wanted, {"original": 1})}

    def add(self, received: list[Received], link: Link | None = None) -> dict[str, str]:
        """Index instances whose files are kept already. Durable when it returns. link: of a study that has none yet.

        Returns SOP Instance UID -> blob key as stored now: another key than the one received means that another
        object came first, and that this one is not stored. Of one UID in the list the first counts.
        """
        self.prepare()
        result: dict[str, str] = {}
        for batch in batches(received):
            result |= self._add(batch, link)
        return result

    def _add(self, batch: list[Received], link: Link | None) -> dict[str, str]:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                with self._database.client.start_session() as session:
                    # Who stores has looked a moment ago, so that at first nobody does.
                    return session.with_transaction(partial(self._transact, batch, link, look=attempt > 1))
            except (DuplicateKeyError, BulkWriteError) as error:  # the same UID, at the same time, in another request
                if not _are_duplicates(error):
                    raise
                if attempt == ATTEMPTS:
                    raise Unavailable("the same instances are being stored by several requests; try again") from None
        raise AssertionError("unreachable")

    def _transact(
        self, batch: list[Received], link: Link | None, session: ClientSession, *, look: bool
    ) -> dict[str, str]:
        """look: whether some are stored already. Raises BulkWriteError when some are, and it was not looked."""
        study = batch[0].instance.study
        uids = [received.instance.sop_instance for received in batch]
        stored_keys: dict[str, str] = {}
        if look:
            found = self._instances.find({"_id": {"$in": uids}}, {"blob": 1}, session=session)
            stored_keys = {document["_id"]: document["blob"] for document in found}
        fresh: list[Received] = []
        for received in batch:
            if received.instance.sop_instance not in stored_keys:
                stored_keys[received.instance.sop_instance] = received.blob_key
                fresh.append(received)
        if not fresh:
            return stored_keys
        # The study first: whoever else adds to it waits here, and not after work that is then lost.
        now = self._now()
        grown = {"$inc": {"revision": 1}, "$set": {"changed": now}}
        after = pymongo.ReturnDocument.AFTER
        grew = self._studies.find_one_and_update(
            {"_id": study}, grown, upsert=True, return_document=after, session=session
        )
        current = grew or {}
        self._instances.insert_many([instance_document(received) for received in fresh], session=session)
        new_series = self._add_series(study, fresh, session)
        document = self._study_document(current, fresh, new_series, now)
        if link is not None:
            document.setdefault("link", link.document())
        # What is sent again, or later, to where a person has corrected something is for a person to look at.
        addresses = [study, *(f"{study}/{received.instance.series}" for received in fresh)]
        if self._database["dicom_corrections"].find_one({"from": {"$in": addresses}}, session=session):
            document.setdefault("link", Link(None).document())
            document |= {"late": True, "waits": True}
        self._studies.replace_one({"_id": study}, document, session=session)
        return stored_keys

    def _add_series(self, study: str, fresh: list[Received], session: ClientSession) -> int:
        """Returns how many series are new."""
        by_series: dict[str, list[Received]] = {}
        for received in fresh:
            by_series.setdefault(received.instance.series, []).append(received)
        new = 0
        for series, members in by_series.items():
            key = f"{study}/{series}"
            before = self._series.find_one({"_id": key}, session=session) or {}
            new += not before
            attributes = merged(before.get("q"), members, "series")
            document = {
                "_id": key,
                "study": study,
                "series": series,
                "n": integer(attributes, SERIES_NUMBER),
                "count": before.get("count", 0) + len(members),
                "q": orjson.dumps(attributes),
                "f": keys_of(attributes, of_level("series")),
            }
            self._series.replace_one({"_id": key}, document, upsert=True, session=session)
        return new

    def _study_document(self, current: dict[str, Any], fresh: list[Received], new_series: int, now: datetime) -> dict:
        attributes = merged(current.get("q"), fresh, "study")
        modalities = {text(r.instance.attributes, MODALITY) for r in fresh} | set(current.get("modalities", ()))
        classes = {r.instance.sop_class for r in fresh} | set(current.get("classes", ()))
        names = sorted(filter(None, modalities))
        keys = keys_of(attributes, of_level("study")) | ({"00080061": names} if names else {})
        return current | {
            "resource": imaging_study_id(current["_id"]),
            "scope": current.get("scope", []),
            "modalities": names,
            "classes": sorted(classes),
            "series": current.get("series", 0) + new_series,
            "count": current.get("count", 0) + len(fresh),
            "size": current.get("size", 0) + sum(received.spooled.size for received in fresh),
            "q": orjson.dumps(attributes),
            "f": keys,
            "projected": current.get("projected", 0),
            # The first look shows that images are coming, the next one waits until they have come.
            "due": now if not current.get("projected") else now + self._quiet,
            prepared.DUE: now + self._quiet,
        }

    def waiting(self, limit: int) -> list[str]:
        """Studies that wait for a person to say whose they are, the newest first."""
        found = self._studies.find({"waits": True}, {"_id": 1}).sort("changed", -1).limit(limit)
        return [document["_id"] for document in found]

    def waits(self, study: str) -> bool:
        return self._studies.find_one({"_id": study, "waits": True}, {"_id": 1}) is not None

    def count_waiting(self) -> int:
        return self._studies.count_documents({"waits": True})

    def state(self, study: str) -> str:
        """For a correction under the condition that the study is as it was seen. Raises NotFound."""
        return self.check_visible(EVERYTHING, study)

    # Searching and reading

    def check_visible(self, access: Access, study: str) -> str:
        """What the study is just now: a text that is another one after each change of its content.

        Raises NotFound unless the study is here, and the caller's to see; Gone, to the practice, for a deleted one.
        """
        names = {"revision": 1, "changed": 1}
        here: dict[str, Any] = {"_id": study}
        seen = _visible(access)
        found = self._studies.find_one(here | {"$and": seen} if seen else here, names)
        if found is None:
            # Who has no sight of all studies does not learn that this one ever was here.
            raise self._missing("study", study) if access.is_practice else NotFound("this study is not known here")
        return state_of(found)

    def patients(self, studies: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """Whose these studies are, as `Patient/1`; of nobody where none is known yet. Raises Unavailable."""
        wanted = list(studies)
        try:
            found = {one["_id"]: one["scope"] for one in self._studies.find({"_id": {"$in": wanted}}, {"scope": 1})}
        except PyMongoError:
            raise Unavailable("whose the study is cannot be found out just now; try again") from None
        return {
            study: tuple(key[1:] for key in found.get(study, ()) if key.startswith("@Patient/")) for study in wanted
        }

    def search(
        self,
        level: Level,
        access: Access,
        conditions: Iterable[Condition],
        limit: int,
        offset: int,
        *,
        with_metadata: bool = False,
    ) -> list[Attributes]:
        """What is known of the matches on a level, in a stable order. with_metadata: whole data sets of instances."""
        query: dict[str, Any] = {"$and": [_mongo(level, c) for c in conditions]}
        pipeline: list[dict] = [{"$match": query if query["$and"] else {}}, {"$sort": dict(_ORDER[level])}]
        if level == "study":
            pipeline[:0] = [{"$match": seen} for seen in _visible(access)]
        elif access.sights:
            # The scope is kept in one place, the study; callers of the practice, who see all, skip this.
            joined = {"from": "dicom_studies", "localField": "study", "foreignField": "_id", "as": "of"}
            pipeline += [
                {"$lookup": joined | {"pipeline": [{"$project": {"scope": 1}}]}},
                *({"$match": seen} for seen in _visible(access, "of.scope")),
            ]
        names = ("q", "count", "series", "modalities", "classes", "study", "sop_class", *(["meta"] * with_metadata))
        pipeline += [{"$skip": offset}, {"$limit": limit}, {"$project": dict.fromkeys(names, 1)}]
        collection = self._database[_STATED[level]]
        return [attributes_of(level, d) for d in collection.aggregate(pipeline, maxTimeMS=SEARCH_TIMEOUT_MS)]

    def instance(self, study: str, series: str, sop_instance: str) -> StoredInstance:
        """Raises NotFound. The caller's right to the study is checked by `check_visible`."""
        document = self._instances.find_one({"_id": sop_instance, "study": study, "series": series})
        if document is None:
            raise self._missing("instance", study, series, sop_instance)
        return stored_instance(document)

    def stored_instances(
        self, study: str, series: str | None = None, sop_instance: str | None = None
    ) -> Iterator[StoredInstance]:
        """The instances at that address, in order. Raises NotFound, Gone at once when there is none."""
        found = self._instances.find(_at(study, series, sop_instance)).sort(_ORDER["instance"])
        head = next(found, None)
        if head is None:
            raise self._missing("series or instance", study, series, sop_instance)

        def rest() -> Iterator[StoredInstance]:
            yield stored_instance(head)
            yield from map(stored_instance, found)

        return rest()

    def has_object(self, study: str, blob_key: str) -> bool:
        """Whether an instance of the study has this object."""
        return self._instances.find_one({"study": study, "blob": blob_key}, {"_id": 1}) is not None

    def files(self, study: str, series: str | None = None, sop_instance: str | None = None) -> list[InstanceFile]:
        """The instances at that address, in order. Raises NotFound when there is none."""
        names = {"series": 1, "sop_class": 1, "ts": 1, "blob": 1}
        found = self._instances.find(_at(study, series, sop_instance), names).sort(_ORDER["instance"])
        files = [InstanceFile(d["series"], d["_id"], d["sop_class"], d["ts"], d["blob"]) for d in found]
        if not files:
            raise self._missing("series or instance", study, series, sop_instance)
        return files

    def metadata(self, study: str, series: str | None = None, sop_instance: str | None = None) -> Iterator[bytes]:
        """The JSON object of each instance at that address, in order. Raises NotFound at once when there is none."""
        found = self._instances.find(_at(study, series, sop_instance), {"meta": 1}).sort(_ORDER["instance"])
        head = next(found, None)
        if head is None:
            raise self._missing("series or instance", study, series, sop_instance)

        def rest() -> Iterator[bytes]:
            yield inflated(head["meta"])
            for document in found:
                yield inflated(document["meta"])

        return rest()

    def _missing(self, what: str, *uids: str | None) -> FhirError:
        """Why there is nothing at that address: it was deleted here, or it is not known."""
        address = [uid for uid in uids if uid is not None]
        above = ["/".join(address[: count + 1]) for count in range(len(address))]
        if self._removed.find_one({"_id": {"$in": above}}, {"_id": 1}) is not None:
            return Gone(f"this {what} was deleted")
        return NotFound(f"this {what} is not known here")

    # Removing

    def remove(
        self, study: str, series: str | None = None, sop_instance: str | None = None, state: str | None = None
    ) -> list[str]:
        """Forget what is at that address. Returns the blob keys, now in no index. Raises NotFound, Gone.

        state: of the study as the caller saw it; raises PreconditionFailed when it is another one now.

        What is left of a study is projected anew; where nothing is left, its ImagingStudy is withdrawn.
        """
        self.prepare()
        with self._database.client.start_session() as session:
            return session.with_transaction(lambda s: self._remove(s, study, series, sop_instance, state))

    def _remove(
        self,
        session: ClientSession,
        study: str,
        series: str | None,
        sop_instance: str | None,
        state: str | None,
    ) -> list[str]:
        now = self._now()
        if state is not None:
            current = self._studies.find_one({"_id": study}, session=session)
            if current is not None and state_of(current) != state:
                raise PreconditionFailed("this study has changed in the meantime; look at it again")
        here, names = _at(study, series, sop_instance), {"blob": 1, "series": 1, "original": 1}
        # The study first, as when something is added: whoever else changes it waits here.
        grown = {"$inc": {"revision": 1}, "$set": {"changed": now}}
        known = self._studies.update_one({"_id": study}, grown, session=session).matched_count
        found = list(self._instances.find(here, names, session=session)) if known else []
        if not found:
            raise self._missing("study, series or instance", study, series, sop_instance)
        self._instances.delete_many(here, session=session)
        prepared.forget(self._database, session, study, [document["_id"] for document in found])
        for changed in {document["series"] for document in found}:
            key = {"_id": f"{study}/{changed}"}
            left = self._instances.count_documents({"study": study, "series": changed}, session=session)
            if left:
                self._series.update_one(key, {"$set": {"count": left}}, session=session)
            else:
                self._series.delete_one(key, session=session)
        note: dict[str, Any] = {"at": now}
        if not self._shrink(study, now, session):
            self._studies.delete_one({"_id": study}, session=session)
            self._removed.replace_one({"_id": study}, note | {"pending": now}, upsert=True, session=session)
        address = "/".join(uid for uid in (study, series, sop_instance) if uid is not None)
        if address != study:
            self._removed.replace_one({"_id": address}, note, upsert=True, session=session)
        return [document[name] for document in found for name in ("blob", "original") if name in document]

    def _shrink(self, study: str, now: datetime, session: ClientSession) -> int:
        """Say of a study what is left of it; returns how many instances that are."""
        series = list(self._series.find({"study": study}, {"q": 1, "count": 1}, session=session))
        names = sorted({text(orjson.loads(one["q"]), MODALITY) for one in series} - {""})
        left = {
            "modalities": names,
            "classes": sorted(self._instances.distinct("sop_class", {"study": study}, session=session)),
            "series": len(series),
            "count": sum(one["count"] for one in series),
            "size": self._size({"study": study}, session),
            "due": now,
            prepared.DUE: now,
        }
        key = f"f.{MODALITIES}"
        change = {"$set": left | {key: names}} if names else {"$set": left, "$unset": {key: ""}}
        self._studies.update_one({"_id": study}, change, session=session)
        return sum(one["count"] for one in series)

    def _size(self, instances: Mapping[str, str], session: ClientSession) -> int:
        """Bytes of their objects."""
        pipeline: list[dict] = [{"$match": instances}, {"$group": {"_id": None, "size": {"$sum": OBJECTS_SIZE}}}]
        return next((one["size"] for one in self._instances.aggregate(pipeline, session=session)), 0)

    def used(self) -> int:
        """Bytes that all studies take. Looks at each of them."""
        pipeline = [{"$group": {"_id": None, "size": {"$sum": "$size"}}}]
        return next((one["size"] for one in self._studies.aggregate(pipeline)), 0)

    def withdrawn(self, limit: int = 20) -> list[str]:
        """Studies that are deleted whose ImagingStudy is not yet."""
        return [d["_id"] for d in self._removed.find({"pending": {"$exists": True}}).sort("pending", 1).limit(limit)]

    def is_stored(self, study: str) -> bool:
        return self._studies.find_one({"_id": study}, {"_id": 1}) is not None

    def link_of(self, study: str) -> Link | None:
        """What a person decided on a study; None where nobody did."""
        document = self._studies.find_one({"_id": study}, {"link": 1})
        return Link.of(document.get("link")) if document else None

    def settled(self, study: str) -> None:
        """The ImagingStudy of a deleted study is withdrawn."""
        self._removed.update_one({"_id": study}, {"$unset": {"pending": ""}})

    # Checking

    def indexed_files(self) -> Iterator[IndexedFile]:
        """Every instance and its object, in no order."""
        names = {"study": 1, "series": 1, "blob": 1, "size": 1, "mended": 1, "original": 1}
        for d in self._instances.find({}, names, batch_size=2000):
            mended = tuple(d.get("mended", ()))
            yield IndexedFile(d["study"], d["series"], d["_id"], d["blob"], d["size"], mended, d.get("original"))

    def study_uids(self, study: str | None = None) -> Iterator[tuple[str, bool]]:
        """Every study, or that one, and whether its projection is behind."""
        for d in self._studies.find({} if study is None else {"_id": study}, {"due": 1}, batch_size=2000):
            yield d["_id"], "due" in d

    def instances_of(self, study: str) -> dict[str, set[str]]:
        """SOP Instance UIDs by Series Instance UID."""
        found: dict[str, set[str]] = {}
        for d in self._instances.find({"study": study}, {"series": 1}):
            found.setdefault(d["series"], set()).add(d["_id"])
        return found

    # Projection

    def due(self, limit: int = 20) -> list[StudyState]:
        """Studies whose projection is behind, the longest waiting first."""
        found = self._studies.find({"due": {"$lte": self._now()}}, {"q": 0, "f": 0}).sort("due", 1).limit(limit)
        return [
            StudyState(
                d["_id"], d["revision"], d["changed"], d.get("projected", 0), d.get("status"), d.get("failures", 0)
            )
            for d in found
        ]

    def is_quiet(self, state: StudyState) -> bool:
        """Whether nothing was added to the study for the time after which it is complete."""
        return self._now() - state.changed >= self._quiet

    def content(self, study: str, max_instances: int) -> StudyContent:
        """What the ImagingStudy is made from; without the instances when there are more than that."""
        document = self._studies.find_one({"_id": study})
        if document is None:
            raise NotFound("this study is not known here")
        instances: dict[str, list[tuple[str, str, int | None]]] = {}
        if document["count"] <= max_instances:
            names = {"series": 1, "sop_class": 1, "n": 1}
            for d in self._instances.find({"study": study}, names).sort(_ORDER["instance"]):
                instances.setdefault(d["series"], []).append((d["sop_class"], d["_id"], d["n"]))
        series = [
            SeriesContent(orjson.loads(d["q"]), d["count"], instances.get(d["series"], []))
            for d in self._series.find({"study": study}).sort(_ORDER["series"])
        ]
        return StudyContent(
            orjson.loads(document["q"]),
            document["modalities"],
            document["count"],
            series,
            Link.of(document.get("link")),
            document.get("late", False),
        )

    def projected(self, state: StudyState, status: str, numbers: Sequence[str] | None, *, waits: bool) -> None:
        """Note what was projected; the study stays due when it has changed since, or is not complete yet.

        numbers: of the orders that it looks for in vain; None once it has its order. waits: for a person to say whose
        it is.
        """
        done = {"projected": state.revision, "status": status, "looks_for": list(numbers or ()), "failures": 0}
        done |= {"waits": waits}
        change: dict[str, Any] = {"$set": done}
        if status == "registered":
            change["$set"] = done | {"due": state.changed + self._quiet}
        else:
            change["$unset"] = {"due": ""}
        if not self._studies.update_one({"_id": state.uid, "revision": state.revision}, change).matched_count:
            # Grown in the meantime: the first growth set `due`, when it did not know of this projection yet.
            again = {"due": self._now() + self._quiet}
            self._studies.update_one({"_id": state.uid}, {"$set": done | again})

    def postpone(self, state: StudyState, seconds: float) -> None:
        """Try the projection again later; it could not be made now."""
        due = self._now() + timedelta(seconds=seconds)
        self._studies.update_one({"_id": state.uid}, {"$set": {"due": due}, "$inc": {"failures": 1}})

    def set_scope(self, study: str, scope: Iterable[str], version: int) -> None:
        """Who sees the study: whoever sees version `version` of its ImagingStudy. Older versions change nothing."""
        newer = {"_id": study, "$or": [{"scope_of": {"$lt": version}}, {"scope_of": {"$exists": False}}]}
        self._studies.update_one(newer, {"$set": {"scope": sorted(scope), "scope_of": version}})

    def study_of(self, imaging_study: str) -> str | None:
        """The study whose ImagingStudy has that id."""
        document = self._studies.find_one({"resource": imaging_study}, {"_id": 1})
        return document["_id"] if document else None

    def look_again(self, numbers: Sequence[str]) -> None:
        """Have the studies projected again that look for an order with one of these numbers."""
        if numbers:
            wanted = {"looks_for": {"$in": list(numbers)}, "due": {"$exists": False}}
            self._studies.update_many(wanted, {"$set": {"due": self._now()}})


def _visible(access: Access, scope: str = "scope") -> list[dict[str, Any]]:
    """What a study meets that the caller sees. scope: where its scope keys are."""
    return [{scope: {"$in": sorted(keys)}} for keys in access.sights]


def _are_duplicates(error: OperationFailure) -> bool:
    """Whether it failed by keys that are there already, and by nothing else."""
    if isinstance(error, DuplicateKeyError):
        return True
    faults = (error.details or {}).get("writeErrors") or []
    return bool(faults) and all(fault["code"] == _DUPLICATE for fault in faults)


def _at(study: str, series: str | None, sop_instance: str | None) -> dict[str, str]:
    asked = {"study": study, "series": series, "_id": sop_instance}
    return {name: uid for name, uid in asked.items() if uid is not None}


def _moments(day: str, clock: str, values: tuple[str | None, ...]) -> dict[str, Any]:
    first_day, last_day, first_time, last_time = values
    bounds: list[dict] = []
    if first_day is not None:
        same = {day: first_day} | ({clock: {"$gte": first_time}} if first_time else {})
        bounds.append({"$or": [{day: {"$gt": first_day}}, same]})
    if last_day is not None:
        # The end of a range has a sign behind it that sorts after all digits.
        bare = last_day.rstrip("~")
        same = {day: bare} | ({clock: {"$lte": last_time}} if last_time else {})
        bounds.append({"$or": [{day: {"$lt": bare}}, same]})
    return {"$and": bounds}


def _mongo(level: Level, condition: Condition) -> dict[str, Any]:
    name = _UID_FIELDS[level].get(condition.field, f"f.{condition.field}")
    if condition.kind == "one_of":
        return {name: {"$in": list(condition.values)}}
    if condition.kind == "like":
        return {name: {"$regex": condition.values[0]}}
    if condition.kind == "moments":
        day, clock = (f"f.{one}" for one in condition.field.split())
        return _moments(day, clock, condition.values)
    low, high = condition.values
    bounds = {operator: end for operator, end in (("$gte", low), ("$lte", high)) if end is not None}
    return {name: bounds}
