"""Whatever is written from the order to the feedback meets our own profiles, in all of its versions."""

from collections.abc import Callable
from urllib.parse import quote

import pytest

from conformance import CANONICAL
from conformance.profiles import own_profiles
from tests.server import Server

TYPES = ("ServiceRequest", "Task", "Appointment", "ImagingStudy", "QuestionnaireResponse")


def everything(_resource: dict) -> bool:
    return True


def is_tracker(task: dict) -> bool:
    return any(coding.get("code") == "fulfill" for coding in task.get("code", {}).get("coding", []))


MEANT: dict[str, Callable[[dict], bool]] = {"Task": is_tracker}


@pytest.fixture(scope="module")
def played(server: Server) -> Server:
    if not server.user("frontdesk").find("QuestionnaireResponse"):  # nobody has played it on this server yet
        done = server.command("demo")
        assert done.returncode == 0, done.stdout
    return server


@pytest.mark.parametrize("resource_type", TYPES)
def test_the_demonstration_meets_our_profiles(played: Server, resource_type: str) -> None:
    (profile,) = own_profiles(resource_type)
    caller = played.user("frontdesk")
    bundle = caller.get(f"{resource_type}/_history", _count="200")
    versions = [entry["resource"] for entry in bundle["entry"] if "resource" in entry]
    meant = [version for version in versions if MEANT.get(resource_type, everything)(version)]
    assert meant
    for version in meant:
        outcome = caller.post(f"{resource_type}/$validate?profile={quote(profile)}", version)
        refused = [issue for issue in outcome["issue"] if issue["severity"] == "error"]
        assert refused == [], version


def test_the_profiles_are_offered(played: Server) -> None:
    statement = played.user("frontdesk").get("metadata")
    offered = {
        resource["type"]: resource["supportedProfile"]
        for resource in statement["rest"][0]["resource"]
        if resource["type"] in TYPES
    }
    assert offered.keys() == set(TYPES)
    for urls in offered.values():
        for url in urls:
            assert url.startswith(f"{CANONICAL}/StructureDefinition/")
            found = played.user("frontdesk").find("StructureDefinition", url=url)
            assert [one["url"] for one in found] == [url]
