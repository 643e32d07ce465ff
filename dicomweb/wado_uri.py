"""WADO-URI at /wado: one object by its UIDs in the query, for older viewers and links. PS3.18 section 9."""

from dataclasses import dataclass
from functools import partial

from flask import Blueprint, Response, request

from dicomweb import wado
from dicomweb.accept import ANY, DICOM, Accepted, parse_accept
from dicomweb.blobs import BlobStore
from dicomweb.content import Content
from dicomweb.delivery import tell_of_missing_objects, unless_known
from dicomweb.dicom_json import integer
from dicomweb.display import Window
from dicomweb.drawing import MAX_VIEWPORT, Viewport
from dicomweb.pool import PixelPool
from dicomweb.records import StoredInstance
from dicomweb.render import JPEG, PNG, Rendering
from dicomweb.rendered_routes import parse_annotation
from dicomweb.store import DicomStore
from dicomweb.uids import check_uid
from dicomweb.views import Views
from fhir_server.errors import BadRequest, NotAcceptable
from fhir_server.http import current_access

IMAGING = "ImagingStudy"
# Parameters that would make the answer another one than we can give, and are not to be passed over in silence.
_REFUSED = ("presentationUID", "presentationSeriesUID")


def create_blueprint(store: DicomStore, blobs: BlobStore, pool: PixelPool, base_url: str) -> Blueprint:
    """base_url: public address of the DICOMweb service, without a slash at its end."""
    uri = Blueprint("wado_uri", __name__)
    tell_of_missing_objects(uri, store)

    @uri.get("/wado")
    def retrieve() -> Response:
        access = current_access()
        access.require_every("read", IMAGING)
        if _given("requestType") != "WADO":
            raise BadRequest("requestType is WADO")
        study = check_uid(_given("studyUID"), "studyUID")
        series = check_uid(_given("seriesUID"), "seriesUID")
        sop_instance = check_uid(_given("objectUID"), "objectUID")
        store.check_visible(access, study)
        stored = store.instance(study, series, sop_instance)
        media_type = _media_type(stored)
        if media_type == DICOM:
            return unless_known(stored.blob_key, lambda: _object(stored))
        frame, wanted = _frame_number(), _rendering(stored, media_type)

        def make() -> Response:
            views = Views(blobs, pool, partial(store.instance, study))
            return Response(views.view(stored, frame, wanted), content_type=media_type)

        return unless_known(stored.blob_key, make)

    def _object(stored: StoredInstance) -> Content:
        if _given("anonymize"):
            raise NotAcceptable("objects are sent as they are stored, with what they say of the patient")
        files = store.files(stored.study, stored.series, stored.sop_instance)
        wanted = Accepted(DICOM, transfer_syntax=_given("transferSyntax") or None)
        base = f"{base_url}/studies/{stored.study}"
        return wado.instance_files(blobs, files, [wanted], base, lambda _file: stored, pool)

    return uri


def _given(name: str) -> str:
    return request.args.get(name, "").strip()


def _media_type(stored: StoredInstance) -> str:
    """What to send: as asked for, else an image of one frame as JPEG, and all else as the object. Section 9.1.2.2."""
    frames = stored.frames.count if stored.frames else 0
    default = JPEG if frames == 1 or (frames and _given("frameNumber")) else DICOM
    asked = request.args.get("contentType") or request.headers.get("Accept")
    offers = [default, *({DICOM, JPEG, PNG} - {default} if frames else ())]
    for wanted in parse_accept(asked):
        for offer in sorted(offers, key=lambda offer: (offer != default, offer != JPEG)):
            if wanted.fits(offer) or wanted.content == ANY:
                return offer
    raise NotAcceptable(f"this object is available as {', '.join(sorted(offers))}")


def _frame_number() -> int:
    numbers = wado.parse_frame_numbers(_given("frameNumber") or "1")
    if len(numbers) != 1:
        raise BadRequest("frameNumber is one number")
    return numbers[0]


def _rendering(stored: StoredInstance, media_type: str) -> Rendering:
    """The presentation that the parameters ask for. Raises BadRequest."""
    if refused := [name for name in _REFUSED if _given(name)]:
        raise BadRequest(f"{refused[0]} is not supported here")
    quality = _whole("imageQuality", 100) or 90
    center, width = _given("windowCenter"), _given("windowWidth")
    window = None
    if center or width:
        try:
            window = Window(float(center), float(width))
        except ValueError:
            raise BadRequest("windowCenter and windowWidth are numbers, and go together") from None
        if not window.valid:
            raise BadRequest("windowWidth is 1 or more")
    annotation = parse_annotation(_given("annotation"))
    return Rendering(media_type, quality, window, _viewport(stored), annotation=annotation)


@dataclass(frozen=True, slots=True)
class _Region:
    """In pixels of the source."""

    x: float
    y: float
    width: float
    height: float


def _viewport(stored: StoredInstance) -> Viewport | None:
    """The part of the image and the size it is scaled to. Sections 9.1.2.3.1, .2 and .5."""
    rows, columns, region = _whole("rows", MAX_VIEWPORT), _whole("columns", MAX_VIEWPORT), _region(stored)
    if rows is None and columns is None and region is None:
        return None
    if rows is None and columns is None and region is not None:
        columns, rows = max(1, round(region.width)), max(1, round(region.height))
    # Where only one side is given, the other follows from the image.
    width, height = min(columns or MAX_VIEWPORT, MAX_VIEWPORT), min(rows or MAX_VIEWPORT, MAX_VIEWPORT)
    if region is None:
        return Viewport(width, height)
    return Viewport(width, height, region.x, region.y, region.width, region.height)


def _region(stored: StoredInstance) -> _Region | None:
    """`left,top,right,bottom` as fractions of the image."""
    given = _given("region")
    if not given:
        return None
    try:
        left, top, right, bottom = (float(part) for part in given.split(","))
    except ValueError:
        raise BadRequest("region takes left,top,right,bottom, each from 0 to 1") from None
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise BadRequest("region takes left,top,right,bottom, each from 0 to 1")
    attributes = stored.attributes
    height, width = integer(attributes, "00280010", 1) or 1, integer(attributes, "00280011", 1) or 1
    return _Region(left * width, top * height, (right - left) * width, (bottom - top) * height)


def _whole(name: str, most: int) -> int | None:
    """A number from 1 to `most`; None when it is not given."""
    given = _given(name)
    if not given:
        return None
    if not (given.isascii() and given.isdigit() and len(given) <= 6 and 1 <= int(given) <= most):
        raise BadRequest(f"{name} is a number from 1 to {most}")
    return int(given)
