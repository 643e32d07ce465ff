"""The service describes itself. PS3.18 section 8.9, annex H; https://www.w3.org/submissions/wadl/"""

from xml.etree.ElementTree import Element, fromstring

import pytest
from flask.testing import FlaskClient

from dicomweb.wadl import NAMESPACE, WADL
from tests.dicomweb.conftest import BASE, Stow, a_slice

STUDY, SERIES = "1.2.826.0.1.3680043.8.498.1", "1.2.826.0.1.3680043.8.498.1.1"
NAMED = {"{StudyInstanceUID}": STUDY, "{SeriesInstanceUID}": SERIES, "{frameList}": "1"}
# Of annex H, table H-1, and of PS3.17 HHH.7.1.
STANDARD = {
    "SearchForStudies", "SearchForStudySeries", "SearchForStudyInstances", "SearchForStudySeriesInstances",
    "SearchForSeries", "SearchForInstances", "StoreInstances", "StoreStudyInstances", "RetrieveStudy",
    "RetrieveSeries", "RetrieveInstance", "RetrieveStudyMetadata", "RetrieveSeriesMetadata",
    "RetrieveInstanceMetadata", "RetrieveRenderedStudy", "RetrieveRenderedSeries", "RetrieveRenderedInstance",
    "RetrieveRenderedFrames", "RetrieveStudyThumbnail", "RetrieveSeriesThumbnail", "RetrieveInstanceThumbnail",
    "RetrieveFramesThumbnail", "RetrieveFrames", "RetrieveBulkdata", "RetrieveStudyBulkdata",
    "RetrieveSeriesBulkdata", "RetrieveInstanceBulkdata", "RetrieveStudyPixelData", "RetrieveSeriesPixelData",
    "RetrieveInstancePixelData",
}  # fmt: skip


def described(client: FlaskClient, address: str = "/") -> Element:
    answer = client.options(f"/dicomweb{address}", headers={"Accept": WADL})
    assert (answer.status_code, answer.content_type) == (200, WADL)
    application = fromstring(answer.text)
    assert application.tag == f"{{{NAMESPACE}}}application"
    (resources,) = application
    assert resources.get("base") == BASE
    return resources


def methods(element: Element, above: str = "") -> dict[str, tuple[str, str, Element]]:
    """By id: HTTP method, address, element."""
    found = {}
    for one in element:
        if one.tag.endswith("}resource"):
            found |= methods(one, f"{above}/{one.get('path')}")
        elif one.tag.endswith("}method"):
            assert one.get("id") not in found
            found[one.get("id", "")] = (one.get("name", ""), above, one)
    return found


def values(element: Element, tag: str, name: str, **attributes: str) -> list[str]:
    found = element.iter(f"{{{NAMESPACE}}}{tag}")
    return [one.get(name, "") for one in found if all(one.get(key) == value for key, value in attributes.items())]


def test_every_transaction_of_the_standard_and_deleting(client: FlaskClient) -> None:
    found = methods(described(client))
    assert found.keys() == STANDARD | {"DeleteStudy", "DeleteSeries", "DeleteInstance"}
    assert found["StoreStudyInstances"][:2] == ("POST", "/studies/{StudyInstanceUID}")


def test_what_is_searched_by(client: FlaskClient) -> None:
    search = methods(described(client))["SearchForStudies"][2]
    names = values(search, "param", "name", style="query")
    assert {"PatientName", "00100010", "StudyInstanceUID", "limit", "offset", "includefield"} <= set(names)
    assert client.get("/dicomweb/studies", query_string=dict.fromkeys(names, "")).status_code == 200


@pytest.mark.parametrize(
    ("address", "below"),
    [
        (f"/studies/{STUDY}", {"RetrieveStudy", "DeleteStudy", "RetrieveFrames", "SearchForStudySeriesInstances"}),
        (f"/studies/{STUDY}/metadata", {"RetrieveStudyMetadata"}),
        ("/series", {"SearchForSeries"}),
    ],
)
def test_of_one_address_what_is_there_and_below(client: FlaskClient, address: str, below: set[str]) -> None:
    found = methods(described(client, address))
    assert below <= found.keys()
    assert "SearchForStudies" not in found


def test_what_it_says_is_accepted_is(client: FlaskClient, stow: Stow) -> None:
    image = a_slice()
    assert stow(image).status_code == 200
    named, asked = NAMED | {"{SOPInstanceUID}": str(image.SOPInstanceUID), "{bulkdataReference}": "7FE00010"}, 0
    for id, (name, address, method) in methods(described(client)).items():
        for value in [*named] if name == "GET" else []:
            address = address.replace(value, named[value])
        for accept in values(method, "option", "value") if name == "GET" else []:
            if accept in ("application/pdf", "video/mp4", "text/html") and id == "RetrieveRenderedInstance":
                continue  # of what is one
            answer = client.get(f"/dicomweb{address}", headers={"Accept": accept})
            expected = 406 if accept.endswith(("jxl", 'jxl"', "jpx", 'jpx"')) else 200  # sent where it is stored so
            assert answer.status_code == expected, (id, accept)
            asked += 1
    assert asked > 60


def test_it_is_wadl_and_nothing_else(client: FlaskClient) -> None:
    assert client.options("/dicomweb/studies", headers={"Accept": "text/html"}).status_code == 406
    answer = client.options("/dicomweb/studies")
    assert (answer.status_code, answer.content_type) == (200, WADL)
    assert set(answer.headers["Allow"].split(", ")) == {"GET", "HEAD", "POST", "OPTIONS"}
    assert client.options("/dicomweb/nothing").status_code == 404
