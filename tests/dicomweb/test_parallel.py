"""Many senders at once: nothing is lost, nothing is stored twice."""

from concurrent.futures import ThreadPoolExecutor

from flask import Flask
from pydicom.dataset import Dataset

from tests.dicomweb.conftest import a_slice, file_of, stow_to

SENDERS = 8


def test_one_study_from_many_senders_is_counted_right(app: Flask) -> None:
    slices = [a_slice(InstanceNumber=number, SeriesInstanceUID=f"1.2.3.{number % 3}") for number in range(40)]

    def send(slice_: Dataset) -> int:
        return stow_to(app.test_client())(slice_).status_code

    with ThreadPoolExecutor(SENDERS) as threads:
        assert set(threads.map(send, slices)) == {200}
    (study,) = app.test_client().get("/dicomweb/studies").json
    assert study["00201208"]["Value"] == [40]
    assert study["00201206"]["Value"] == [3]
    series = app.test_client().get("/dicomweb/series").json
    assert sorted(one["00201209"]["Value"][0] for one in series) == [13, 13, 14]


def test_one_instance_from_many_senders_is_stored_once(app: Flask) -> None:
    file = file_of(a_slice())

    def send(_number: int) -> int:
        return stow_to(app.test_client())(file).status_code

    with ThreadPoolExecutor(SENDERS) as threads:
        assert set(threads.map(send, range(24))) == {200}
    (study,) = app.test_client().get("/dicomweb/studies").json
    assert study["00201208"]["Value"] == [1]


def test_of_different_objects_under_one_uid_exactly_one_wins(app: Flask) -> None:
    sop = "1.2.3.4.5"
    files = [
        file_of(a_slice(SOPInstanceUID=sop, PatientName=f"N{n}", StudyInstanceUID=f"1.2.{n}")) for n in range(SENDERS)
    ]

    def send(file: bytes) -> int:
        return stow_to(app.test_client())(file).status_code

    with ThreadPoolExecutor(SENDERS) as threads:
        answers = list(threads.map(send, files))
    assert sorted(answers) == [200] + [409] * (SENDERS - 1)
    client = app.test_client()
    (instance,) = client.get("/dicomweb/instances").json
    winner = answers.index(200)
    study = instance["0020000D"]["Value"][0]
    assert study == f"1.2.{winner}"
    assert files[winner] in client.get(f"/dicomweb/studies/{study}").data
    assert len(client.get("/dicomweb/studies").json) == 1
