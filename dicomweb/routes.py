"""The DICOMweb service at /dicomweb. Thin: values out of the request, a result into the response. PS3.18."""

import hashlib
import logging
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from zlib import MAX_WBITS, compressobj

import orjson
from flask import Blueprint, Response, request

from dicomweb import bulk, qido, stow, wado
from dicomweb.accept import (
    ANY,
    DICOM,
    DICOM_JSON,
    DICOM_XML,
    MULTIPART,
    Accepted,
    choose,
    content_type,
    json_or_xml,
    parse_accept,
)
from dicomweb.attributes import Level
from dicomweb.blobs import BlobStore
from dicomweb.content import Content
from dicomweb.delivery import unless_known
from dicomweb.display import parse_window
from dicomweb.instance import instance_address
from dicomweb.multipart import CHUNK, Part, parts
from dicomweb.native_xml import as_xml
from dicomweb.pool import PixelPool
from dicomweb.render import JPEG, MAX_VIEWPORT, PNG, Rendering, Viewport
from dicomweb.store import DicomStore
from dicomweb.uids import check_uid, imaging_study_id
from fhir_server.errors import BadRequest, Forbidden, UnsupportedMediaType
from fhir_server.http import current_access

log = logging.getLogger(__name__)

IMAGING = "ImagingStudy"
MAY_DELETE = frozenset({"admin", "practice", "system"})  # who may expunge resources, too
THUMBNAIL_SIDE = 128
ANYTHING = Accepted(ANY)
_STORED_FROM = (DICOM, DICOM_JSON, DICOM_XML)
_BLANK = re.compile(r"(?<=\w) (?=\w)")
_STUDY = "/studies/<study>"
_SERIES = f"{_STUDY}/series/<series>"
_INSTANCE = f"{_SERIES}/instances/<instance>"


