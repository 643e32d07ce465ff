"""Makes what viewers ask for first before they ask: the metadata of each series, a thumbnail of each instance.

Once nothing has come to a study for a moment; what is asked for before that is made when it is asked for.
"""

import logging
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from functools import partial

from pymongo.errors import PyMongoError

from dicomweb import presentation, wado
from dicomweb.blobs import BlobMissing, BlobStore
from dicomweb.pool import PixelPool
from dicomweb.prepared import MAX_METADATA_BYTES, Prepared, SeriesMetadata, Thumbnail, Unprepared
from dicomweb.records import InstanceFile
from dicomweb.rendered_routes import THUMBNAIL, middle
from dicomweb.store import DicomStore
from dicomweb.uids import imaging_study_id
from dicomweb.views import Views
from fhir_server.errors import Gone, NotAcceptable, NotFound
from fhir_server.lease import Lease

log = logging.getLogger(__name__)

LEASE = "dicomweb-preparation"
POLL_S = 0.5
PAUSE_S = 0.5  # after an outage, and while another worker holds the lease
LATER_S = 600.0  # at a study that cannot be prepared
IDLE_S = 20.0  # without work until the process that draws is ended
BATCH = 32  # thumbnails that are kept at once
MAX_UNDRAWN = 20  # instances of a study that cannot be drawn; the others are left until they are asked for


class Preparer:
    """Prepares studies. One worker at a time does it. pool: of its own, so that nobody waits behind it."""

    def __init__(
        self, store: DicomStore, prepared: Prepared, blobs: BlobStore, pool: PixelPool, base_url: str
    ) -> None:
        self._store = store
        self._prepared = prepared
        self._blobs = blobs
        self._pool = pool
        self._base_url = base_url
        self._stop = threading.Event()

    def run(self, stop: threading.Event) -> None:
        """Prepare until `stop` is set; survives outages of MongoDB."""
        self._stop = stop
        lease, idle = Lease(self._store.database, LEASE), 0.0
        while not stop.is_set():
            try:
                if not lease.hold():
                    stop.wait(PAUSE_S)
                elif self.prepare_due(lease):
                    idle = 0.0
                else:
                    idle += POLL_S
                    if idle >= IDLE_S:
                        self._pool.close()
                        idle = 0.0
                    stop.wait(POLL_S)
            except PyMongoError as error:
                log.warning("the preparation of studies waits for MongoDB: %s", type(error).__name__)
                stop.wait(PAUSE_S)
        self._pool.close()
        try:
            lease.release()
        except PyMongoError:
            log.warning("the preparation of studies leaves its lease to run out")

    def prepare_due(self, lease: Lease | None = None) -> int:
        """Prepare what is due now; returns how many studies that were. lease: to be kept meanwhile."""
        due = self._prepared.due(self._store.now())
        # Metadata first, of all: it takes less than the pictures, and a viewer begins with it.
        ready = [study for study in due if self._done(study, self._keep_metadata)]
        for study in ready:
            if self._done(study, lambda study: self._keep_thumbnails(study, lease)):
                self._prepared.done(study)
        return len(due)

    def _done(self, study: Unprepared, make: Callable[[Unprepared], bool]) -> bool:
        """Whether it was made of the study; one that it cannot be made of does not hold up the others."""
        try:
            return make(study)
        except (NotFound, Gone):  # deleted just now
            return False
        except PyMongoError:
            raise
        except Exception as error:
            lines = "".join(traceback.format_tb(error.__traceback__))
            log.error("study %s is not prepared: %s\n%s", imaging_study_id(study.study), type(error).__name__, lines)
            self._prepared.postpone(study, self._store.now(), LATER_S)
            return False

    def _keep_metadata(self, study: Unprepared) -> bool:
        batch: dict[str, SeriesMetadata] = {}
        size = 0
        for series in _by_series(self._store.files(study.study)):
            documents = self._store.metadata(study.study, series)
            made = SeriesMetadata.of(self._base_url, b"".join(wado.metadata(documents, self._base_url)))
            if len(made.compressed) > MAX_METADATA_BYTES:
                continue
            if size + len(made.compressed) > MAX_METADATA_BYTES:
                if not self._prepared.keep(study, batch):
                    return False
                batch, size = {}, 0
            batch[series] = made
            size += len(made.compressed)
        return not batch or self._prepared.keep(study, batch)

    def _keep_thumbnails(self, study: Unprepared, lease: Lease | None) -> bool:
        batch: list[Thumbnail] = []
        for made in self._thumbnails(study):
            batch.append(made)
            if len(batch) == BATCH:
                if not self._prepared.keep(study, {}, batch):
                    return False
                if lease is not None and not lease.hold():
                    return False
                batch = []
        return (not batch or self._prepared.keep(study, {}, batch)) and not self._stop.is_set()

    def _thumbnails(self, study: Unprepared) -> Iterator[Thumbnail]:
        """Of the instance that stands for each series, then of all others."""
        by_series = _by_series(self._store.files(study.study))
        have, undrawn = self._prepared.have(study), 0
        first = [middle(files) for files in by_series.values()]
        rest = [file for files in by_series.values() for file in files if file not in first]
        load = partial(self._store.instance, study.study)
        views = Views(self._blobs, self._pool, load)
        for file in (*first, *rest):
            if self._stop.is_set():
                return
            if file.sop_instance in have:
                continue
            try:
                jpeg = views.view(load(file.series, file.sop_instance), 1, THUMBNAIL)
            except (NotAcceptable, BlobMissing):  # told again to whoever asks for it
                undrawn += 1
                if undrawn == MAX_UNDRAWN:
                    return
                continue
            state = presentation.shown_state(file.sop_class, study.state)
            yield Thumbnail(file.series, file.sop_instance, file.blob_key, jpeg, state)


def _by_series(files: Iterable[InstanceFile]) -> dict[str, list[InstanceFile]]:
    found: dict[str, list[InstanceFile]] = {}
    for file in files:
        found.setdefault(file.series, []).append(file)
    return found
