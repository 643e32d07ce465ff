"""Conditional and partial answers, and what browsers may keep of them. RFC 9110 sections 8.8, 13 and 14, RFC 9111."""

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version
from itertools import chain, islice

from flask import Blueprint, Response, request
from werkzeug.http import parse_range_header

from dicomweb.blobs import BlobMissing
from dicomweb.content import Content
from dicomweb.store import DicomStore
from fhir_server.errors import FhirError, Unavailable
from fhir_server.http import refusal

log = logging.getLogger(__name__)

# May be kept, by the browser alone, and is asked for again each time: with its entity tag that costs 304 and no
# bytes, and the rights of the caller are looked at whenever something is shown.
CACHE_CONTROL = "private, no-cache"
_VERSION = version("radloop")  # another one may render or write otherwise


class RangeNotSatisfiable(FhirError):
    """The range begins behind the end of the content."""

    status, issue_code = 416, "invalid"


def unless_known(state: str, make: Callable[[], Content | Response]) -> Response:
    """What `make` makes, or 304 when the client has it already; then it is not called.

    state: a text that is another one whenever the answer to this request may be another one.
    """
    # A tag for what was asked, in which way, and not for the bytes: boundaries are random, nothing has to be read.
    asked = (_VERSION, state, request.full_path, request.headers.get("Accept", ""))
    tag = hashlib.sha256("\0".join(asked).encode("utf-8", "replace")).hexdigest()[:32]
    if request.method in ("GET", "HEAD") and request.if_none_match.contains_weak(tag):
        response = Response(status=304)
        response.set_etag(tag, weak=True)
    else:
        made = make()
        response = made if isinstance(made, Response) else _sent(made, tag)
        # Only content that can be had in pieces is the same to the byte each time.
        response.set_etag(tag, weak="Accept-Ranges" not in response.headers)
    response.headers["Cache-Control"] = CACHE_CONTROL
    response.vary.add("Accept")
    response.vary.add("Authorization")
    return response


def tell_of_missing_objects(blueprint: Blueprint, store: DicomStore) -> None:
    """Let the blueprint answer when an object is not there: it was deleted or replaced after it was looked up, or it
    is lost, which an administrator has to know."""

    @blueprint.errorhandler(BlobMissing)
    def missing(error: BlobMissing) -> Response:
        study = (request.view_args or {}).get("study") or request.args.get("studyUID", "").strip()
        if not store.has_object(study, str(error)):
            return refusal(Unavailable("this study was changed a moment ago; ask again"))
        log.error("object %s is lost or damaged; `radloop check dicom` tells of all of them", error)
        return refusal(FhirError("an object of this study is lost or damaged; the practice has to look after it"))


def begun(chunks: Iterable[bytes]) -> Iterable[bytes]:
    """The same, of which the first ones have been read (of a message in parts the head, and content): what cannot be
    had is told before the answer begins."""
    iterator: Iterator[bytes] = iter(chunks)
    return chain(list(islice(iterator, 2)), iterator)


def _sent(content: Content, tag: str) -> Response:
    """The content, or the one range of it that was asked for. Raises RangeNotSatisfiable."""
    length, section = content.length, content.section
    if length is None or section is None:
        response = Response(begun(content.chunks), content_type=content.content_type)
        if length is not None:
            response.content_length = length
        if content.close is not None:
            response.call_on_close(content.close)
        return response
    wanted = _range(length, tag)
    if wanted is None:
        response = Response(begun(content.chunks), content_type=content.content_type)
        response.content_length = length
    else:
        begin, end = wanted
        response = Response(begun(section(begin, end - begin)), 206, content_type=content.content_type)
        response.content_length = end - begin
        response.headers["Content-Range"] = f"bytes {begin}-{end - 1}/{length}"
    response.headers["Accept-Ranges"] = "bytes"
    return response


def _range(length: int, tag: str) -> tuple[int, int] | None:
    """(begin, end) of the range that was asked for; None for all: without one, with several, or of another state."""
    header = request.headers.get("Range")
    if header is None or request.method != "GET":
        return None
    if (condition := request.headers.get("If-Range")) is not None and condition.strip() != f'"{tag}"':
        return None
    ranges = parse_range_header(header)
    if ranges is None or ranges.units != "bytes" or len(ranges.ranges) != 1:
        return None
    found = ranges.range_for_length(length)
    if found is None:
        raise RangeNotSatisfiable(f"there are {length} bytes", headers={"Content-Range": f"bytes */{length}"})
    return found
