"""What people added to an order, to be opened by people: photos, PDFs and films as what they were before they were
wrapped."""

from dataclasses import dataclass
from functools import partial

from dicomweb import bulk
from dicomweb.blobs import BlobStore
from dicomweb.content import Content
from dicomweb.pool import PixelPool
from dicomweb.records import StoredInstance
from dicomweb.render import JPEG, Rendering
from dicomweb.store import DicomStore
from dicomweb.views import ENCAPSULATED, Views
from fhir_server.access import Access

# What a browser shows by itself, and nothing that it would run.
SHOWN = frozenset({"image/jpeg", "application/pdf", "video/mp4"})
QUALITY = 95


@dataclass(frozen=True, slots=True)
class AttachedFiles:
    """Thread safe."""

    store: DicomStore
    blobs: BlobStore
    pool: PixelPool

    def state(self, access: Access, study: str, series: str, instance: str) -> str:
        """The name of the content, for an entity tag. Raises NotFound, also where the study is not for the caller."""
        self.store.check_visible(access, study)
        return self.store.files(study, series, instance)[0].blob_key

    def content(self, study: str, series: str, instance: str) -> Content:
        """The file; of a photo that is stored uncompressed a JPEG of it. Raises NotFound, Unavailable."""
        stored = self.store.instance(study, series, instance)
        value = _value(stored, self.blobs)
        if value is not None and value.media_type in SHOWN:
            return value.content()

        load = partial(self.store.instance, study)
        picture = Views(self.blobs, self.pool, load).view(stored, 1, Rendering(JPEG, QUALITY))
        return Content(JPEG, [picture], len(picture))


def _value(stored: StoredInstance, blobs: BlobStore) -> bulk.BulkValue | None:
    """What was wrapped; None where it is not kept byte by byte."""
    if ENCAPSULATED in stored.attributes:
        return bulk.document(stored, blobs)
    if stored.frames is not None and stored.frames.encapsulated:
        return bulk.bulk_value(stored, bulk.PIXEL_DATA, blobs)
    return None
