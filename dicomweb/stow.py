"""STOW-RS: store the parts of one request, each for itself. PS3.18 section 10.5."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from dicomweb.accept import DICOM, DICOM_JSON, DICOM_XML, content_type
from dicomweb.attributes import value
from dicomweb.blobs import BlobStore, Spooled, is_full, same_content
from dicomweb.composed import Composer
from dicomweb.dicom_json import Attributes
from dicomweb.failures import (
    COERCED,
    DUPLICATE_SOP_INSTANCE,
    OTHER_STUDY,
    OUT_OF_RESOURCES,
    StoreFailure,
    cannot_understand,
    no_room,
)
from dicomweb.instance import Instance, Received, receive
from dicomweb.multipart import Part
from dicomweb.quota import FULL, Quota
from dicomweb.store import DicomStore
from fhir_server.errors import BadRequest, TooLarge

MAX_PARTS = 10_000
MAX_HELD_BYTES = 128 * 1024 * 1024  # of what is known of the instances: they are indexed when the message has ended
_CLASS, _INSTANCE, _URL, _REASON = "00081150", "00081155", "00081190", "00081197"
_WARNING = "00081196"
_FAILED, _REFERENCED = "00081198", "00081199"


@dataclass(slots=True)
class Outcome:
    """What became of each part."""

    stored: list[Instance] = field(default_factory=list)
    failures: list[StoreFailure] = field(default_factory=list)

    @property
    def reasons(self) -> list[str]:
        """Why some are not stored, in words, each once; not for machines, which have the Failure Reason."""
        texts = dict.fromkeys(failure.text for failure in self.failures)
        return ["".join(sign if " " <= sign <= "~" and sign != '"' else "?" for sign in one) for one in texts]

    @property
    def status(self) -> int:
        """200: all, 202: some, or not all as they were sent, 409: none. PS3.18 table 10.5.3-1."""
        if not self.stored:
            return 409
        return 202 if self.failures or any(instance.mended for instance in self.stored) else 200


def store_instances(
    store: DicomStore,
    blobs: BlobStore,
    parts: Iterable[Part],
    media_type: str,
    study: str | None,
    max_bytes: int,
    quota: Quota | None = None,
) -> Outcome:
    """Store what can be stored. Nothing is, when the message itself is broken: raises BadRequest, TooLarge.

    media_type: of the instances, DICOM, or of their metadata. study: all must belong to it. When it returns, the
    stored ones survive a loss of power.
    """
    outcome = Outcome()
    composer = Composer(blobs, max_bytes)
    received: list[Received] = []
    try:
        held = 0
        for number, made in enumerate(_files(blobs, parts, media_type, composer, max_bytes), 1):
            if number > MAX_PARTS or held > MAX_HELD_BYTES:
                raise TooLarge("too many instances in one request; send them in several")
            try:
                item = _receive(blobs, made, study)
            except StoreFailure as failure:
                outcome.failures.append(failure)
            else:
                received.append(item)
                held += item.held
        if not received and not outcome.failures:
            raise BadRequest("the request has no instances")
        _keep(store, blobs, received, outcome, quota)
    finally:
        composer.close()
        for item in received:  # those that were kept have moved
            blobs.discard(item.spooled)
    return outcome


def answer(outcome: Outcome, base_url: str) -> Attributes:
    """The response as DICOM JSON. PS3.18 section 10.5.3."""
    studies = {instance.study for instance in outcome.stored}
    attributes: Attributes = {}
    if len(studies) == 1:
        attributes[_URL] = value("UR", f"{base_url}/studies/{studies.pop()}")
    if outcome.failures:
        attributes[_FAILED] = value("SQ", *map(_failed, outcome.failures))
    if outcome.stored:
        references = [
            {
                _CLASS: value("UI", instance.sop_class),
                _INSTANCE: value("UI", instance.sop_instance),
                _URL: value("UR", base_url + instance.address),
            }
            | ({_WARNING: value("US", COERCED)} if instance.mended else {})
            for instance in outcome.stored
        ]
        attributes[_REFERENCED] = value("SQ", *references)
    return attributes


def _files(
    blobs: BlobStore, parts: Iterable[Part], media_type: str, composer: Composer, max_bytes: int
) -> Iterator[Spooled | StoreFailure]:
    """A file for each instance, or why there is none: those that come as files, then those that are put together."""
    for part in parts:
        of_part, _ = content_type(part.headers.get("content-type", DICOM))
        try:
            if of_part == DICOM:
                yield blobs.spool(part.chunks, max_bytes)
            elif of_part in (DICOM_JSON, DICOM_XML):
                composer.add_metadata(part, of_part)
            elif media_type == DICOM:
                raise cannot_understand("this part is not application/dicom")
            else:
                composer.add_bulk(part)
        except StoreFailure as failure:
            yield failure
        except OSError as error:
            if not is_full(error):
                raise
            yield no_room()
    yield from composer.files()


def _receive(blobs: BlobStore, made: Spooled | StoreFailure, study: str | None) -> Received:
    """Read a file. Raises StoreFailure, and discards it then."""
    if isinstance(made, StoreFailure):
        raise made
    try:
        item = receive(made)
        if study is not None and item.instance.study != study:
            instance = item.instance
            text = "the instance belongs to another study than the address names"
            raise StoreFailure(OTHER_STUDY, text, instance.sop_class, instance.sop_instance)
    except BaseException:
        blobs.discard(made)
        raise
    return item


def _keep(
    store: DicomStore, blobs: BlobStore, received: list[Received], outcome: Outcome, quota: Quota | None
) -> None:
    """First the files, then the index: what is in the index can be read, after a crash as well."""
    keys = store.known(item.instance.sop_instance for item in received)
    fresh: list[Received] = []
    refused: set[str] = set()
    taken = 0
    try:
        for item in received:
            uid = item.instance.sop_instance
            if uid in keys or uid in refused:
                continue
            if quota is not None:
                if not quota.take(item.spooled.size):
                    refused.add(uid)
                    continue
                taken += item.spooled.size
            keys[uid] = item.blob_key
            fresh.append(item)
        blobs.keep((item.spooled, item.blob_key) for item in fresh)
        keys |= store.add(fresh)
    finally:
        if quota is not None:
            quota.settle(taken)
    for item in fresh:
        if keys[item.instance.sop_instance] != item.blob_key:  # somebody else was quicker
            blobs.delete(item.blob_key)
    uids = {item.blob_key: item.instance.sop_instance for item in received}
    originals = store.originals(uid for key, uid in uids.items() if not same_content(keys.get(uid, ""), key))
    for item in received:
        instance = item.instance
        uid = instance.sop_instance
        if uid in refused:
            outcome.failures.append(StoreFailure(OUT_OF_RESOURCES, FULL, instance.sop_class, uid))
        elif any(same_content(key, item.blob_key) for key in (keys[uid], originals.get(uid, ""))):
            outcome.stored.append(instance)
        else:
            text = "another object is stored under this SOP Instance UID"
            outcome.failures.append(StoreFailure(DUPLICATE_SOP_INSTANCE, text, instance.sop_class, uid))


def _failed(failure: StoreFailure) -> Attributes:
    item: Attributes = {_REASON: value("US", failure.reason)}
    if failure.sop_class:
        item[_CLASS] = value("UI", failure.sop_class)
    if failure.sop_instance:
        item[_INSTANCE] = value("UI", failure.sop_instance)
    return dict(sorted(item.items()))
