"""Photos, PDFs and films that an office or the front desk adds to a referral."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from io import BytesIO
from zoneinfo import ZoneInfo

import numpy as np
import pydicom
import pytest
from flask import Flask
from PIL import Image

import dicomweb.audit
from dicomweb.attach import Attachments
from dicomweb.blobs import BlobStore
from dicomweb.corrections import Corrections
from dicomweb.dicom_json import text
from dicomweb.imaging_study import is_attached, started
from dicomweb.multipart import Part
from dicomweb.store import DicomStore
from dicomweb.stow import store_instances
from fhir_server.audit.service import Audit
from fhir_server.repository import Repository
from portal.referral_routes import IMAGES
from tests.dicomweb.conftest import a_slice, file_of
from tests.dicomweb.test_pictures import PDF
from tests.dicomweb.test_wrap import a_film, box
from tests.portal.conftest import HILLCREST, LAKESIDE, MONDAY, SYSTEM, Person, Referral, an_office

PIXELS = np.zeros((6, 9, 3), "u1")
PIXELS[:, 6:] = 200


def a_photo(orientation: int = 1) -> bytes:
    """Taken at a place that Exif tells."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif.get_ifd(0x8825)[1] = "N"
    exif.get_ifd(0x8825)[2] = (47.0, 22.0, 11.0)
    file = BytesIO()
    Image.fromarray(PIXELS).save(file, "JPEG", exif=exif, comment=b"GPS 47.37", quality=95)
    return file.getvalue()


@pytest.fixture
def files(studies: DicomStore, blobs: BlobStore, repository: Repository) -> Callable[[], list[pydicom.Dataset]]:
    """What is stored."""

    def stored() -> list[pydicom.Dataset]:
        found = []
        for file in studies.indexed_files():
            with blobs.open(file.blob_key) as source:
                found.append(pydicom.dcmread(BytesIO(source.read())))
        return found

    return stored


def send(person: Person, referral: Referral, content: bytes, name: str = "IMG_1.JPG") -> None:
    """Choose a file in the referral's page and send the form."""
    person.open(f"/referrals/{referral.id}")
    form = next(form for form in person.forms if form.action.endswith("/files"))
    person.html = ""
    response = person.browser.post(
        form.action,
        data=form.fields | {"file": (BytesIO(content), name, "text/plain")},
        content_type="multipart/form-data",
        headers={"Accept": "text/html"},
    )
    person.status = response.status_code
    person.html = person.open(response.location) if response.status_code == 303 else response.text


def attached(repository: Repository, order: str) -> list[dict]:
    found = repository.search(an_office(LAKESIDE), "ImagingStudy", [("basedon", order)], strict=True)
    return [version.resource() for version in found.matches]


def test_a_photo_of_the_office_is_with_its_referral(
    person: Callable, refer: Callable, project: Callable, files: Callable, repository: Repository
) -> None:
    referral, ruth = refer(), person("ruth")
    send(ruth, referral, a_photo())
    assert "The file is with the referral" in ruth.html
    project()
    (study,) = attached(repository, referral.order)
    assert is_attached(study)
    assert (study["subject"]["reference"], study["numberOfInstances"]) == (referral.patient, 1)
    (dataset,) = files()
    assert dataset.SOPClassUID.name == "VL Photographic Image Storage"
    assert (str(dataset.PatientName), dataset.PatientID) == ("Muster^Pat", referral.patient.partition("/")[2])
    assert "1 file sent with the referral" in ruth.open(f"/referrals/{referral.id}")
    hillcrest = repository.search(an_office(HILLCREST), "ImagingStudy", [], strict=True)
    assert hillcrest.matches == []


def test_it_is_no_proof_of_an_exam(
    person: Callable, refer: Callable, project: Callable, repository: Repository
) -> None:
    referral, ruth = refer(), person("ruth")
    before = repository.read(SYSTEM, "Task", referral.id).version
    send(ruth, referral, a_photo())
    project()
    project()
    assert repository.read(SYSTEM, "Task", referral.id).version == before


