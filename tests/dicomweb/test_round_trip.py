"""What a modality stores, a viewer finds and fetches, with dicomweb-client over real HTTP."""

from io import BytesIO

import numpy as np
import pydicom
import pytest
import requests
from dicomweb_client.api import DICOMwebClient
from PIL import Image
from pydicom.dataset import Dataset

from dicomweb.blobs import BlobStore
from tests.dicomweb.conftest import BASE, CT_SERIES


@pytest.fixture(scope="module")
def series() -> list[Dataset]:
    return [pydicom.dcmread(file) for file in sorted(CT_SERIES.glob("*.dcm"))]


def test_a_ct_series_comes_back_as_it_was_stored(served: str, series: list[Dataset], blobs: BlobStore) -> None:
    client = DICOMwebClient(served)
    study, uid = series[0].StudyInstanceUID, series[0].SeriesInstanceUID
    answer = client.store_instances(series, study_instance_uid=study)
    assert "FailedSOPSequence" not in answer
    assert [item.ReferencedSOPInstanceUID for item in answer.ReferencedSOPSequence] == [
        slice_.SOPInstanceUID for slice_ in series
    ]
    assert answer.RetrieveURL == f"{BASE}/studies/{study}"

    (found,) = client.search_for_studies(search_filters={"StudyInstanceUID": study})
    assert found["00201206"]["Value"] == [1]
    assert found["00201208"]["Value"] == [3]
    assert found["00080061"]["Value"] == ["CT"]
    (found_series,) = client.search_for_series(study)
    assert found_series["0020000E"]["Value"] == [uid]
    assert found_series["00201209"]["Value"] == [3]
    numbers = [instance["00200013"]["Value"][0] for instance in client.search_for_instances(study, uid)]
    assert numbers == sorted(int(slice_.InstanceNumber) for slice_ in series)

    metadata = client.retrieve_series_metadata(study, uid)
    assert len(metadata) == 3
    assert client.retrieve_study_metadata(study) == metadata
    for slice_ in series:
        sop = slice_.SOPInstanceUID
        described = client.retrieve_instance_metadata(study, uid, sop)
        assert Dataset.from_json(described).ImagePositionPatient == slice_.ImagePositionPatient
        (frame,) = client.retrieve_instance_frames(study, uid, sop, [1])
        assert frame == slice_.PixelData
        assert client.retrieve_bulkdata(described["7FE00010"]["BulkDataURI"].replace(BASE, served)) == [frame]
        retrieved = client.retrieve_instance(study, uid, sop)
        assert (retrieved.SOPInstanceUID, retrieved.PixelData) == (sop, slice_.PixelData)

    assert {instance.SOPInstanceUID for instance in client.retrieve_study(study)} == {
        s.SOPInstanceUID for s in series
    }
    assert len(client.retrieve_series(study, uid)) == 3


def test_an_instance_is_sent_byte_for_byte(served: str) -> None:
    file = (CT_SERIES / "ct-1.dcm").read_bytes()
    dataset = pydicom.dcmread(BytesIO(file))
    client = DICOMwebClient(served)
    body = b"--b\r\nContent-Type: application/dicom\r\n\r\n" + file + b"\r\n--b--"
    headers = {"Content-Type": "multipart/related; type=application/dicom; boundary=b"}
    assert requests.post(f"{served}/studies", data=body, headers=headers, timeout=10).status_code == 200
    address = f"{served}/studies/{dataset.StudyInstanceUID}"
    as_stored = 'multipart/related; type="application/dicom"; transfer-syntax=*'
    answer = requests.get(address, headers={"Accept": as_stored}, timeout=10)
    assert int(answer.headers["Content-Length"]) == len(answer.content)
    assert file in answer.content
    instance = f"{address}/series/{dataset.SeriesInstanceUID}/instances/{dataset.SOPInstanceUID}"
    alone = requests.get(instance, headers={"Accept": "application/dicom; transfer-syntax=*"}, timeout=10)
    assert alone.content == file
    assert alone.headers["Content-Type"] == "application/dicom; transfer-syntax=1.2.840.10008.1.2"
    assert len(client.search_for_instances()) == 1


def test_a_rendered_slice_shows_the_window_of_the_object(served: str, series: list[Dataset]) -> None:
    client = DICOMwebClient(served)
    slice_ = series[0]
    client.store_instances([slice_])
    uids = slice_.StudyInstanceUID, slice_.SeriesInstanceUID, slice_.SOPInstanceUID
    png = client.retrieve_instance_rendered(*uids, media_types=("image/png",))
    shown = np.asarray(Image.open(BytesIO(png))).astype(int)
    center, width = float(np.ravel(slice_.WindowCenter)[0]), float(np.ravel(slice_.WindowWidth)[0])
    values = slice_.pixel_array * float(slice_.RescaleSlope) + float(slice_.RescaleIntercept)
    expected = np.clip(((values - (center - 0.5)) / (width - 1) + 0.5) * 255, 0, 255)
    assert np.abs(shown - expected).max() <= 0.5
    jpeg = client.retrieve_instance_rendered(*uids, media_types=("image/jpeg",))
    with Image.open(BytesIO(jpeg)) as image:
        assert (image.format, image.size) == ("JPEG", (512, 512))
        assert np.abs(np.asarray(image).astype(int) - shown).mean() < 3
