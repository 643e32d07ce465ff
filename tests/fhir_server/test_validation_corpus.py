"""Everything valid is let through: the examples of the specification, Synthea's patients, our own definitions.

fhir.resources, whose classes are of R4B, is asked too, as somebody who knows nothing of our tables.
"""

import gzip
import random
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from fhir.resources.R4B import get_fhir_model_class

import conformance
from conformance.structures import invariants, structure, structures, value_set
from fhir_server import fhir_json, questionnaire
from fhir_server.elements import elements
from fhir_server.errors import FhirError
from fhir_server.repository import Repository
from fhir_server.store import VersionStore
from fhir_server.validation import check_structure, faults
from fhir_server.validation.invariants import INVARIANTS
from fhir_server.validation.second_reader import CHANGED, R4_ONLY, second_reading
from tests.fhir_server.conftest import BASE, PRACTICE

# Its items lack linkId, which R4 demands.
BROKEN = {"Questionnaire/qs1.json"}


def read(file: Path) -> Iterator[dict]:
    """The resources of a JSON or NDJSON file, packed or not."""
    data = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    if ".ndjson" in file.name:
        yield from (fhir_json.loads(line) for line in data.splitlines() if line.strip())
    else:
        yield fhir_json.loads(data)


def examples(shared_data: Path) -> list[tuple[str, dict]]:
    folder = shared_data / "fhir" / "hl7-examples"
    files = [file for file in sorted(folder.glob("*/*.json")) if f"{file.parent.name}/{file.name}" not in BROKEN]
    return [(file.name, resource) for file in files for resource in read(file)]


def other_opinion(resource: dict) -> bool:
    """Whether fhir.resources takes it for valid."""
    return second_reading(resource) == []


def test_the_examples_of_the_specification(shared_data: Path) -> None:
    found = examples(shared_data)
    assert len(found) > 360
    assert [(name, faults(resource)) for name, resource in found if faults(resource)] == []


def test_but_the_broken_one(shared_data: Path) -> None:
    (resource,) = read(shared_data / "fhir" / "hl7-examples" / "Questionnaire" / "qs1.json")
    assert {issue.code for issue in faults(resource)} == {"required"}


def test_the_patients_of_synthea(shared_data: Path) -> None:
    bundles = sorted((shared_data / "fhir" / "synthea" / "bundles").iterdir())
    assert len(bundles) == 48
    for file in bundles:
        for bundle in read(file):
            assert faults(bundle) == [], file.name


@pytest.mark.parametrize("folder", ["radiology-synthetic", "bulk-10-patients"])
def test_exports_of_other_servers(shared_data: Path, folder: str) -> None:
    for file in sorted((shared_data / "fhir" / folder).glob("*.ndjson*")):
        if file.name != "log.ndjson":
            assert [faults(resource) for resource in read(file) if faults(resource)] == [], file.name


def test_our_own_definitions() -> None:
    for resource in conformance.conformance_resources():
        assert faults(resource) == [], resource["id"]


def test_answers_of_the_examples_fit_their_questionnaires(shared_data: Path) -> None:
    everything = {f"{one['resourceType']}/{one.get('id')}": one for _, one in examples(shared_data)}
    pairs = [
        (everything[f"Questionnaire/{response['questionnaire'].rpartition('/')[2]}"], response)
        for response in everything.values()
        if response["resourceType"] == "QuestionnaireResponse"
        and f"Questionnaire/{response.get('questionnaire', '').rpartition('/')[2]}" in everything
    ]
    assert pairs
    for asked, response in pairs:
        assert questionnaire.faults(asked, response) == []


# Mutations