def test_where_it_was_taken_is_removed_and_what_is_turned_is_upright(
    person: Callable, refer: Callable, files: Callable
) -> None:
    referral, ruth = refer(), person("ruth")
    assert b"Exif" in a_photo()
    send(ruth, referral, a_photo())
    (dataset,) = files()
    assert b"Exif" not in dataset.PixelData
    assert b"GPS" not in dataset.PixelData
    assert (dataset.Rows, dataset.Columns) == (6, 9)
    turned = refer()
    send(ruth, turned, a_photo(orientation=6))
    dataset = next(one for one in files() if one.PatientID == turned.patient.partition("/")[2])
    assert (dataset.Rows, dataset.Columns, dataset.LossyImageCompression) == (9, 6, "01")
    assert b"Exif" not in dataset.PixelData
    right = np.frombuffer(dataset.PixelData, "u1")[: 9 * 6 * 3].reshape(9, 6, 3)
    assert right[-1].mean() > 150 > 50 > right[0].mean()  # the bright edge, right of the sensor, is at the bottom


def test_a_pdf_and_a_film(person: Callable, refer: Callable, files: Callable, repository: Repository) -> None:
    referral, frida = refer(), person("frida")
    place = box(b"udta", box(b"\xa9xyz", b"+47.3769+008.5417/"))
    film = a_film() + box(b"moov", place)
    send(frida, referral, PDF, "letter.exe")
    send(frida, referral, film, "film.pdf")
    by_class = {dataset.SOPClassUID.name: dataset for dataset in files()}
    assert by_class["Encapsulated PDF Storage"].EncapsulatedDocument.startswith(PDF)
    stored = by_class["Video Photographic Image Storage"].PixelData
    assert b"+47.3769" not in stored
    assert b"mdat" in stored
    assert len({dataset.StudyInstanceUID for dataset in by_class.values()}) == 1


def test_the_same_file_again_is_one(person: Callable, refer: Callable, files: Callable, clock: object) -> None:
    referral, ruth = refer(), person("ruth")
    send(ruth, referral, a_photo())
    send(ruth, referral, a_photo())
    assert ruth.status == 200
    assert len(files()) == 1


@pytest.mark.parametrize(
    ("content", "status"),
    [(b"", 415), (b"MZ" + bytes(100), 415), (a_photo()[:40], 400), (PDF + bytes(3 * 2**20), 413), (b"GIF89a", 415)],
)
def test_what_is_none_of_these_is_refused(
    person: Callable, refer: Callable, files: Callable, content: bytes, status: int
) -> None:
    ruth = person("ruth")
    send(ruth, refer(), content)
    assert (ruth.status, files()) == (status, [])


def test_nobody_adds_to_the_referral_of_another_office(person: Callable, refer: Callable, files: Callable) -> None:
    referral, otto, ruth = refer(), person("otto"), person("ruth")
    ruth.open(f"/referrals/{referral.id}")
    action = f"/referrals/{referral.id}/files"
    otto.open("/referrals")
    response = otto.browser.post(
        action,
        data={"csrf_token": otto.csrf, "file": (BytesIO(a_photo()), "a.jpg")},
        content_type="multipart/form-data",
        headers={"Accept": "text/html"},
    )
    assert (response.status_code, files()) == (404, [])


def links(person: Person, referral: Referral) -> list[str]:
    """The files that the referral's page opens."""
    return re.findall(rf'href="(/referrals/{referral.id}/files/[^"]+)"', person.open(f"/referrals/{referral.id}"))


def test_each_file_is_opened_from_the_referrals_page(person: Callable, refer: Callable, project: Callable) -> None:
    """As what it was: a photo as a JPEG (one that was turned, upright), a letter as a PDF, a film in pieces."""
    referral, ruth = refer(), person("ruth")
    film = a_film()
    for content in (a_photo(), a_photo(orientation=6), PDF, film):
        send(ruth, referral, content)
    project()
    assert "4 files sent with the referral" in ruth.open(f"/referrals/{referral.id}")
    got = [ruth.browser.get(link) for link in links(ruth, referral)]
    assert [one.status_code for one in got] == [200] * 4
    by_type: dict[str, list[bytes]] = {}
    for one in got:
        by_type.setdefault(one.headers["Content-Type"], []).append(one.data)
        assert one.headers["Content-Disposition"].startswith("inline; filename=")
        assert "script" not in one.headers["Content-Security-Policy"]
        assert one.headers["X-Content-Type-Options"] == "nosniff"
    assert by_type.keys() == {"image/jpeg", "application/pdf", "video/mp4"}
    assert sorted(Image.open(BytesIO(photo)).size for photo in by_type["image/jpeg"]) == [(6, 9), (9, 6)]
    assert not any(b"GPS" in photo for photo in by_type["image/jpeg"])
    assert by_type["application/pdf"] == [PDF]
    assert by_type["video/mp4"][0].rstrip(b"\0") == film
    link = next(link for link, one in zip(links(ruth, referral), got, strict=True) if "video" in one.content_type)
    piece = ruth.browser.get(link, headers={"Range": "bytes=4-7"})
    assert (piece.status_code, piece.data) == (206, b"ftyp")
    known = ruth.browser.get(link, headers={"If-None-Match": piece.headers["ETag"]})
    assert (known.status_code, known.data) == (304, b"")


