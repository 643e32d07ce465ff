"""WADO-URI. PS3.18 section 9."""

from io import BytesIO

import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image
from pydicom.dataset import Dataset
from werkzeug.test import TestResponse

from tests.dicomweb.conftest import Stow, a_slice, an_office, file_of


@pytest.fixture
def image(stow: Stow) -> Dataset:
    """40 wide, 20 high: 0 on the left half, 1000 on the right one."""
    pixels = np.zeros((20, 40), "<i2")
    pixels[:, 20:] = 1000
    dataset = a_slice(Rows=20, Columns=40, pixels=pixels, RescaleIntercept="0")
    assert stow(dataset).status_code == 200
    return dataset


def get(client: FlaskClient, dataset: Dataset, **parameters: str | None) -> TestResponse:
    query = {
        "requestType": "WADO",
        "studyUID": dataset.StudyInstanceUID,
        "seriesUID": dataset.SeriesInstanceUID,
        "objectUID": dataset.SOPInstanceUID,
    } | parameters
    return client.get("/wado", query_string={name: value for name, value in query.items() if value is not None})


def picture(answer: TestResponse) -> Image.Image:
    assert answer.status_code == 200, answer.text
    return Image.open(BytesIO(answer.data))


def test_an_image_of_one_frame_is_a_jpeg_unless_asked_otherwise(client: FlaskClient, image: Dataset) -> None:
    answer = get(client, image)
    assert answer.headers["Content-Type"] == "image/jpeg"
    assert picture(answer).size == (40, 20)
    png = get(client, image, contentType="image/png")
    assert (png.headers["Content-Type"], picture(png).format) == ("image/png", "PNG")
    assert get(client, image, contentType="image/*").headers["Content-Type"] == "image/jpeg"
    assert get(client, image, contentType="image/gif, image/png;q=0.5").headers["Content-Type"] == "image/png"


def test_the_object_as_it_is_stored(client: FlaskClient, image: Dataset) -> None:
    for syntax in (None, "1.2.840.10008.1.2.1"):
        answer = get(client, image, contentType="application/dicom", transferSyntax=syntax)
        assert answer.headers["Content-Type"].startswith("application/dicom")
        assert answer.data == file_of(image)


def test_what_is_no_image_of_one_frame_is_the_object(client: FlaskClient, stow: Stow) -> None:
    report, frames = a_slice(pixels=None), a_slice(NumberOfFrames=3, pixels=np.arange(36, dtype="<i2"))
    stow(report, frames)
    assert get(client, report).data == file_of(report)
    assert get(client, frames).data == file_of(frames)
    assert get(client, frames, frameNumber="2").headers["Content-Type"] == "image/jpeg"
    assert get(client, report, contentType="image/jpeg").status_code == 406
    assert get(client, frames, frameNumber="4", contentType="image/png").status_code == 404


def test_size_region_and_window(client: FlaskClient, image: Dataset) -> None:
    png = {"contentType": "image/png"}
    assert picture(get(client, image, columns="20", **png)).size == (20, 10)
    assert picture(get(client, image, rows="40", **png)).size == (80, 40)
    assert picture(get(client, image, rows="10", columns="10", **png)).size == (10, 5)
    right = picture(get(client, image, region="0.5,0,1,1", windowCenter="500", windowWidth="1000", **png))
    assert right.size == (20, 20)
    assert right.getextrema() == (255, 255)
    assert picture(get(client, image, region="0,0,0.5,0.5", rows="100", **png)).size == (200, 100)
    assert picture(get(client, image, windowCenter="1000", windowWidth="4000", **png)).getpixel((39, 0)) == 128


@pytest.mark.parametrize(
    "parameters",
    [
        {"requestType": None},
        {"requestType": "QIDO"},
        {"objectUID": None},
        {"studyUID": "../x"},
        {"frameNumber": "0", "contentType": "image/jpeg"},
        {"frameNumber": "1,2"},
        {"rows": "0"},
        {"columns": "-5"},
        {"rows": "1e3"},
        {"region": "0,0,1"},
        {"region": "0.5,0,0.5,1"},
        {"region": "0,0,2,1"},
        {"region": "nan,0,1,1"},
        {"windowCenter": "40"},
        {"windowCenter": "40", "windowWidth": "0"},
        {"windowCenter": "nan", "windowWidth": "5"},
        {"imageQuality": "101"},
        {"presentationUID": "1.2.3"},
    ],
)
def test_what_cannot_be_understood_is_400(
    client: FlaskClient, image: Dataset, parameters: dict[str, str | None]
) -> None:
    answer = get(client, image, **parameters)
    assert answer.status_code == 400
    assert answer.json["resourceType"] == "OperationOutcome"


def test_what_is_not_here_is_404_and_what_does_not_fit_406(client: FlaskClient, image: Dataset) -> None:
    assert get(client, image, objectUID="9.9").status_code == 404
    assert get(client, image, studyUID="9.9").status_code == 404
    assert get(client, image, contentType="text/html").status_code == 406
    assert get(client, image, contentType="application/dicom", anonymize="yes").status_code == 406
    syntax = "1.2.840.10008.1.2.4.999"
    assert get(client, image, contentType="application/dicom", transferSyntax=syntax).status_code == 406


def test_who_may_not_see_the_study_does_not_see_it_here(app: Flask, client: FlaskClient, image: Dataset) -> None:
    app.config["ACCESS"] = an_office("lakeside")
    assert get(client, image).status_code == 404
    app.config["ACCESS"] = None
    assert get(client, image).status_code == 401


def test_what_a_client_has_costs_no_bytes(client: FlaskClient, image: Dataset) -> None:
    first = get(client, image)
    known = {"If-None-Match": first.headers["ETag"]}
    assert client.get(first.request.full_path, headers=known).status_code == 304