def places(value: Any, path: tuple = ()) -> Iterator[tuple]:
    """The path of every value inside a resource."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield (*path, key)
        yield from places(child, (*path, key))


JUNK = (
    None, True, -1, 2**70, 1.5, float("nan"), "", " ", "x" * 2_000_000, "\u0000", "\ud800", [], [[]], [None], {},
    {"": {}}, {"extension": {}}, {"resourceType": "Patient"}, [{"resourceType": ["Patient"]}],
    {"url": [], "valueCode": []}, "#", "#x", "Patient/", "http://", "9999-99-99", {"coding": [None]},
    {"value": {}}, {"div": "<div"},
)  # fmt: skip


def mutated(resource: dict, chance: random.Random) -> dict:
    """A copy with some values replaced, removed, doubled or renamed."""
    copy = fhir_json.loads(fhir_json.dumps(resource))
    for _ in range(chance.choice((1, 1, 2, 5))):
        every = list(places(copy))
        *above, last = chance.choice(every)
        owner = copy
        for step in above:
            owner = owner[step]
        kind = chance.randrange(4)
        if kind == 0:
            owner[last] = chance.choice(JUNK)
        elif kind == 1 and len(copy) > 1:
            del owner[last]
        elif kind == 2:
            owner[last] = [owner[last], owner[last]]
        elif isinstance(owner, dict):
            owner[chance.choice(("_" + str(last), "value", "valueCode", "item", "contained", "$"))] = owner.pop(last)
    return copy


def test_whatever_comes_is_valid_or_refused(shared_data: Path) -> None:
    """No input makes the checks fail themselves."""
    chance = random.Random(4)
    found = [resource for _, resource in examples(shared_data)]
    refused = 0
    for _ in range(4000):
        resource = mutated(chance.choice(found), chance)
        try:
            check_structure(resource)
        except FhirError as error:
            refused += 1
            assert all(issue["code"] for issue in error.outcome()["issue"])
    assert refused > 3000


def test_and_nothing_of_what_is_refused_is_stored(shared_data: Path, store: VersionStore) -> None:
    rules = {"QuestionnaireResponse": [questionnaire.fits_its_questionnaire]}
    repository = Repository(store, BASE, lambda: datetime.now(UTC), rules, check_references=False)
    chance = random.Random(6)
    found = [resource for _, resource in examples(shared_data) if resource["resourceType"] != "Bundle"]
    accepted = 0
    for _ in range(400):
        try:
            accepted += repository.create(PRACTICE, mutated(chance.choice(found), chance)).created
        except FhirError as error:
            assert error.status < 500
    assert accepted == len(list(store.since(0, limit=1000)))
    assert 0 < accepted < 200


def test_what_another_reader_of_r4_refuses_is_refused_here(shared_data: Path) -> None:
    """fhir.resources as the oracle, for types that are alike in R4 and R4B: ours never lets more through."""
    chance = random.Random(5)
    alike = (
        "Patient ServiceRequest Task Appointment Slot ImagingStudy DiagnosticReport Observation Questionnaire".split()
    )
    found = [resource for _, resource in examples(shared_data) if resource["resourceType"] in alike]
    assert all(map(other_opinion, found))
    disputed = []
    for _ in range(1500):
        resource = mutated(chance.choice(found), chance)
        if isinstance(resource.get("resourceType"), str) and not faults_of(resource) and not other_opinion(resource):
            disputed.append(fhir_json.dumps(resource)[:300])
    assert disputed == []


def faults_of(resource: dict) -> bool:
    try:
        return bool(faults(resource))
    except FhirError:
        return True


# Tables

# Rules that need what is not in the resource, or tell the definitions themselves apart.
NOT_IMPLEMENTED = {
    "ctm-1": "needs what member refers to",
    "sdf-19": "about the names of types in HL7's own models",
    "ref-1": "in fhir_server.validation.targets",
    "txt-1": "in fhir_server.validation.narrative",
    "txt-2": "in fhir_server.validation.narrative",
}


def test_every_invariant_of_r4_is_implemented_or_listed() -> None:
    assert invariants().keys() - INVARIANTS.keys() == NOT_IMPLEMENTED.keys()
    assert INVARIANTS.keys() <= invariants().keys()


def test_every_required_value_set_is_listed_or_of_another_owner() -> None:
    bound = {element.binding for name in structures() for element in structure(name).elements if element.binding}
    assert {url for url in bound if value_set(url) is None} == {
        "http://hl7.org/fhir/ValueSet/currencies",
        "http://hl7.org/fhir/ValueSet/mimetypes",
        "http://hl7.org/fhir/ValueSet/ucum-units",
        "http://loinc.org/vs/LL379-9",
    }


def test_where_r4b_differs_r4_wins() -> None:
    """The whole difference of the two in elements; docs/decisions/0006-validation.md lists the types."""
    differing = set()
    for name in sorted(conformance.resource_types()):
        try:
            fields = get_fhir_model_class(name).model_fields
        except ValueError:
            differing.add(name)
            continue
        theirs = {field.alias or key for key, field in fields.items()} - {
            "resourceType",
            "resource_type",
            "fhir_comments",
        }
        theirs = {key for key in theirs if not key.startswith("_") and not key.endswith("__ext")}
        if theirs != elements(name).keys():
            differing.add(name)
    assert differing == set(R4_ONLY) | set(CHANGED)


class TestSecondReader:
    """fhir.resources, as `$validate` asks it."""

    def test_says_nothing_of_what_is_right(self) -> None:
        assert second_reading({"resourceType": "Patient", "birthDate": "1974-12-25"}) == []

    def test_warns_of_what_it_refuses_and_names_the_element(self) -> None:
        (warning,) = second_reading({"resourceType": "Patient", "name": [{"family": "A"}, {"family": 5}]})
        assert (warning.severity, warning.expression) == ("warning", "Patient.name[1].family")

    @pytest.mark.parametrize("resource_type", ["SubstanceProtein", "Evidence"])
    def test_is_not_asked_about_types_that_it_knows_otherwise(self, resource_type: str) -> None:
        assert second_reading({"resourceType": resource_type, "nothing": "known"}) == []