def test_staff_opens_them_and_nobody_elses_office_does(person: Callable, refer: Callable, project: Callable) -> None:
    referral, other, ruth = refer(), refer(), person("ruth")
    send(ruth, referral, a_photo())
    project()
    (link,) = links(ruth, referral)
    (seen,) = links(frida := person("frida"), referral)
    assert (seen, frida.browser.get(link).status_code) == (link, 200)
    assert person("otto").browser.get(link).status_code == 404
    page = ruth.browser.get(link.replace(referral.id, other.id), headers={"Accept": "text/html"})
    assert (page.status_code, page.mimetype) == (404, "text/html")
    assert ruth.browser.get(f"{link}.1").status_code == 404


def test_the_images_of_the_exam_are_no_file_of_the_referral(
    person: Callable, refer: Callable, project: Callable, studies: DicomStore, blobs: BlobStore
) -> None:
    referral, ruth = refer(), person("ruth")
    slice_ = a_slice()
    part = Part({"content-type": "application/dicom"}, [file_of(slice_)])
    assert store_instances(studies, blobs, [part], "application/dicom", None, 2**20).status == 200
    corrections = Corrections(studies, blobs, lambda: MONDAY, lambda _act: None)
    uid, patient = str(slice_.StudyInstanceUID), {"id": referral.patient.partition("/")[2]}
    corrections.assign("frida", uid, studies.state(uid), patient, referral.order)
    project()
    project()
    assert "Images" in ruth.open(f"/referrals/{referral.id}")
    assert links(ruth, referral) == []
    where = f"{slice_.StudyInstanceUID}/{slice_.SeriesInstanceUID}/{slice_.SOPInstanceUID}"
    assert ruth.browser.get(f"/referrals/{referral.id}/files/{where}").status_code == 404


def test_who_opens_a_file_is_in_the_audit_trail(
    app: Flask,
    person: Callable,
    refer: Callable,
    project: Callable,
    studies: DicomStore,
    audit: Audit,
    audited: Callable[..., list[dict]],
) -> None:
    dicomweb.audit.install(app, audit.trail, studies, IMAGES)
    referral, ruth = refer(), person("ruth")
    send(ruth, referral, a_photo())
    project()
    (link,) = links(ruth, referral)
    assert ruth.browser.get(link).status_code == 200
    assert person("otto").browser.get(link).status_code == 404
    seen, refused = audited("type=110103")
    named = {entity["what"]["reference"] for entity in seen["entity"] if "reference" in entity.get("what", {})}
    assert referral.patient in named
    assert (seen["outcome"], refused["outcome"]) == ("0", "4")


def test_when_a_file_was_added_has_its_zone(studies: DicomStore, blobs: BlobStore) -> None:
    """Half an hour after midnight in the practice it is the day before in Greenwich."""
    moment = datetime(2026, 7, 1, 0, 30, tzinfo=ZoneInfo("Europe/Zurich"))
    Attachments(studies, blobs, 2**20, lambda: moment).add(BytesIO(PDF), "ServiceRequest/o", {"id": "p"})
    (found,) = studies.search("series", SYSTEM, [], 10, 0)
    assert (text(found, "00080020"), text(found, "00080201")) == ("20260701", "+0200")
    assert started(found, ZoneInfo("America/New_York")) == "2026-07-01T00:30:00+02:00"
    assert started(found, UTC, "00080021", "00080031") == "2026-07-01T00:30:00+02:00"
