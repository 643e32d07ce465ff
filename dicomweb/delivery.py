"""Conditional and partial answers, and what browsers may keep of them. RFC 9110 sections 8.8, 13 and 14, RFC 9111."""

import hashlib
from collections.abc import Callable
from importlib.metadata import version

from flask import Response, request
from werkzeug.http import parse_range_header

from dicomweb.content import Content
from fhir_server.errors import FhirError

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


def _sent(content: Content, tag: str) -> Response:
    """The content, or the one range of it that was asked for. Raises RangeNotSatisfiable."""
    length, section = content.length, content.section
    if length is None or section is None:
        response = Response(content.chunks, content_type=content.content_type)
        if length is not None:
            response.content_length = length
        return response
    wanted = _range(length, tag)
    if wanted is None:
        response = Response(content.chunks, content_type=content.content_type)
        response.content_length = length
    else:
        begin, end = wanted
        response = Response(section(begin, end - begin), 206, content_type=content.content_type)
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
