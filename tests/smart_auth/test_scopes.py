"""https://hl7.org/fhir/smart-app-launch/scopes-and-launch-context.html"""

import pytest

from smart_auth import scopes


@pytest.mark.parametrize(
    "asked, granted",
    [
        ("user/Task.rs", "user/Task.rs"),
        ("system/*.cruds", "system/*.cruds"),
        ("patient/Observation.r openid fhirUser", "patient/Observation.r openid fhirUser"),
        ("user/Task.read user/Task.write user/*.*", "user/Task.read user/Task.write user/*.*"),
        ("user/Task.rs user/Task.rs", "user/Task.rs"),
        ("user/Task.sr", ""),
        ("user/Task.dus", ""),
        ("user/Task.rr", ""),
        ("user/Task.", ""),
        ("user/Task.R", ""),
        ("user/task.rs", ""),
        ("user/Task.rs?code=x", ""),
        ("User/Task.rs", ""),
        ("offline_access launch launch/patient profile", "offline_access launch launch/patient profile"),
        ("launch/encounter phone nonsense", ""),
        ("user/Task.rs\n", ""),
        ("", ""),
    ],
)
def test_only_scopes_of_the_grammar_that_can_be_enforced_are_kept(asked: str, granted: str) -> None:
    assert scopes.text(scopes.parse(asked)) == granted


@pytest.mark.parametrize(
    "asked, allowed, granted",
    [
        ("user/Task.cruds", "user/*.rs user/Task.cu", "user/Task.crus"),
        ("user/*.cruds", "user/*.rs user/Task.cu", "user/*.rs user/Task.cu"),
        ("user/*.rs", "user/*.cruds", "user/*.rs"),
        ("user/*.cruds", "user/Task.rs user/Patient.r", "user/Patient.r user/Task.rs"),
        ("user/Task.rs", "system/Task.rs patient/Task.rs", ""),
        ("user/Task.read", "user/*.cruds", "user/Task.read"),
        ("user/Task.*", "user/*.rs", "user/Task.read"),
        ("user/Task.*", "user/*.cru", "user/Task.cru"),
        ("openid fhirUser", "openid", "openid"),
    ],
)
def test_a_grant_is_what_is_asked_and_allowed(asked: str, allowed: str, granted: str) -> None:
    assert scopes.text(scopes.restrict(scopes.parse(asked), scopes.parse(allowed))) == granted
