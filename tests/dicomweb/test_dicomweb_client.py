"""dicomweb-client, as it is, with everything it can: what a viewer written against the standard relies on."""

from io import BytesIO

import numpy as np
import pydicom
import pytest
import requests
from dicomweb_client.api import DICOMwebClient
from pydicom.dataset import Dataset
from pydicom.uid import JPEG2000Lossless, generate_uid

from tests.dicomweb.conftest import BASE, DATA, a_slice, file_of

UTF_8 = {"SpecificCharacterSet": "ISO_IR 192"}
STUDY = "1.2.826.0.1.3680043.8.498.1"
OCTETS = "application/octet-stream"


def a_file(**values: object) -> Dataset:
    """A slice as it is read from a file, with the preamble that the client writes again."""
    return pydicom.dcmread(BytesIO(file_of(a_slice(**values))))


@pytest.fixture
def client(served: str) -> DICOMwebClient:
    return DICOMwebClient(served)


@pytest.fixture
def stored(client: DICOMwebClient) -> list[Dataset]:
    """Two series of one study, and another study."""
    slices = [
        *(a_file(InstanceNumber=number, SOPInstanceUID=f"1.2.3.{number}") for number in range(1, 6)),
        a_file(SeriesInstanceUID="1.2.3.4", SOPInstanceUID="1.2.3.4.1", Modality="PT", SeriesNumber=2),
        a_file(StudyInstanceUID="1.9", SeriesInstanceUID="1.9.1", PatientName="Müller^Jörg", **UTF_8),
    ]
    answer = client.store_instances(slices)
    assert len(answer.ReferencedSOPSequence) == len(slices)
    return slices


def test_every_level_is_searched_with_keys_fields_and_pages(client: DICOMwebClient, stored: list[Dataset]) -> None:
    found = client.search_for_studies(search_filters={"PatientName": "mueller"}, fuzzymatching=True)
    assert found == []
    (found_study,) = client.search_for_studies(search_filters={"PatientName": "jorg mul"}, fuzzymatching=True)
    assert found_study["0020000D"]["Value"] == ["1.9"]
    assert (
        len(client.search_for_studies(search_filters={"0020000D": f"{STUDY},1.9"}, fields=["StudyDescription"])) == 2
    )
    assert len(client.search_for_series(search_filters={"Modality": "PT", "StudyDate": "20240101-20240201"})) == 1
    assert len(client.search_for_instances(STUDY, limit=2)) == 2
    assert len(client.search_for_instances(STUDY, limit=2, get_remaining=True)) == 6
    with pytest.raises(requests.HTTPError, match="400"):
        client.search_for_studies(search_filters={"ImageComments": "x"})


def test_whole_objects_one_after_the_other_or_together(client: DICOMwebClient, stored: list[Dataset]) -> None:
    assert {one.SOPInstanceUID for one in client.iter_study(STUDY)} == {s.SOPInstanceUID for s in stored[:6]}
    assert [one.InstanceNumber for one in client.iter_series(STUDY, stored[0].SeriesInstanceUID)] == [1, 2, 3, 4, 5]
    any_syntax = (("application/dicom", "*"),)
    assert client.retrieve_study(STUDY, media_types=any_syntax)[0].PixelData == stored[0].PixelData
    assert [one.Modality for one in client.retrieve_series(STUDY, "1.2.3.4")] == ["PT"]
    uids = STUDY, stored[0].SeriesInstanceUID, stored[0].SOPInstanceUID
    named = (("application/dicom", "1.2.840.10008.1.2.1"),)
    assert client.retrieve_instance(*uids, media_types=named).PixelData == stored[0].PixelData


