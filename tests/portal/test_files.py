"""Photos, PDFs and films that an office or the front desk adds to a referral."""

from collections.abc import Callable
from io import BytesIO

import numpy as np
import pydicom
import pytest
from PIL import Image

from dicomweb.blobs import BlobStore
from dicomweb.imaging_study import is_attached
from dicomweb.store import DicomStore
from fhir_server.repository import Repository
from tests.dicomweb.test_pictures import PDF
from tests.dicomweb.test_wrap import a_film, box
from tests.portal.conftest import HILLCREST, LAKESIDE, SYSTEM, Person, Referral, an_office

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
