"""The DICOMweb service at /dicomweb. Thin: values out of the request, a result into the response. PS3.18."""

import hashlib
import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from http import HTTPStatus
from itertools import chain
from zlib import MAX_WBITS, compressobj

import orjson
from flask import Blueprint, Response, current_app, g, request
from werkzeug.exceptions import HTTPException

from dicomweb import audit, bulk, qido, rendered_routes, stow, wado
from dicomweb.accept import (
    ANY,
    DICOM,
    DICOM_JSON,
    DICOM_XML,
    MULTIPART,
    Accepted,
    content_type,
    json_or_xml,
)
from dicomweb.attributes import STUDY_UID, Level
from dicomweb.blobs import BlobStore
from dicomweb.cache import Remembered
from dicomweb.content import Content
from dicomweb.delivery import tell_of_missing_objects, unless_known
from dicomweb.dicom_json import text
from dicomweb.instance import instance_address
from dicomweb.multipart import CHUNK, Part, parts
from dicomweb.native_xml import as_xml
from dicomweb.pool import PixelPool
from dicomweb.prepared import SeriesMetadata
from dicomweb.quota import Quota
from dicomweb.records import InstanceFile, StoredInstance
from dicomweb.rendered_routes import accepted
from dicomweb.store import DicomStore
from dicomweb.uids import check_uid, imaging_study_id
from dicomweb.wadl import WADL, wadl
from fhir_server.errors import BadRequest, Forbidden, NotAcceptable, UnsupportedMediaType
from fhir_server.http import current_access

log = logging.getLogger(__name__)

IMAGING = "ImagingStudy"
MAY_DELETE = frozenset({"admin", "practice", "system"})  # who may expunge resources, too
ANYTHING = Accepted(ANY)
MAX_WARNINGS = 10
PATIENCE_S = 60.0  # with who goes on sending what is refused already
_STORED_FROM = (DICOM, DICOM_JSON, DICOM_XML)
_STUDY = "/studies/<study>"
_SERIES = f"{_STUDY}/series/<series>"
_INSTANCE = f"{_SERIES}/instances/<instance>"


