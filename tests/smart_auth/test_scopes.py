"""https://hl7.org/fhir/smart-app-launch/scopes-and-launch-context.html"""

import pytest

from fhir_server.access import Scope
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
        ("User/Task.rs", ""),
        ("offline_access launch launch/patient profile", "offline_access launch launch/patient profile"),
        ("launch/encounter phone nonsense", "launch/encounter"),
        ("launch/imagingstudy launch/ImagingStudy launch/imagingstudy?role=x", "launch/imagingstudy"),
        ("user/Task.rs\n", ""),
        ("", ""),
    ],
)
def test_only_scopes_of_the_grammar_that_can_be_enforced_are_kept(asked: str, granted: str) -> None:
    assert scopes.text(scopes.parse(asked)) == granted


LABORATORY = "category=http://terminology.hl7.org/CodeSystem/observation-category|laboratory"


@pytest.mark.parametrize(
    "scope",
    [
        f"patient/Observation.rs?{LABORATORY}",
        "system/ServiceRequest.cruds?status=active&code=http://loinc.org|24627-2",
        "user/Task.rs?status=requested,ready",
        "user/Observation.rs?subject=Patient/1",
        "user/Observation.rs?code=a%20b",
        r"user/Observation.rs?code=a%5C|b",
        "user/ServiceRequest.r?instantiates-uri=http://acme.example/p",
        "user/*.rs?_security=http://terminology.hl7.org/CodeSystem/v3-Confidentiality|N",
        "user/Task.rs?_id=12",
    ],
)
def test_a_scope_with_parameters_that_are_search_keys_is_kept_as_it_is(scope: str) -> None:
    assert scopes.text(scopes.parse(scope)) == scope


@pytest.mark.parametrize(
    "scope",
    [
        "user/Task.rs?",
        "user/Task.rs?code=",
        "user/Task.rs?code",
        "user/Task.rs?=x",
        "user/Task.rs?code=x&",
        "user/Task.rs?code=x&&status=ready",
        "user/Task.rs?code=x&nonsense=y",
        "user/Task.rs?code:not=x",
        "user/Task.rs?status:missing=true",
        "user/Task.rs?owner.name=x",
        "user/Task.rs?_has:Provenance:target:agent=x",
        "user/Task.rs?_filter=code%20eq%20x",
        "user/Task.rs?authored-on=gt2020",
        "user/Task.rs?_lastUpdated=gt2020",
        "user/Patient.rs?family=Chalmers",
        "user/Observation.rs?value-quantity=5",
        "user/Task.rs?status=http://acme.example|ready",
        "user/Task.rs?code=a|b|c",
        "user/Observation.rs?subject=http://acme.example/fhir/Patient/1",
        "user/Observation.rs?subject=Patient/1,http://acme.example/fhir/Patient/1",
        "user/*.rs?code=x",
        "user/Nothing.rs?_id=1",
        "user/Task.read?code=x",
        "user/Task.rs?code=ä",
        'user/Task.rs?code="x"',
        f"user/Task.rs?_id={','.join(str(number) for number in range(201))}",
        f"user/Task.rs?{'&'.join(f'_tag={number}' for number in range(11))}",
    ],
)
def test_a_scope_whose_parameters_cannot_be_enforced_is_not_granted(scope: str) -> None:
    assert scopes.text(scopes.parse(f"openid {scope}")) == "openid"


@pytest.mark.parametrize(
    "asked, allowed, granted",
    [
        ("user/Task.rs?code=x", "user/*.cruds", "user/Task.rs?code=x"),
        ("user/Task.rs", "user/Task.cruds?code=x", "user/Task.rs?code=x"),
        ("user/Task.read", "user/Task.cruds?code=x", "user/Task.rs?code=x"),
        ("user/Task.rs?code=x", "user/Task.rs?code=x", "user/Task.rs?code=x"),
        ("user/Task.rs?code=x", "user/Task.rs?code=x,y", "user/Task.rs?code=x"),
        ("user/Task.rs?code=x,y", "user/Task.rs?code=x", "user/Task.rs?code=x,y&code=x"),
        ("user/Task.rs?code=x", "user/Task.rs?status=ready", "user/Task.rs?code=x&status=ready"),
        ("user/Task.rs", "user/Task.rs?code=x user/Task.s?code=y", "user/Task.rs?code=x user/Task.s?code=y"),
        ("user/Task.rs?code=x", "user/Task.rs?code=x user/Task.rs?code=y", "user/Task.rs?code=x"),
        ("user/Task.rs", "user/Task.r user/Task.rs?code=x", "user/Task.r user/Task.rs?code=x"),
        ("user/Task.r", "user/Task.r user/Task.rs?code=x", "user/Task.r"),
        ("user/*.rs", "user/*.rs?_tag=a user/Task.r", "user/*.rs?_tag=a user/Task.r"),
        ("user/*.rs?_tag=a", "user/Task.rs?code=x", "user/Task.rs?_tag=a&code=x"),
        ("user/Task.rs?code=x", "system/Task.rs", ""),
    ],
)
def test_parameters_of_what_is_asked_and_allowed_are_both_kept(asked: str, allowed: str, granted: str) -> None:
    assert scopes.text(scopes.restrict(scopes.parse(asked), scopes.parse(allowed))) == granted


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


class TestAuditTrail:
    """Who may do something with all types may not therefore look into the audit trail."""

    def test_is_granted_by_name_alone(self) -> None:
        everything, audit = Scope("user", "*", "cruds"), Scope("user", "AuditEvent", "rs")
        assert scopes.meet(audit, [everything]) == []
        assert scopes.meet(everything, [everything, audit]) == [everything]
        assert scopes.meet(Scope("user", "AuditEvent", "cruds"), [everything, audit]) == [audit]
