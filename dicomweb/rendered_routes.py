"""Rendered images and thumbnails of frames, instances, series and studies. PS3.18 sections 8.3.5, 10.4.1.1.3-4."""

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial

from flask import Blueprint, Response, request

from dicomweb import bulk, pictures, presentation, wado
from dicomweb.accept import ANY, MULTIPART, Accepted, choose, parse_accept
from dicomweb.blobs import BlobStore
from dicomweb.cache import Cache, Remembered
from dicomweb.content import Content, Part, multipart_of
from dicomweb.delivery import unless_known
from dicomweb.dicom_json import text
from dicomweb.display import parse_window
from dicomweb.documents import CONTENT, html_of
from dicomweb.drawing import MAX_VIEWPORT, Viewport
from dicomweb.instance import instance_address
from dicomweb.pool import PixelPool, Runner
from dicomweb.profiles import SPACES
from dicomweb.records import InstanceFile
from dicomweb.render import GIF, JPEG, PNG, Rendering
from dicomweb.views import Views
from fhir_server.errors import BadRequest, FhirError

THUMBNAIL = Rendering(viewport=Viewport(128, 128))  # of who asks for nothing else
MAX_PARTS = 4096  # pictures of one answer
CACHE_BYTES = 24 * 1024 * 1024
OFFERS = [JPEG, PNG, GIF]
ANNOTATIONS = ("patient", "technique")
PROFILES = ("no", "yes", "srgb", *SPACES)
_BLANK = re.compile(r"(?<=\w) (?=\w)")
_STUDY = "/studies/<study>"
_SERIES = f"{_STUDY}/series/<series>"
_INSTANCE = f"{_SERIES}/instances/<instance>"

Readable = Callable[[str, str | None, str | None], str]  # study, series, instance: raises what refuses the caller


def add_routes(
    dicomweb: Blueprint,
    remembered: Remembered,
    blobs: BlobStore,
    pool: PixelPool,
    base_url: str,
    readable: Readable,
) -> None:
    """The routes of the service that answer with pictures. base_url: its public address."""
    cache: Cache[bytes] = Cache(CACHE_BYTES)

    @dicomweb.get(f"{_STUDY}/rendered")
    @dicomweb.get(f"{_SERIES}/rendered")
    @dicomweb.get(f"{_INSTANCE}/rendered")
    @dicomweb.get(f"{_INSTANCE}/frames/<numbers>/rendered")
    def rendered(study: str, series: str | None = None, instance: str | None = None, numbers: str = "1") -> Response:
        state = readable(study, series, instance)
        files = remembered.files(state, study, series, instance)
        if instance is not None and (as_it_is := document(state, study, files[0])):
            return unless_known(files[0].blob_key, lambda: as_it_is)
        wanted = _rendering(None)
        frames = wado.parse_frame_numbers(numbers)
        if instance is not None and len(frames) == 1 and not _wants_parts(wanted.media_type):
            return one(state, study, files[0], frames[0], wanted)
        if _wants_parts(wanted.media_type) or len(frames) > 1:
            return several(state, study, [(file, frame) for file in files for frame in frames], wanted)
        return one(state, study, middle(files), 1, wanted)

    @dicomweb.get(f"{_STUDY}/thumbnail")
    @dicomweb.get(f"{_SERIES}/thumbnail")
    @dicomweb.get(f"{_INSTANCE}/thumbnail")
    @dicomweb.get(f"{_INSTANCE}/frames/<number>/thumbnail")
    def thumbnail(study: str, series: str | None = None, instance: str | None = None, number: str = "1") -> Response:
        state = readable(study, series, instance)
        frames = wado.parse_frame_numbers(number)
        if len(frames) != 1:
            raise BadRequest("a thumbnail is of one frame")
        wanted = _rendering(THUMBNAIL.viewport)
        if series is not None and instance is not None and frames == [1] and wanted == THUMBNAIL:
            kept = remembered.thumbnail(state, study, series, instance)
            if kept is not None:
                return unless_known(
                    _key(kept.state, kept.blob_key), lambda: Response(kept.jpeg, content_type=wanted.media_type)
                )
        file = middle(remembered.files(state, study, series, instance))
        return one(state, study, file, frames[0], wanted)

    def one(state: str, study: str, file: InstanceFile, frame: int, wanted: Rendering) -> Response:
        """One picture; who has it is told so without it being made."""
        return unless_known(
            _shows(state, file),
            lambda: Response(picture(state, study, file, frame, wanted), content_type=wanted.media_type),
        )

    def picture(
        state: str, study: str, file: InstanceFile, frame: int, wanted: Rendering, where: Runner = pool
    ) -> bytes:
        key = (_shows(state, file), frame, wanted)
        if (found := cache.get(key)) is not None:
            return found
        if frame == 1 and wanted == THUMBNAIL:
            kept = remembered.thumbnail(state, study, file.series, file.sop_instance)
            if kept is not None:
                return kept.jpeg

        load = partial(remembered.instance, state, study)
        stored = load(file.series, file.sop_instance)
        made = Views(blobs, where, load).view(stored, frame, wanted)
        cache.put(key, made, len(made))
        return made

    def several(state: str, study: str, asked: list[tuple[InstanceFile, int]], wanted: Rendering) -> Response:
        if len(asked) > MAX_PARTS:
            raise BadRequest(f"ask for at most {MAX_PARTS} pictures at once")
        shown = "/".join(_shows(state, file) for file, _ in asked)
        return unless_known(shown, lambda: together(state, study, asked, wanted))

    def together(state: str, study: str, asked: list[tuple[InstanceFile, int]], wanted: Rendering) -> Content:
        """All of them in one message. One is made before the status is told, that of the frame most likely not to be
        there; in place of another that cannot be shown there is a card that says why."""
        with ExitStack() as undo:
            # Held to the end, so that the answer does not break off for want of room.
            place = undo.enter_context(pool.place())
            last = max(range(len(asked)), key=lambda index: asked[index][1])
            told = picture(state, study, *asked[last], wanted, place)

            def shown(index: int) -> bytes:
                try:
                    return told if index == last else picture(state, study, *asked[index], wanted, place)
                except FhirError as fault:
                    return pictures.card("Not shown", [str(fault)], wanted)

            def parts() -> Iterator[Part]:
                for index, (file, frame) in enumerate(asked):
                    of_instance = instance_address(study, file.series, file.sop_instance)
                    location = f"{base_url}{of_instance}/frames/{frame}/rendered"
                    headers = {"Content-Type": wanted.media_type, "Content-Location": location}
                    yield Part(headers, lambda index=index: [shown(index)])  # type: ignore[misc]

            return multipart_of(wanted.media_type, parts()).ending_with(undo.pop_all().close)

    def document(state: str, study: str, file: InstanceFile) -> Content | Response | None:
        """A film, PDF or report as what it is, for who asks for that."""
        best = next((a for a in accepted() if a.content != ANY), None)
        if best is None or best.content.startswith("image/"):
            return None
        stored = remembered.instance(state, study, file.series, file.sop_instance)
        attributes = stored.attributes
        if best.fits("text/html") and CONTENT in attributes:
            answer = Response(html_of(attributes), content_type="text/html; charset=utf-8")
            answer.headers["Content-Security-Policy"] = "default-src 'none'; sandbox"
            return answer
        value = None
        if best.fits("application/pdf") and text(attributes, "00420012") == "application/pdf":
            value = bulk.document(stored, blobs)
        elif best.content.startswith("video/") and stored.frames is not None and stored.frames.encapsulated:
            value = bulk.bulk_value(stored, bulk.PIXEL_DATA, blobs)
        if value is None or not best.fits(value.media_type):
            return None
        return value.content()