def create_blueprint(
    store: DicomStore,
    blobs: BlobStore,
    pool: PixelPool,
    base_url: str,
    max_body_mb: int,
    quota: Quota | None = None,
) -> Blueprint:
    """base_url: public address of the service, without a slash at its end. max_body_mb: of one request. quota: of
    all images."""
    dicomweb = Blueprint("dicomweb", __name__, url_prefix="/dicomweb")
    max_bytes = max_body_mb * 2**20
    blobs.sweep()
    remembered = Remembered(store)

    def readable(study: str, series: str | None = None, instance: str | None = None) -> str:
        """The caller may read this study, and the UIDs are some; the state of the study."""
        access = current_access()
        access.require_every("read", IMAGING)
        _check(study, series, instance)
        return store.check_visible(access, study)

    # Capabilities. What browsers ask by OPTIONS before they send anything has been answered before it comes here.

    @dicomweb.before_request
    def at_every_address() -> Response | None:
        return capabilities() if request.method == "OPTIONS" else None

    @dicomweb.route("/", methods=["OPTIONS"])
    def capabilities() -> Response:
        if not any(wanted.fits(WADL) or wanted.content == DICOM_XML for wanted in accepted()):
            raise NotAcceptable(f"the capabilities of the service are available as {WADL}")
        address = str(request.url_rule).removeprefix("/dicomweb")
        rules = [rule for rule in current_app.url_map.iter_rules() if rule.endpoint.startswith("dicomweb.")]
        routes = [(rule.rule.removeprefix("/dicomweb"), rule.methods or ()) for rule in rules]
        answer = Response(wadl(routes, base_url, address), content_type=WADL)
        answer.allow.update(current_app.create_url_adapter(request).allowed_methods())  # type: ignore[union-attr]
        return answer

    # STOW-RS

    @dicomweb.post("/studies")
    @dicomweb.post(_STUDY)
    def store_instances(study: str | None = None) -> Response:
        access = current_access()
        access.require_every("create", IMAGING)
        if not access.is_practice:
            raise Forbidden("images are stored by the practice")
        if study is not None:
            check_uid(study, "StudyInstanceUID")
        request.max_content_length = max_bytes
        message, media_type = _message()
        outcome = stow.store_instances(store, blobs, message, media_type, study, max_bytes, quota)
        audit.about(store, (instance.study for instance in outcome.stored))
        answer = stow.answer(outcome, base_url)
        # What is stored is told, in a form that the client may not have asked for rather than not at all.
        if next((a for a in accepted() if a.fits(DICOM_JSON) or a.fits(DICOM_XML)), ANYTHING).fits(DICOM_JSON):
            response = _json(orjson.dumps(answer), outcome.status)
        else:
            response = Response(as_xml(answer), outcome.status, content_type=DICOM_XML)
        _warn(response, outcome.reasons[:MAX_WARNINGS])
        return response

    @dicomweb.after_request
    def let_finish(response: Response) -> Response:
        """Who sends much hears an answer only then: refused before, they would see a broken connection."""
        known = "access" in g and request.method == "POST" and response.status_code >= HTTPStatus.BAD_REQUEST
        if known and (request.content_length or 0) <= max_bytes:
            _discard_rest()
        return response

    # Deleting, which PS3.18 leaves to the server

    @dicomweb.delete(_STUDY)
    @dicomweb.delete(_SERIES)
    @dicomweb.delete(_INSTANCE)
    def delete(study: str, series: str | None = None, instance: str | None = None) -> Response:
        access = current_access()
        if not access.roles & MAY_DELETE:
            raise Forbidden("images are deleted by administrators and by the practice's own systems")
        access.require_every("delete", IMAGING)
        _check(study, series, instance)
        audit.about(store, [study])
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
        access.require_every("search", IMAGING)
        media_type = json_or_xml(accepted(), "the answer to a search")
        if study is not None:
            _check(study, series)
            store.check_visible(access, study)
        given = [(k, v) for k, values in request.args.lists() for v in values if k.lower() != "accept"]
        query = qido.parse_query(level, given, study, series)
        found = qido.search(store, access, query, base_url)
        if study is None:
            audit.about(store, (text(match, STUDY_UID) for match in found))
        body = orjson.dumps(found)

        def make() -> Content | Response:
            return _json(body) if media_type == DICOM_JSON else qido.in_xml(found)

        # Which studies match, and who sees them, has no state but the answer itself.
        answer = unless_known(hashlib.sha256(body).hexdigest(), make)
        _warn(answer, query.warnings)
        return answer

    # WADO-RS

    @dicomweb.get(_STUDY)
    @dicomweb.get(_SERIES)
    @dicomweb.get(_INSTANCE)
    def retrieve(study: str, series: str | None = None, instance: str | None = None) -> Response:
        state = readable(study, series, instance)
        base = f"{base_url}/studies/{study}"
        files = remembered.files(state, study, series, instance)

        def load(file: InstanceFile) -> StoredInstance:
            return remembered.instance(state, study, file.series, file.sop_instance)

        known_by = state if instance is None else files[0].blob_key
        return unless_known(known_by, lambda: wado.instance_files(blobs, files, accepted(), base, load, pool))

    @dicomweb.get(f"{_STUDY}/metadata")
    @dicomweb.get(f"{_SERIES}/metadata")
    @dicomweb.get(f"{_INSTANCE}/metadata")
    def metadata(study: str, series: str | None = None, instance: str | None = None) -> Response:
        state = readable(study, series, instance)
        media_type = json_or_xml(accepted(), "metadata")

        def make() -> Content | Response:
            if media_type == DICOM_JSON and series is not None and instance is None:
                kept = remembered.metadata(state, study, series, base_url)
                if kept is not None:
                    return _metadata(kept)
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
        state = readable(study, series, instance)
        base = base_url + instance_address(study, series, instance)
        wanted = wado.parse_frame_numbers(numbers)
        stored = remembered.instance(state, study, series, instance)
        return unless_known(stored.blob_key, lambda: wado.frames(stored, wanted, accepted(), blobs, pool, base))

    @dicomweb.get(f"{_INSTANCE}/bulkdata/<path:path>")
    def bulk_data(study: str, series: str, instance: str, path: str) -> Response:
        state = readable(study, series, instance)
        address = f"{base_url}{instance_address(study, series, instance)}/bulkdata/{path}"
        stored = remembered.instance(state, study, series, instance)
        return unless_known(stored.blob_key, lambda: bulk.bulk_data(stored, path, accepted(), blobs, address))

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
        return unless_known(state, lambda: bulk.bulk_data_of(found, paths, accepted(), blobs, base_url))

    tell_of_missing_objects(dicomweb, store)
    rendered_routes.add_routes(dicomweb, remembered, blobs, pool, base_url, readable)
    return dicomweb


def _check(study: str, series: str | None = None, instance: str | None = None) -> None:
    check_uid(study, "StudyInstanceUID")
    if series is not None:
        check_uid(series, "SeriesInstanceUID")
    if instance is not None:
        check_uid(instance, "SOPInstanceUID")


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


def _discard_rest() -> None:
    """Read what is left of the request, for a while."""
    until = time.monotonic() + PATIENCE_S
    with suppress(HTTPException, OSError):
        while time.monotonic() < until and request.stream.read(CHUNK):
            pass


def _warn(response: Response, texts: Iterable[str]) -> None:
    """PS3.18 section 8.3.6: for people; an entry each."""
    for text_ in texts:
        response.headers.add("Warning", f'299 radloop "{text_}"')


def _json(body: bytes | Iterable[bytes], status: int = 200) -> Response:
    return Response(body, status, content_type=DICOM_JSON)


def _metadata(kept: SeriesMetadata) -> Response:
    """The compressed content as it is kept, to whoever can read that."""
    if "gzip" not in request.accept_encodings:
        return _json(kept.body)
    answer = _json(kept.compressed)
    answer.headers["Content-Encoding"] = "gzip"
    return answer


def _gzipped(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Metadata says the same of every slice: a thirtieth of the bytes for a millisecond."""
    compressor = compressobj(1, wbits=MAX_WBITS | 16)
    for chunk in chunks:
        if compressed := compressor.compress(chunk):
            yield compressed
    yield compressor.flush()
