"""The tables that everything else stands on: complete, and referring to one another only."""

from importlib.resources import files

import pytest

import conformance
from conformance import terminology
from conformance.build import parts
from fhir_server.validation import check_structure
from referral.codes import OURS
from referral.states import STATES


def test_every_concrete_r4_resource_type_is_there() -> None:
    """https://hl7.org/fhir/R4/resourcelist.html: 148 types, Resource and DomainResource among them."""
    types = conformance.resource_types()
    assert len(types) == 146
    assert {"Patient", "ServiceRequest", "EffectEvidenceSynthesis"} <= types
    assert not {"Resource", "DomainResource", "Element"} & types


def test_every_type_has_its_parameters_and_those_of_all_resources() -> None:
    everywhere = {"_id", "_lastUpdated", "_profile", "_security", "_source", "_tag"}
    for resource_type in conformance.resource_types():
        assert everywhere <= conformance.search_parameters(resource_type).keys(), resource_type
    assert conformance.search_parameters("Nothing") == {}


def test_a_shared_definition_is_cut_to_its_type() -> None:
    """clinical-patient is one definition for many types."""
    parameter = conformance.search_parameters("ImagingStudy")["patient"]
    assert parameter.expression == "ImagingStudy.subject.where(resolve() is Patient)"
    assert "Patient" in parameter.targets


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("A.x", ["A.x"]),
        ("A.x | (B.y as C)", ["A.x", "(B.y as C)"]),
        ("(A.x | A.y).z | B.w", ["(A.x | A.y).z", "B.w"]),
        ("A.where(use='a|b') | B.x", ["A.where(use='a|b')", "B.x"]),
    ],
)
def test_unions_are_cut_at_their_own_bars_alone(expression: str, expected: list[str]) -> None:
    assert parts(expression) == expected


def test_compartments_name_parameters_that_exist() -> None:
    for name in ("Patient", "Encounter", "Practitioner", "RelatedPerson", "Device"):
        for resource_type, codes in conformance.compartment(name).items():
            assert set(codes) <= conformance.search_parameters(resource_type).keys() | {"{def}"}, resource_type


def test_topics_are_about_real_elements_and_filter_by_real_parameters() -> None:
    for url, topic in conformance.topics().items():
        assert url == topic.url == f"{conformance.CANONICAL}/SubscriptionTopic/{topic.name}"
        assert topic.resource_type in conformance.resource_types()
        assert topic.filters.keys() <= conformance.search_parameters(topic.resource_type).keys()


def test_access_rules_name_real_types() -> None:
    rules = conformance.access_rules()
    named = rules.catalogue | rules.owner_only | rules.writer_organization
    for table in (rules.organizations, rules.inherited, rules.grants, rules.standing_for):
        named |= table.keys()
    assert named == conformance.resource_types()


class TestOurOwnDefinitions:
    def test_are_valid_r4_under_unique_ids_and_addresses(self) -> None:
        seen = set()
        for resource in conformance.conformance_resources():
            check_structure(resource)
            assert resource["url"].startswith(f"{conformance.CANONICAL}/{resource['resourceType']}/")
            assert resource["url"].endswith(f"/{resource['id']}")
            seen.add((resource["resourceType"], resource["id"]))
        assert len(seen) == len(conformance.conformance_resources())

    def test_code_systems_hold_the_codes_that_are_used(self) -> None:
        codes = {
            resource["id"]: {concept["code"] for concept in resource["concept"]}
            for resource in conformance.conformance_resources()
            if resource["resourceType"] == "CodeSystem"
        }
        assert codes["referral-business-status"] == STATES.keys()
        assert codes["task"] >= OURS.keys()

    def test_the_survey_is_short_and_its_open_question_is_not_required(self) -> None:
        survey = next(r for r in conformance.conformance_resources() if r["id"] == "referral-feedback")
        assert 3 <= len(survey["item"]) <= 5
        assert survey["item"][-1]["type"] == "text"
        assert not survey["item"][-1]["required"]


class TestR4Definitions:
    """https://hl7.org/fhir/R4/terminologies-valuesets.html"""

    def test_have_the_value_sets_of_required_bindings_and_what_these_draw_on(self) -> None:
        for url in ("http://hl7.org/fhir/ValueSet/request-status", "http://hl7.org/fhir/ValueSet/task-status"):
            value_set = terminology.r4_definition("ValueSet", url)
            assert value_set is not None
            for include in value_set["compose"]["include"]:
                system = terminology.r4_definition("CodeSystem", include["system"])
                assert system is not None
                assert system["concept"]

    def test_are_small(self) -> None:
        packed = files("conformance") / "r4" / "terminology.jsonl.gz"
        assert len(packed.read_bytes()) < 420_000

    @pytest.mark.parametrize("resource_type", ["CodeSystem", "ValueSet", "ConceptMap"])
    def test_are_valid_under_addresses_of_their_own(self, resource_type: str) -> None:
        found = terminology.r4_definitions(resource_type)
        assert len(found) >= 80
        assert len({one["url"] for one in found}) == len(found)
        for one in found:
            check_structure(one)

    def test_operations_have_addresses_of_their_own(self) -> None:
        found = terminology.operation_definitions()
        assert len(found) == len({one["url"] for one in found}) > 40
        for one in found:
            check_structure(one)