def test_metadata_names_bulk_data_that_can_be_had_in_pieces(
    client: DICOMwebClient, stored: list[Dataset], served: str
) -> None:
    (described,) = client.retrieve_series_metadata(STUDY, "1.2.3.4")
    url = described["7FE00010"]["BulkDataURI"].replace(BASE, served)
    assert client.retrieve_instance_metadata(STUDY, "1.2.3.4", "1.2.3.4.1") == described
    assert len(client.retrieve_study_metadata(STUDY)) == 6
    pixels = stored[5].PixelData
    assert client.retrieve_bulkdata(url) == [pixels]
    assert b"".join(client.iter_bulkdata(url)) == pixels
    headers = {"Accept": OCTETS, "Range": "bytes=4-7"}
    assert requests.get(url, headers=headers, timeout=10).content == pixels[4:8]


def test_frames_in_the_syntax_that_is_asked_for(client: DICOMwebClient) -> None:
    compressed = pydicom.dcmread(DATA / "MR_small_jp2klossless.dcm")
    compressed.SOPInstanceUID = compressed.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    client.store_instances([compressed])
    uids = compressed.StudyInstanceUID, compressed.SeriesInstanceUID, compressed.SOPInstanceUID
    plain = pydicom.dcmread(DATA / "MR_small.dcm").pixel_array
    (frame,) = client.retrieve_instance_frames(*uids, [1], media_types=((OCTETS, "1.2.840.10008.1.2.1"),))
    assert np.array_equal(np.frombuffer(frame, "<i2").reshape(plain.shape), plain)
    (stream,) = client.iter_instance_frames(*uids, [1], media_types=(("image/jp2", JPEG2000Lossless),))
    assert stream == next(pydicom.encaps.generate_frames(compressed.PixelData, number_of_frames=1))
    (stream,) = client.retrieve_instance_frames(*uids, [1], media_types=(("image/*", "*"),))
    assert stream.startswith(b"\xff\x4f")


def test_rendered_frames_with_a_window(client: DICOMwebClient, stored: list[Dataset]) -> None:
    uids = STUDY, stored[0].SeriesInstanceUID, stored[0].SOPInstanceUID
    asked = {"window": "40,400,linear", "viewport": "64,64", "quality": 80}
    assert client.retrieve_instance_rendered(*uids, media_types=("image/jpeg",), params=asked).startswith(b"\xff\xd8")
    image = client.retrieve_instance_frames_rendered(*uids, [1], media_types=("image/png",))
    assert image.startswith(b"\x89PNG")
    assert client.retrieve_series_rendered(*uids[:2], media_types=("image/jpeg",)).startswith(b"\xff\xd8")


def test_everything_is_deleted_level_by_level(client: DICOMwebClient, stored: list[Dataset]) -> None:
    client.delete_instance(STUDY, stored[0].SeriesInstanceUID, stored[0].SOPInstanceUID)
    assert len(client.search_for_instances(STUDY)) == 5
    client.delete_series(STUDY, "1.2.3.4")
    assert len(client.search_for_series(STUDY)) == 1
    client.delete_study(STUDY)
    assert [study["0020000D"]["Value"] for study in client.search_for_studies()] == [["1.9"]]
    with pytest.raises(requests.HTTPError, match="410"):
        client.retrieve_study_metadata(STUDY)


def test_the_answer_to_storing_tells_of_each_instance(client: DICOMwebClient, stored: list[Dataset]) -> None:
    changed = a_file(SOPInstanceUID=stored[0].SOPInstanceUID, PatientName="Other")
    elsewhere = a_file(StudyInstanceUID="1.2.99")
    fresh = a_file(InstanceNumber=9)
    answer = client.store_instances([changed, elsewhere, fresh, stored[1]], study_instance_uid=STUDY)
    assert [item.ReferencedSOPInstanceUID for item in answer.ReferencedSOPSequence] == [
        fresh.SOPInstanceUID,
        stored[1].SOPInstanceUID,
    ]
    assert {item.ReferencedSOPInstanceUID for item in answer.FailedSOPSequence} == {
        changed.SOPInstanceUID,
        elsewhere.SOPInstanceUID,
    }
