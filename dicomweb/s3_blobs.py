"""Objects in an S3-compatible store. The address of the store and the credentials come from the usual environment."""

import logging
import os
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from botocore.exceptions import BotoCoreError, ClientError
from s3fs import S3FileSystem

from dicomweb.blobs import ABANDONED_S, BlobMissing, BlobStore, Spooled, checked
from fhir_server.errors import Unavailable

log = logging.getLogger(__name__)

PIECE = 4 * 1024 * 1024  # that is read at once
PART = 5 * 1024 * 1024  # of an upload, the smallest that S3 takes; calculated larger beyond 10,000 parts
UPLOADS, PARTS = 4, 2  # at once in a request, and of each: 40 MB at most are held
_CONFIG = {"connect_timeout": 5, "read_timeout": 60, "retries": {"max_attempts": 2}}


class S3BlobStore(BlobStore):
    """address: `s3://bucket/prefix`. Failures of the store raise Unavailable."""

    def __init__(self, address: str, spool: Path, reserve: int = 0) -> None:
        super().__init__(spool, reserve)
        self.bucket, _, prefix = address.removeprefix("s3://").strip("/").partition("/")
        self._objects = "/".join(filter(None, (self.bucket, prefix, "objects")))
        self._prefix = self._objects.partition("/")[2] + "/"
        self._opening = threading.Lock()
        self._opened: tuple[int, S3FileSystem] | None = None

    def keep(self, spooled: Iterable[tuple[Spooled, str]]) -> None:
        kept = list(spooled)
        with ThreadPoolExecutor(UPLOADS) as pool:
            uploads = [pool.submit(self._upload, item, key) for item, key in kept]
        if error := next((error for upload in uploads if (error := upload.exception())), None):
            self._take_back([key for (_, key), upload in zip(kept, uploads, strict=True) if not upload.exception()])
            raise error
        for item, _ in kept:
            self.discard(item)

    def keys(self, older_than_s: float = 0.0) -> Iterator[str]:
        latest = datetime.now(UTC) - timedelta(seconds=older_than_s)
        at: dict[str, str] = {}
        while True:  # a page of a thousand each time
            with _told(self._objects):
                page = self._files.call_s3("list_objects_v2", Bucket=self.bucket, Prefix=self._prefix, **at)
            for entry in page.get("Contents", ()):
                if entry["LastModified"] <= latest:
                    yield entry["Key"].rpartition("/")[2]
            if not page.get("IsTruncated"):
                return
            at = {"ContinuationToken": page["NextContinuationToken"]}

    def delete(self, key: str) -> None:
        bucket, _, path = self._path(key).partition("/")
        with _told(key):
            self._files.call_s3("delete_object", Bucket=bucket, Key=path)

    def size(self, key: str) -> int:
        bucket, _, path = self._path(key).partition("/")
        with _told(key):
            return self._files.call_s3("head_object", Bucket=bucket, Key=path)["ContentLength"]

    def read(self, key: str, offset: int, length: int) -> bytes:
        if not length:
            return b""
        try:
            with _told(key):
                data = self._files.cat_file(self._path(key), start=offset, end=offset + length)
        except _OutOfRange:
            raise BlobMissing(key) from None
        if len(data) != length:
            raise BlobMissing(key)
        return data

    def chunks(self, key: str, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        end = self.size(key) if length is None else offset + length
        for begin in range(offset, end, PIECE):
            yield self.read(key, begin, min(PIECE, end - begin))

    def sweep(self) -> None:
        """Also end uploads that a killed server began: their parts take room, and no listing of objects shows them.

        A store that does not answer is left for the next time, with a line in the log.
        """
        super().sweep()
        try:
            for path, upload in self._abandoned():
                with _told(path):
                    self._files.call_s3("abort_multipart_upload", Bucket=self.bucket, Key=path, UploadId=upload)
        except (Unavailable, BlobMissing) as error:
            log.warning("abandoned uploads were not looked for: %s", error)

    def _abandoned(self) -> list[tuple[str, str]]:
        latest = datetime.now(UTC) - timedelta(seconds=ABANDONED_S)
        with _told(self._objects):  # a page of a thousand; a later sweep finds more
            found = self._files.call_s3("list_multipart_uploads", Bucket=self.bucket, Prefix=self._prefix)
        return [(one["Key"], one["UploadId"]) for one in found.get("Uploads", ()) if one["Initiated"] <= latest]

    def _upload(self, item: Spooled, key: str) -> None:
        try:
            self.size(key)
        except BlobMissing:
            with _told(key):
                self._files.put_file(str(item.path), self._path(key), chunksize=PART, max_concurrency=PARTS)

    def _take_back(self, keys: list[str]) -> None:
        """No instance will name them; those that cannot be deleted either are orphans, which the check finds."""
        for key in keys:
            try:
                self.delete(key)
            except Unavailable:
                log.warning("object %s stays as an orphan: the store does not answer", key)

    def _path(self, key: str) -> str:
        return f"{self._objects}/{key[:2]}/{checked(key)}"

    @property
    def _files(self) -> S3FileSystem:
        """Of this process: a connection does not survive a fork."""
        with self._opening:
            if self._opened is None or self._opened[0] != os.getpid():
                made = S3FileSystem(
                    endpoint_url=os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"),
                    config_kwargs=_CONFIG,
                    use_listings_cache=False,
                    skip_instance_cache=True,
                )
                made.retries = 3
                self._opened = (os.getpid(), made)
            return self._opened[1]


class _OutOfRange(Exception):
    """The object is shorter than what was asked of it."""


@contextmanager
def _told(key: str) -> Iterator[None]:
    """Errors of the store as ours."""
    try:
        yield
    except FileNotFoundError as error:
        if _code(error) == "NoSuchBucket":
            log.error("the object store has no such bucket")
            raise Unavailable("the object store does not answer; try again") from error
        raise BlobMissing(key) from None
    except (TimeoutError, OSError, BotoCoreError, ClientError) as error:
        if _code(error) == "InvalidRange":
            raise _OutOfRange from None
        log.warning("the object store failed: %s %s", type(error).__name__, _code(error))
        raise Unavailable("the object store does not answer; try again") from error


def _code(error: BaseException) -> str:
    """What S3 calls the error, which is kept in the one that it was translated from."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ClientError):
            return str(cause.response.get("Error", {}).get("Code", ""))
        cause = cause.__cause__
    return ""
