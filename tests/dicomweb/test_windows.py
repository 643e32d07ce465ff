"""Metadata never has a window that PS3.3 C.11.2.1.2 excludes: a viewer that believes it shows a black image."""

import zlib

import orjson
import pytest
from flask.testing import FlaskClient
from pydicom.dataset import Dataset
from pymongo.database import Database

from dicomweb.failures import COERCED
from tests.dicomweb.conftest import Stow, a_slice, file_of
from tests.dicomweb.test_wado import address

WINDOW = {"00281050": "WindowCenter", "00281051": "WindowWidth", "00281055": "WindowCenterWidthExplanation"}


def told(client: FlaskClient, dataset: Dataset) -> dict:
    (found,) = client.get(f"{address(dataset)}/metadata").json
    return found


def a_window(**values: object) -> Dataset:
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item


@pytest.mark.parametrize(
    ("center", "width", "function"),
    [
        ("40", "0", None),
        ("40", "0.5", None),  # that is one for the other functions
        ("40", "-400", None),
        ("40", "0", "LINEAR_EXACT"),
        ("40", "-1", "SIGMOID"),
        ("40", "400", "CUBIC"),
        (None, "400", None),
        ("40", None, None),
        (["40", "50"], ["0", "-3"], None),
    ],
)
def test_what_is_no_window_is_left_out_and_told(
    center: str, width: str, function: str | None, stow: Stow, client: FlaskClient
) -> None:
    image = a_slice(
        WindowCenter=center, WindowWidth=width, VOILUTFunction=function, WindowCenterWidthExplanation="NORMAL"
    )
    answer = stow(image)
    assert answer.status_code == 202
    assert answer.json["00081199"]["Value"][0]["00081196"]["Value"] == [COERCED]
    assert not {*WINDOW, "00281056"} & told(client, image).keys()
    assert client.get(address(image), headers={"Accept": "application/dicom"}).data == file_of(image)


@pytest.mark.parametrize(
    ("center", "width", "function"),
    [
        ("40", "400", None),
        ("40", "1", "LINEAR"),
        ("0", "0.5", "LINEAR_EXACT"),
        ("0.5", "0.25", "SIGMOID"),
        (["40", "-600"], ["400", "1500"], None),
        ("", "", None),  # no value is no wrong one
    ],
)
def test_a_window_stays_as_it_is(
    center: str, width: str, function: str | None, stow: Stow, client: FlaskClient
) -> None:
    image = a_slice(WindowCenter=center, WindowWidth=width, VOILUTFunction=function)
    assert stow(image).status_code == 200
    kept = told(client, image)
    for tag, given in (("00281050", center), ("00281051", width)):
        values = given if isinstance(given, list) else [given] if given else []
        assert kept[tag].get("Value", []) == [float(value) for value in values]
    assert kept.get("00281056", {}).get("Value", [None]) == [function]


def test_of_several_the_good_ones_stay_with_what_explains_them(stow: Stow, client: FlaskClient) -> None:
    image = a_slice(
        WindowCenter=["0", "40", "-600"], WindowWidth=["0", "400", "1500"],
        WindowCenterWidthExplanation=["NONE", "SOFT", "LUNG"],
    )  # fmt: skip
    assert stow(image).status_code == 202
    found = told(client, image)
    assert [found[tag]["Value"] for tag in WINDOW] == [[40, -600], [400, 1500], ["SOFT", "LUNG"]]


def test_of_each_frame_and_in_presentation_states(stow: Stow, client: FlaskClient) -> None:
    """A functional group without a window is not there; one with a table stays."""
    frames = [
        a_window(FrameVOILUTSequence=[a_window(WindowCenter=center, WindowWidth=width)])
        for center, width in (("40", "0"), ("40", "400"))
    ]
    image = a_slice(
        PerFrameFunctionalGroupsSequence=frames,
        SoftcopyVOILUTSequence=[a_window(WindowCenter="1", WindowWidth=width) for width in ("0", "2")],
        NumberOfFrames=1,
    )
    assert stow(image).status_code == 202
    found = Dataset.from_json(told(client, image))
    first, second = found.PerFrameFunctionalGroupsSequence
    assert "FrameVOILUTSequence" not in first
    assert second.FrameVOILUTSequence[0].WindowWidth == 400
    assert [item.WindowWidth for item in found.SoftcopyVOILUTSequence] == [2]


def test_also_of_what_an_earlier_version_stored(stow: Stow, client: FlaskClient, database: Database) -> None:
    image, fine = a_slice(), a_slice(WindowCenter="40", WindowWidth="400", InstanceNumber=2)
    stow(image, fine)
    (document,) = database["dicom_instances"].find({"_id": image.SOPInstanceUID})
    before = orjson.loads(zlib.decompress(document["meta"]))
    before |= {"00281050": {"vr": "DS", "Value": [40]}, "00281051": {"vr": "DS", "Value": [0]}}
    meta = zlib.compress(orjson.dumps(before))
    database["dicom_instances"].update_one({"_id": image.SOPInstanceUID}, {"$set": {"meta": meta}})

    study = f"/dicomweb/studies/{image.StudyInstanceUID}"
    mended, good = client.get(f"{study}/metadata").json
    assert not WINDOW.keys() & mended.keys()
    assert good["00281051"]["Value"] == [400]
    (first, _) = client.get(f"{study}/instances?includefield=all").json
    assert not WINDOW.keys() & first.keys()