def create_blueprint(
    store: DicomStore, blobs: BlobStore, pool: PixelPool, base_url: str, max_body_mb: int
) -> Blueprint:
    """base_url: public address of the service, without a slash at its end. max_body_mb: of one request."""
    dicomweb = Blueprint("dicomweb", __name__, url_prefix="/dicomweb")
    max_bytes = max_body_mb * 2**20
    blobs.sweep()

    def readable(study: str, series: str | None = None, instance: str | None = None) -> str:
        """The caller may read this study, and the UIDs are some; the state of the study."""
        access = current_access()
        access.require("read", IMAGING)
        _check(study, series, instance)
        return store.check_visible(access, study)

    # STOW-RS

    @dicomweb.post("/studies")
    @dicomweb.post(_STUDY)
    def store_instances(study: str | None = None) -> Response:
        access = current_access()
        access.require("create", IMAGING)
        if not access.is_practice:
            raise Forbidden("images are stored by the practice")
        if study is not None:
            check_uid(study, "StudyInstanceUID")
        request.max_content_length = max_bytes
        message, media_type = _message()
        outcome = stow.store_instances(store, blobs, message, media_type, study, max_bytes)
        answer = stow.answer(outcome, base_url)
        # What is stored is told, in a form that the client may not have asked for rather than not at all.
        if next((a for a in _accepted() if a.fits(DICOM_JSON) or a.fits(DICOM_XML)), ANYTHING).fits(DICOM_JSON):
            return _json(orjson.dumps(answer), outcome.status)
        return Response(as_xml(answer), outcome.status, content_type=DICOM_XML)

    # Deleting, which PS3.18 leaves to the server

    @dicomweb.delete(_STUDY)
    @dicomweb.delete(_SERIES)
    @dicomweb.delete(_INSTANCE)
    def delete(study: str, series: str | None = None, instance: str | None = None) -> Response:
        access = current_access()
        if not access.roles & MAY_DELETE:
            raise Forbidden("images are deleted by administrators and by the practice's own systems")
        access.require("delete", IMAGING)
        _check(study, series, instance)
        keys = store.remove(study, series, instance)
        for key in keys:  # what a kill leaves of them is found by `radloop check dicom`
            blobs.delete(key)
        log.warning("%s deleted %d instances of %s", access.subject, len(keys), imaging_study_id(study))
        return Response(status=204)

    # QIDO-RS

    @dicomweb.get("/studies", defaults={"level": "study"})
    @dicomweb.get("/series", defaults={"level": "series"})
    @dicomweb.get("/instances", defaults={"level": "instance"})
    @dicomweb.get(f"{_STUDY}/series", defaults={"level": "series"})
    @dicomweb.get(f"{_STUDY}/instances", defaults={"level": "instance"})
    @dicomweb.get(f"{_SERIES}/instances", defaults={"level": "instance"})
    def search(level: Level, study: str | None = None, series: str | None = None) -> Response:
        access = current_access()
        access.require("search", IMAGING)
        media_type = json_or_xml(_accepted(), "the answer to a search")
        if study is not None:
            _check(study, series)
            store.check_visible(access, study)
        given = [(k, v) for k, values in request.args.lists() for v in values if k.lower() != "accept"]
        query = qido.parse_query(level, given, study, series)
        found = qido.search(store, access, query, base_url)
        body = orjson.dumps(found)

        def make() -> Content | Response:
            return _json(body) if media_type == DICOM_JSON else qido.in_xml(found)

        # Which studies match, and who sees them, has no state but the answer itself.
        answer = unless_known(hashlib.sha256(body).hexdigest(), make)
        for warning in query.warnings:
            answer.headers.add("Warning", f'299 radloop "{warning}"')
        return answer

    # WADO-RS

    @dicomweb.get(_STUDY)
    @dicomweb.get(_SERIES)
    @dicomweb.get(_INSTANCE)
    def retrieve(study: str, series: str | None = None, instance: str | None = None) -> Response:
        state = readable(study, series, instance)
        base = f"{base_url}/studies/{study}"
        files = store.files(study, series, instance)
        if instance is not None:
            state = files[0].blob_key
        return unless_known(state, lambda: wado.instance_files(blobs, files, _accepted(), base))

    @dicomweb.get(f"{_STUDY}/metadata")
    @dicomweb.get(f"{_SERIES}/metadata")
    @dicomweb.get(f"{_INSTANCE}/metadata")
    def metadata(study: str, series: str | None = None, instance: str | None = None) -> Response:
        state = readable(study, series, instance)
        media_type = json_or_xml(_accepted(), "metadata")

        def make() -> Content | Response:
            documents = store.metadata(study, series, instance)
            if media_type == DICOM_XML:
                return wado.metadata_xml(documents, base_url)
            body = wado.metadata(documents, base_url)
            if "gzip" not in request.accept_encodings:
                return _json(body)
            answer = _json(_gzipped(body))
            answer.headers["Content-Encoding"] = "gzip"
            return answer

        answer = unless_known(state, make)
        answer.vary.add("Accept-Encoding")
        return answer

    @dicomweb.get(f"{_INSTANCE}/frames/<numbers>")
    def frames(study: str, series: str, instance: str, numbers: str) -> Response:
        readable(study, series, instance)
        base = base_url + instance_address(study, series, instance)
        wanted = wado.parse_frame_numbers(numbers)
        stored = store.instance(study, series, instance)
        return unless_known(stored.blob_key, lambda: wado.frames(stored, wanted, _accepted(), blobs, pool, base))

    @dicomweb.get(f"{_INSTANCE}/bulkdata/<path:path>")
    def bulk_data(study: str, series: str, instance: str, path: str) -> Response:
        readable(study, series, instance)
        address = f"{base_url}{instance_address(study, series, instance)}/bulkdata/{path}"
        stored = store.instance(study, series, instance)
        return unless_known(stored.blob_key, lambda: bulk.bulk_data(stored, path, _accepted(), blobs, address))

    @dicomweb.get(f"{_STUDY}/bulkdata")
    @dicomweb.get(f"{_SERIES}/bulkdata")
    @dicomweb.get(f"{_INSTANCE}/bulkdata")
    def all_bulk_data(study: str, series: str | None = None, instance: str | None = None) -> Response:
        return bulk_data_at(study, series, instance, None)

    @dicomweb.get(f"{_STUDY}/pixeldata")
    @dicomweb.get(f"{_SERIES}/pixeldata")
    @dicomweb.get(f"{_INSTANCE}/pixeldata")
    def pixel_data(study: str, series: str | None = None, instance: str | None = None) -> Response:
        return bulk_data_at(study, series, instance, bulk.PIXELS)

    def bulk_data_at(study: str, series: str | None, instance: str | None, paths: Iterable[str] | None) -> Response:
        state = readable(study, series, instance)
        found = store.stored_instances(study, series, instance)
        return unless_known(state, lambda: bulk.bulk_data_of(found, paths, _accepted(), blobs, base_url))

    @dicomweb.get(f"{_INSTANCE}/rendered")
    @dicomweb.get(f"{_INSTANCE}/frames/<number>/rendered")
    def rendered(study: str, series: str, instance: str, number: str = "1") -> Response:
        return image(study, series, instance, number, _rendering(None))

    @dicomweb.get(f"{_INSTANCE}/thumbnail")
    @dicomweb.get(f"{_INSTANCE}/frames/<number>/thumbnail")
    def thumbnail(study: str, series: str, instance: str, number: str = "1") -> Response:
        return image(study, series, instance, number, _rendering(Viewport(THUMBNAIL_SIDE, THUMBNAIL_SIDE)))

    @dicomweb.get(f"{_STUDY}/thumbnail")
    @dicomweb.get(f"{_SERIES}/thumbnail")
    def representative(study: str, series: str | None = None) -> Response:
        """The image in the middle of the (first) series."""
        readable(study, series)
        files = store.files(study, series)
        first = [file for file in files if file.series == files[0].series]
        middle = first[len(first) // 2]
        wanted = _rendering(Viewport(THUMBNAIL_SIDE, THUMBNAIL_SIDE))
        return image(study, middle.series, middle.sop_instance, "1", wanted)

    def image(study: str, series: str, instance: str, number: str, wanted: Rendering) -> Response:
        readable(study, series, instance)
        numbers = wado.parse_frame_numbers(number)
        if len(numbers) != 1:
            raise BadRequest("one frame at a time is rendered")
        stored = store.instance(study, series, instance)

        def make() -> Response:
            body = wado.rendered(stored, numbers[0], wanted, blobs, pool)
            return Response(body, content_type=wanted.media_type)

        return unless_known(stored.blob_key, make)

    return dicomweb


def _check(study: str, series: str | None = None, instance: str | None = None) -> None:
    check_uid(study, "StudyInstanceUID")
    if series is not None:
        check_uid(series, "SeriesInstanceUID")
    if instance is not None:
        check_uid(instance, "SOPInstanceUID")


def _accepted() -> list[Accepted]:
    """What the client accepts: the query parameter is for those that cannot set a header. PS3.18 section 8.3.3.1."""
    # An unencoded `+` in a query is a blank, and viewers leave it so.
    named = ",".join(_BLANK.sub("+", value) for value in request.args.getlist("accept"))
    return parse_accept(named, request.headers.get("Accept"))


def _message() -> tuple[Iterable[Part], str]:
    """The parts of a request that stores, and the media type of the instances (or of their metadata) in them.

    One instance, or one JSON or XML, may be the whole content. Raises UnsupportedMediaType, BadRequest.
    """
    media_type, parameters = content_type(request.headers.get("Content-Type", ""))
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise UnsupportedMediaType("send the content as it is, without a Content-Encoding")
    if media_type == MULTIPART:
        media_type = content_type(parameters.get("type", DICOM))[0]
        if media_type in _STORED_FROM and not parameters.get("boundary"):
            raise BadRequest("the Content-Type has no boundary")
        if media_type in _STORED_FROM:
            return parts(request.stream, parameters["boundary"]), media_type
    if media_type not in _STORED_FROM:
        raise UnsupportedMediaType(f'instances are sent as {MULTIPART}; type="{DICOM}", or one as {DICOM}')
    first = request.stream.read(CHUNK)
    if not first:
        raise BadRequest("the request has no content")
    chunks = chain([first], iter(lambda: request.stream.read(CHUNK), b""))
    return [Part({"content-type": media_type}, chunks)], media_type


def _rendering(viewport: Viewport | None) -> Rendering:
    """What the query parameters of a rendered image ask for. PS3.18 section 8.3.5.1. Raises BadRequest."""
    given = request.args
    media_type = choose(_accepted(), [JPEG, PNG], "a rendered image")
    quality = given.get("quality", "").strip() or "90"
    if not (quality.isascii() and quality.isdigit() and 1 <= int(quality[:4]) <= 100):
        raise BadRequest("quality is a number from 1 to 100")
    window = parse_window(given["window"]) if given.get("window", "").strip() else None
    if given.get("viewport", "").strip():
        viewport = _viewport(given["viewport"])
    return Rendering(media_type, int(quality), window, viewport)


def _viewport(given: str) -> Viewport:
    """`vw,vh` or `vw,vh,sx,sy,sw,sh`, where the last four may be empty."""
    fault = BadRequest(f"viewport takes width,height or width,height,x,y,width,height; at most {MAX_VIEWPORT} wide")
    fields = [field.strip() for field in given.split(",")]
    try:
        numbers = [float(field) if field else None for field in fields]
    except ValueError:
        raise fault from None
    if len(numbers) not in (2, 6) or not all(n is None or abs(n) <= 1_000_000 for n in numbers):
        raise fault
    width, height, x, y, source_width, source_height = [*numbers, None, None, None, None][:6]
    if width is None or height is None or not (1 <= width <= MAX_VIEWPORT and 1 <= height <= MAX_VIEWPORT):
        raise fault
    if (x or 0) < 0 or (y or 0) < 0 or source_width == 0 or source_height == 0:
        raise fault
    return Viewport(int(width), int(height), x or 0.0, y or 0.0, source_width, source_height)


def _json(body: bytes | Iterable[bytes], status: int = 200) -> Response:
    return Response(body, status, content_type=DICOM_JSON)


def _gzipped(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Metadata says the same of every slice: a thirtieth of the bytes for a millisecond."""
    compressor = compressobj(1, wbits=MAX_WBITS | 16)
    for chunk in chunks:
        if compressed := compressor.compress(chunk):
            yield compressed
    yield compressor.flush()
