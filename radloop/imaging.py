"""The imaging parts of a server: blobs, metadata, pixel processes, projection."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from threading import Event

from flask import Blueprint
from pymongo.database import Database

from dicomweb import projection, routes, wado_uri
from dicomweb.attach import Attachments
from dicomweb.attached import AttachedFiles
from dicomweb.blobs import BlobStore, FolderBlobStore
from dicomweb.corrections import Corrections, Record
from dicomweb.pool import PixelPool
from dicomweb.preparation import Preparer
from dicomweb.prepared import Prepared
from dicomweb.projection import Projector
from dicomweb.quota import Quota
from dicomweb.store import DicomStore
from fhir_server import stream
from fhir_server.repository import Repository
from radloop.settings import Settings


@dataclass(frozen=True, slots=True)
class Imaging:
    """web uses `blueprints`, worker `jobs`."""

    settings: Settings
    database: Database
    store: DicomStore
    blobs: BlobStore
    pool: PixelPool
    projector: Projector
    preparer: Preparer
    quota: Quota | None

    def blueprints(self) -> tuple[Blueprint, ...]:
        """The DICOMweb service and WADO-URI. Their pixel processes start when they are first needed."""
        parts, base = (self.store, self.blobs, self.pool), self.settings.dicomweb_base
        return (
            routes.create_blueprint(*parts, base, self.settings.max_body_mb, self.quota),
            wado_uri.create_blueprint(*parts, base),
        )

    def attachments(self, clock: Callable[[], datetime]) -> Attachments:
        """What people add to orders. clock: the practice's."""
        zone = self.settings.time_zone
        limit = self.settings.max_file_mb * 2**20
        return Attachments(self.store, self.blobs, limit, lambda: clock().astimezone(zone), self.quota)

    def attached_files(self) -> AttachedFiles:
        """The same, to be opened."""
        return AttachedFiles(self.store, self.blobs, self.pool)

    def corrections(self, clock: Callable[[], datetime], record: Record) -> Corrections:
        """What the desk does. clock: the practice's. record: keeps account."""
        return Corrections(self.store, self.blobs, clock, record)

    def jobs(self) -> dict[str, Callable[[Event], None]]:
        """Studies become ImagingStudies, and who sees these sees the images."""
        handle, together = projection.handler(self.store), projection.together(self.store)
        return {
            "projection": self.projector.run,
            "preparation": self.preparer.run,
            "study access": lambda stop: stream.follow(
                self.database, projection.CONSUMER, handle, stop, together=together, types=projection.TYPES
            ),
        }

    def close(self) -> None:
        self.pool.close()


def create_imaging(database: Database, repository: Repository, settings: Settings) -> Imaging:
    """Put the parts together and create the indexes."""
    store = DicomStore(database)
    store.prepare()
    blobs = _blobs(settings)
    return Imaging(
        settings=settings,
        database=database,
        store=store,
        blobs=blobs,
        pool=PixelPool(settings.pixel_processes, threads=settings.web_threads),
        projector=Projector(store, repository, zone=settings.time_zone),
        preparer=Preparer(store, Prepared(database), blobs, PixelPool(1, idle=True), settings.dicomweb_base),
        quota=Quota(store, settings.quota_mb * 2**20) if settings.quota_mb else None,
    )


def _blobs(settings: Settings) -> BlobStore:
    folder, reserve = settings.data_path / "blobs", settings.disk_reserve_mb * 2**20
    if not settings.blobs:
        return FolderBlobStore(folder, reserve)
    from dicomweb.s3_blobs import S3BlobStore  # an optional extra

    return S3BlobStore(settings.blobs, folder / "incoming", reserve)
