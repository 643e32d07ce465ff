"""Apps opened from the page of a referral: EHR launch with what is in view. SMART App Launch 2.2."""

import re
from collections.abc import Callable
from html import unescape
from urllib.parse import parse_qs, urlsplit

import pytest

from smart_auth import launch
from smart_auth.clients import add_client, deactivate_client
from smart_auth.service import AuthService
from tests.portal.conftest import Person, Referral

SCOPE = "launch openid fhirUser user/*.rs"


@pytest.fixture
def viewer(auth: AuthService) -> None:
    add_client(
        auth.store,
        "viewer",
        type="public",
        name="Viewer <b>2</b>",
        scope=SCOPE,
        redirect_uris=["https://viewer.example.org/"],
        launch_uris=["https://viewer.example.org/launch?site=1"],
    )


def opened(person: Person, referral: Referral) -> dict[str, list[str]]:
    html = person.open(f"/referrals/{referral.id}")
    link = re.search(r'href="(/referrals/[^"]+/open/viewer)"', html)
    assert link, "the page offers the app"
    response = person.browser.get(link[1])
    assert response.status_code == 302
    parts = urlsplit(response.location)
    assert f"{parts.scheme}://{parts.netloc}{parts.path}" == "https://viewer.example.org/launch"
    return parse_qs(parts.query)


def test_the_app_gets_the_address_of_the_server_and_an_opaque_launch(
    person: Callable[[str], Person], refer: Callable[..., Referral], auth: AuthService, viewer: None
) -> None:
    referral = refer()
    query = opened(person("ruth"), referral)
    assert query["site"] == ["1"]
    assert query["iss"] == [auth.fhir_base]
    ruth = auth.store.user("ruth")
    found = launch.find(auth, query["launch"][0], "viewer", ruth)
    assert found is not None
    assert found.context.patient == referral.patient
    assert found.context.fhir_context[:2] == (referral.order, f"Task/{referral.id}")
    assert (found.context.intent, found.context.banner) == ("referral-status", True)
    assert referral.patient.partition("/")[2] not in str(query), "nobody can tell from the address who it is about"


def test_each_opening_is_a_launch_of_its_own(
    person: Callable[[str], Person], refer: Callable[..., Referral], viewer: None
) -> None:
    ruth, referral = person("ruth"), refer()
    assert opened(ruth, referral)["launch"] != opened(ruth, referral)["launch"]


def test_the_name_of_an_app_is_text(
    person: Callable[[str], Person], refer: Callable[..., Referral], viewer: None
) -> None:
    html = person("ruth").open(f"/referrals/{refer().id}")
    assert "<b>2</b>" not in html
    assert "Viewer <b>2</b>" in unescape(html)


def test_a_referral_of_another_office_opens_nothing(
    person: Callable[[str], Person], refer: Callable[..., Referral], viewer: None
) -> None:
    otto = person("otto")
    otto.open(f"/referrals/{refer().id}/open/viewer")
    assert otto.status == 404


@pytest.mark.parametrize("client_id", ["nobody", "viewer"])
def test_an_app_that_is_unknown_or_deactivated_is_not_opened(
    person: Callable[[str], Person],
    refer: Callable[..., Referral],
    auth: AuthService,
    viewer: None,
    client_id: str,
) -> None:
    deactivate_client(auth.store, "viewer")
    ruth, referral = person("ruth"), refer()
    assert "Open in an app" not in ruth.open(f"/referrals/{referral.id}")
    ruth.open(f"/referrals/{referral.id}/open/{client_id}")
    assert ruth.status == 404