def _shows(state: str, file: InstanceFile) -> str:
    """What a picture of this file depends on, beside how it is asked for."""
    return _key(presentation.shown_state(file.sop_class, state), file.blob_key)


def _key(state: str | None, blob_key: str) -> str:
    return blob_key if state is None else f"{state} {blob_key}"


def middle(files: list[InstanceFile]) -> InstanceFile:
    """The instance that stands for the others: the one in the middle of the (first) series."""
    first = [file for file in files if file.series == files[0].series]
    return first[len(first) // 2]


def accepted() -> list[Accepted]:
    """What the client accepts: the query parameter is for those that cannot set a header. PS3.18 section 8.3.3.1."""
    # An unencoded `+` in a query is a blank, and viewers leave it so.
    named = ",".join(_BLANK.sub("+", value) for value in request.args.getlist("accept"))
    return parse_accept(named, request.headers.get("Accept"))


def _wants_parts(media_type: str) -> bool:
    """Whether what the client likes best comes in parts."""
    return next((a.media_type == MULTIPART for a in accepted() if a.fits(media_type)), False)


def parse_annotation(given: str) -> tuple[str, ...]:
    """`patient,technique`. PS3.18 section 8.3.5.1.1. Raises BadRequest."""
    annotation = tuple(part.strip().lower() for part in given.split(",") if part.strip())
    if not set(annotation) <= set(ANNOTATIONS):
        raise BadRequest("annotation takes patient, technique, or both separated by a comma")
    return annotation


def _rendering(viewport: Viewport | None) -> Rendering:
    """What the query parameters of a rendered image ask for. PS3.18 section 8.3.5.1. Raises BadRequest."""
    given = request.args
    media_type = choose(accepted(), OFFERS, "a rendered image")
    quality = given.get("quality", "").strip() or "90"
    if not (quality.isascii() and quality.isdigit() and 1 <= int(quality[:4]) <= 100):
        raise BadRequest("quality is a number from 1 to 100")
    window = parse_window(given["window"]) if given.get("window", "").strip() else None
    if given.get("viewport", "").strip():
        viewport = _viewport(given["viewport"])
    annotation = parse_annotation(given.get("annotation", ""))
    profile = given.get("iccprofile", "").strip().lower() or "no"
    if profile not in PROFILES:
        raise BadRequest(f"iccprofile takes one of {', '.join(PROFILES)}")
    return Rendering(media_type, int(quality), window, viewport, profile, annotation)


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
