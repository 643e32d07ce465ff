"""What one process remembers of studies: never more than is true."""

from flask import Flask
from flask.testing import FlaskClient

from dicomweb.cache import Cache, Remembered
from dicomweb.store import DicomStore
from tests.dicomweb.conftest import BASE, PRACTICE, Stow, a_slice, an_office
from tests.dicomweb.test_wado import address

FRAME = {"Accept": "application/octet-stream"}


def test_the_least_recently_used_makes_room() -> None:
    cache: Cache[bytes] = Cache(80)
    for name in "abcdefgh":
        cache.put(name, name.encode(), 10)
    cache.get("a")
    cache.put("i", b"i", 10)
    assert [name for name in "abcdefghi" if cache.get(name) is None] == ["b"]
    cache.put("too large", b"", 11)
    assert cache.get("too large") is None
    assert cache.get("i") == b"i"


def test_of_the_same_name_the_last_counts_once() -> None:
    cache: Cache[bytes] = Cache(80)
    for _ in range(100):
        cache.put("a", b"a", 10)
    cache.put("b", b"b", 10)
    assert cache.get("a") == b"a"


def test_what_is_known_is_not_read_again(store: DicomStore, stow: Stow) -> None:
    dataset = a_slice()
    stow(dataset)
    study, uids = dataset.StudyInstanceUID, (dataset.SeriesInstanceUID, dataset.SOPInstanceUID)
    remembered, state = Remembered(store), store.state(study)
    assert remembered.instance(state, study, *uids) is remembered.instance(state, study, *uids)
    assert remembered.files(state, study) is remembered.files(state, study)
    assert remembered.instance("another", study, *uids) is not remembered.instance(state, study, *uids)


def test_after_each_change_the_answer_is_that_of_now(app: Flask, client: FlaskClient, stow: Stow) -> None:
    first, second = a_slice(), a_slice(InstanceNumber=2)
    stow(first)
    series = address(first).partition("/instances")[0]
    files = {"Accept": "multipart/related; type=application/dicom; transfer-syntax=*"}
    assert client.get(f"{address(first)}/frames/1", headers=FRAME).status_code == 200
    assert client.get(series, headers=files).data.count(b"Content-Location") == 1
    stow(second)
    assert client.get(series, headers=files).data.count(b"Content-Location") == 2

    app.config["ACCESS"] = an_office("lakeside")
    assert client.get(f"{address(first)}/frames/1", headers=FRAME).status_code == 404
    app.config["ACCESS"] = PRACTICE

    client.delete(address(first))
    assert client.get(f"{address(first)}/frames/1", headers=FRAME).status_code == 410
    assert client.get(series, headers=files).data.count(b"Content-Location") == 1

    again = a_slice(SOPInstanceUID=first.SOPInstanceUID, RescaleSlope="2")
    assert stow(again).status_code == 200
    shown = client.get(f"{address(first)}/metadata").json
    assert shown[0]["00281053"]["Value"] == [2]
    assert shown[0]["7FE00010"]["BulkDataURI"].startswith(BASE)
    assert client.get(f"{address(first)}/frames/1", headers=FRAME).status_code == 200
