"""Profiles: what they demand is demanded, where they are known. https://hl7.org/fhir/R4/profiling.html

The vital signs of R4 are real profiles with slices in slices; what they leave out is defined here.
"""

import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

import conformance
from conformance import CANONICAL
from conformance.profiles import own_profiles, r4_profiles, shipped_profile
from fhir_server import fhir_json
from fhir_server.errors import FhirError, Forbidden, InvalidStructure, Unprocessable
from fhir_server.operations import standard
from fhir_server.repository import Repository
from fhir_server.validation.profiles.admission import by_the_practice
from fhir_server.validation.profiles.tree import build
from tests.fhir_server.conftest import PRACTICE, an_office
from tests.fhir_server.operations import app_with
from tests.fhir_server.test_validation_corpus import examples

R4 = "http://hl7.org/fhir/StructureDefinition"
BP = f"{R4}/bp"
URL = "http://example.org/fhir/StructureDefinition"
LOINC = "http://loinc.org"


def profile(name: str, type: str, *elements: dict, base: str | None = None, **members: Any) -> dict:
    """A StructureDefinition with a differential: {"path": ...} each."""
    return {
        "resourceType": "StructureDefinition",
        "id": name,
        "url": f"{URL}/{name}",
        "name": name.title().replace("-", ""),
        "status": "active",
        "fhirVersion": "4.0.1",
        "kind": "resource" if type[0].isupper() and type not in ("Extension", "Quantity") else "complex-type",
        "abstract": False,
        "type": type,
        "baseDefinition": base or f"{R4}/{type}",
        "derivation": "constraint",
        **({"context": [{"type": "element", "expression": "Element"}]} if type == "Extension" else {}),
        "differential": {
            "element": [
                {"id": element["path"], **element} if "id" not in element else element for element in elements
            ]
        },
        **members,
    }


def slice_of(path: str, name: str, **members: Any) -> dict:
    head, dot, rest = path.partition(":")
    return {"id": f"{head}:{name}{dot and '.'}{rest}", "path": head, "sliceName": name, **members}


def rule(key: str, expression: str, severity: str = "error") -> dict:
    return {"key": key, "severity": severity, "human": f"rule {key}", "expression": expression}


@pytest.fixture
def known(repository: Repository) -> Iterator[Any]:
    """Stores profiles; gives what is found of a resource against the first of them."""

    def found(resource: dict, *profiles: dict) -> list[tuple[str, str, str | None]]:
        for each in profiles:
            repository.update(PRACTICE, each)
        invalid, named = repository.judge(resource, [profiles[0]["url"]])
        assert invalid == []
        return [(issue.severity, issue.code, issue.expression) for issue in named]

    yield found


def patient(**elements: Any) -> dict:
    return {"resourceType": "Patient", **elements}


def observation(**elements: Any) -> dict:
    return {"resourceType": "Observation", "status": "final", "code": {"text": "x"}, **elements}


def pressure(shared_data: Path) -> dict:
    file = shared_data / "fhir" / "hl7-examples" / "Observation" / "blood-pressure.json"
    return {**fhir_json.loads(file.read_bytes()), "meta": {"profile": [BP]}}


class TestOfR4:
    def test_the_examples_meet_the_profiles_they_name(self, repository: Repository, shared_data: Path) -> None:
        count = 0
        for name, example in examples(shared_data):
            _, named = repository.judge(example)
            assert [issue for issue in named if issue.severity in ("error", "warning")] == [], name
            count += bool(example.get("meta", {}).get("profile"))
        assert count > 10

    def test_all_can_be_used(self, repository: Repository) -> None:
        assert len(r4_profiles()) > 40
        assert [url for url in r4_profiles() if not repository.profiles.knows(url)] == []

    @pytest.mark.parametrize(
        ("change", "issues"),
        [
            (lambda bp: None, set()),
            (
                lambda bp: bp["component"].pop(0),
                {("required", "Observation.component")},
            ),
            (
                lambda bp: bp["component"][0]["valueQuantity"].update(code="kPa"),
                {("value", "Observation.component[0].value.code")},
            ),
            (
                lambda bp: [bp["component"][1]["valueQuantity"].pop(name) for name in ("system", "code", "unit")],
                {
                    ("required", "Observation.component[1].value.system"),
                    ("required", "Observation.component[1].value.code"),
                    ("required", "Observation.component[1].value.unit"),
                },
            ),
            (
                lambda bp: bp["component"][0].update(valueString=str(bp["component"][0].pop("valueQuantity"))),
                {("structure", "Observation.component[0].value")},
            ),
            (
                lambda bp: bp["component"].append(copy.deepcopy(bp["component"][0])),
                {("structure", "Observation.component")},
            ),
            (lambda bp: bp.update(code={"text": "pressure"}), {("required", "Observation.code.coding")}),
            (lambda bp: bp.update(category=[{"text": "x"}]), {("required", "Observation.category")}),
            (lambda bp: bp.update(effectiveDateTime="2012"), {("invariant", "Observation.effective")}),
            (
                lambda bp: bp.update(subject={"reference": "Group/1"}),
                {("structure", "Observation.subject.reference")},
            ),
            (lambda bp: bp.pop("subject"), {("required", "Observation.subject")}),
            (lambda bp: bp["component"][0].pop("valueQuantity"), {("invariant", "Observation.component[0]")}),
        ],
    )
    def test_blood_pressure(self, repository: Repository, shared_data: Path, change: Any, issues: set) -> None:
        resource = pressure(shared_data)
        change(resource)
        _, named = repository.judge(resource)
        assert {(issue.code, issue.expression) for issue in named if issue.severity == "error"} == issues


class TestElements:
    @pytest.mark.parametrize(
        ("element", "good", "bad", "issue"),
        [
            (
                {"path": "Patient.birthDate", "min": 1},
                {"birthDate": "1970"},
                {},
                ("error", "required", "Patient.birthDate"),
            ),
            (
                {"path": "Patient.name", "max": "1"},
                {"name": [{"text": "a"}]},
                {"name": [{"text": "a"}, {"text": "b"}]},
                ("error", "structure", "Patient.name"),
            ),
            (
                {"path": "Patient.photo", "max": "0"},
                {},
                {"photo": [{"url": "x"}]},
                ("error", "structure", "Patient.photo"),
            ),
            (
                {"path": "Patient.name.family", "min": 1},
                {"name": [{"family": "a"}]},
                {"name": [{"family": "a"}, {"text": "b"}]},
                ("error", "required", "Patient.name[1].family"),
            ),
            (
                {"path": "Patient.active", "fixedBoolean": True},
                {"active": True},
                {"active": False},
                ("error", "value", "Patient.active"),
            ),
            (
                {"path": "Patient.maritalStatus", "fixedCodeableConcept": {"text": "M"}},
                {"maritalStatus": {"text": "M"}},
                {"maritalStatus": {"text": "M", "id": "1"}},
                ("error", "value", "Patient.maritalStatus"),
            ),
            (
                {"path": "Patient.maritalStatus", "patternCodeableConcept": {"coding": [{"code": "M"}]}},
                {"maritalStatus": {"coding": [{"code": "X"}, {"code": "M", "display": "Married"}]}},
                {"maritalStatus": {"coding": [{"code": "X"}]}},
                ("error", "value", "Patient.maritalStatus"),
            ),
            (
                {"path": "Patient.deceased[x]", "type": [{"code": "boolean"}]},
                {"deceasedBoolean": True},
                {"deceasedDateTime": "2020"},
                ("error", "structure", "Patient.deceased"),
            ),
            (
                {"path": "Patient.deceasedBoolean", "id": "Patient.deceasedBoolean", "fixedBoolean": False},
                {"deceasedBoolean": False},
                {"deceasedBoolean": True},
                ("error", "value", "Patient.deceased"),
            ),
            (
                {"path": "Patient.name.text", "maxLength": 3},
                {"name": [{"text": "abc"}]},
                {"name": [{"text": "abcd"}]},
                ("error", "too-long", "Patient.name[0].text"),
            ),
            (
                {"path": "Patient.multipleBirth[x]", "maxValueInteger": 5},
                {"multipleBirthInteger": 5},
                {"multipleBirthInteger": 6},
                ("error", "value", "Patient.multipleBirth"),
            ),
            (
                {"path": "Patient.birthDate", "minValueDate": "1900-01-01"},
                {"birthDate": "1900-01-01"},
                {"birthDate": "1899-12-31"},
                ("error", "value", "Patient.birthDate"),
            ),
            (
                {"path": "Patient.name", "constraint": [rule("n-1", "family.exists() or text.exists()")]},
                {"name": [{"text": "a"}]},
                {"name": [{"text": "a"}, {"use": "usual"}]},
                ("error", "invariant", "Patient.name[1]"),
            ),
            (
                {"path": "Patient", "constraint": [rule("p-1", "gender.exists()", "warning")]},
                {"gender": "male"},
                {},
                ("warning", "invariant", "Patient"),
            ),
            (
                {
                    "path": "Patient.managingOrganization",
                    "type": [{"code": "Reference", "targetProfile": [f"{R4}/Practitioner"]}],
                },
                {},
                {"managingOrganization": {"reference": "Organization/1"}},
                ("error", "structure", "Patient.managingOrganization.reference"),
            ),
            (
                {
                    "path": "Patient.communication.language",
                    "binding": {
                        "strength": "required",
                        "valueSet": "http://hl7.org/fhir/ValueSet/administrative-gender",
                    },
                },
                {
                    "communication": [
                        {
                            "language": {
                                "coding": [{"system": "http://hl7.org/fhir/administrative-gender", "code": "male"}]
                            }
                        }
                    ]
                },
                {"communication": [{"language": {"coding": [{"code": "male"}]}}]},
                ("error", "code-invalid", "Patient.communication[0].language"),
            ),
            (
                {
                    "path": "Patient.maritalStatus",
                    "binding": {"strength": "extensible", "valueSet": "http://hl7.org/fhir/ValueSet/marital-status"},
                },
                {"maritalStatus": {"text": "nobody knows"}},
                {"maritalStatus": {"coding": [{"system": "http://x.org", "code": "M"}]}},
                ("warning", "code-invalid", "Patient.maritalStatus"),
            ),
            (
                {
                    "path": "Patient.maritalStatus",
                    "binding": {
                        "strength": "preferred",
                        "extension": [
                            {
                                "url": f"{R4}/elementdefinition-maxValueSet",
                                "valueCanonical": "http://hl7.org/fhir/ValueSet/marital-status",
                            }
                        ],
                    },
                },
                {},
                {"maritalStatus": {"coding": [{"system": "http://x.org", "code": "M"}]}},
                ("error", "code-invalid", "Patient.maritalStatus"),
            ),
            (
                {
                    "path": "Patient.maritalStatus",
                    "binding": {"strength": "required", "valueSet": "http://example.org/unheard-of"},
                },
                {"maritalStatus": {"coding": [{"system": "http://x.org", "code": "M"}]}},
                None,
                None,
            ),
        ],
    )
    def test_constraints(self, known: Any, element: dict, good: dict, bad: dict | None, issue: Any) -> None:
        given = profile("one", "Patient", element)
        assert known(patient(**good or {"active": True}), given) == []
        if bad is not None:
            assert known(patient(**bad or {"active": True}), given) == [issue]

    def test_all_faults_at_once(self, known: Any) -> None:
        given = profile(
            "one",
            "Patient",
            {"path": "Patient.birthDate", "min": 1},
            {"path": "Patient.gender", "min": 1},
            {"path": "Patient.name.family", "min": 1},
        )
        assert len(known(patient(name=[{"text": "a"}]), given)) == 3

    def test_a_profile_demands_what_its_base_demands(self, known: Any) -> None:
        base = profile(
            "base", "Patient", {"path": "Patient.birthDate", "min": 1}, {"path": "Patient.name", "max": "2"}
        )
        given = profile("one", "Patient", {"path": "Patient.gender", "min": 1}, base=base["url"])
        found = known(patient(name=[{"text": "a"}] * 3), given, base)
        assert found == [
            ("error", "required", "Patient.birthDate"),
            ("error", "structure", "Patient.name"),
            ("error", "required", "Patient.gender"),
        ]

    def test_a_snapshot_does_where_the_base_is_not_known(self, known: Any) -> None:
        given = profile("one", "Patient", {"path": "Patient"}, base=f"{URL}/unheard-of")
        given["snapshot"] = {
            "element": [
                {
                    "id": "Patient",
                    "path": "Patient",
                    "min": 0,
                    "max": "*",
                    "base": {"path": "Patient", "min": 0, "max": "*"},
                },
                {
                    "id": "Patient.birthDate",
                    "path": "Patient.birthDate",
                    "min": 1,
                    "max": "1",
                    "definition": "x",
                    "base": {"path": "Patient.birthDate", "min": 0, "max": "1"},
                },
            ]
        }
        given["snapshot"]["element"][0]["definition"] = "x"
        assert known(patient(active=True), given) == [("error", "required", "Patient.birthDate")]

    def test_profiles_of_types_and_of_contained_targets(self, known: Any) -> None:
        cuff = profile("cuff", "Device", {"path": "Device.serialNumber", "min": 1})
        small = profile("small", "Quantity", {"path": "Quantity.unit", "min": 1})
        given = profile(
            "one",
            "Observation",
            {"path": "Observation.value[x]", "type": [{"code": "Quantity", "profile": [small["url"]]}]},
            {"path": "Observation.device", "type": [{"code": "Reference", "targetProfile": [cuff["url"]]}]},
        )
        device = {"resourceType": "Device", "id": "d"}
        resource = observation(contained=[device], device={"reference": "#d"}, valueQuantity={"value": 1})
        assert known(resource, given, small, cuff) == [
            ("error", "required", "Observation.value.unit"),
            ("error", "required", "Observation.contained[0].serialNumber"),
        ]
        resource["contained"] = [{**device, "serialNumber": "7"}]
        resource["valueQuantity"]["unit"] = "mm"
        assert known(resource, given) == []


class TestSlices:
    PHONES = (
        {
            "path": "Patient.telecom",
            "slicing": {"discriminator": [{"type": "value", "path": "system"}], "rules": "open"},
            "min": 1,
        },
        slice_of("Patient.telecom", "phone", min=1, max="1"),
        {"id": "Patient.telecom:phone.system", "path": "Patient.telecom.system", "min": 1, "fixedCode": "phone"},
        {"id": "Patient.telecom:phone.value", "path": "Patient.telecom.value", "min": 1},
        slice_of("Patient.telecom", "mail"),
        {"id": "Patient.telecom:mail.system", "path": "Patient.telecom.system", "min": 1, "fixedCode": "email"},
    )
    PHONE, MAIL, FAX = ({"system": system, "value": "1"} for system in ("phone", "email", "fax"))

    def rules(self, **changes: Any) -> dict:
        elements = copy.deepcopy(self.PHONES)
        elements[0]["slicing"] |= changes
        return profile("one", "Patient", *elements)

    @pytest.mark.parametrize(
        ("changes", "telecom", "issues"),
        [
            ({}, [PHONE, MAIL, FAX, FAX], []),
            ({}, [FAX], [("error", "required", "Patient.telecom")]),
            ({}, [PHONE, PHONE], [("error", "structure", "Patient.telecom")]),
            ({}, [{"system": "phone", "use": "home"}], [("error", "required", "Patient.telecom[0].value")]),
            ({"rules": "closed"}, [PHONE, FAX], [("error", "structure", "Patient.telecom[1]")]),
            ({"rules": "openAtEnd"}, [PHONE, FAX], []),
            ({"rules": "openAtEnd"}, [FAX, PHONE], [("error", "structure", "Patient.telecom[1]")]),
            ({"ordered": True}, [PHONE, FAX, MAIL], []),
            ({"ordered": True}, [MAIL, PHONE], [("error", "structure", "Patient.telecom[1]")]),
        ],
    )
    def test_rules(self, known: Any, changes: dict, telecom: list, issues: list) -> None:
        assert known(patient(telecom=telecom), self.rules(**changes)) == issues

    def test_without_ids_the_order_tells(self) -> None:
        elements = self.rules()["differential"]["element"]
        bare = [{name: value for name, value in one.items() if name != "id"} for one in elements]
        slices = build("Patient", [bare]).children["telecom"].slices
        assert {name: slice.children["system"].fixed for name, slice in slices.items()} == {
            "phone": "phone",
            "mail": "email",
        }

    def test_a_profile_narrows_the_slices_of_its_base(self, known: Any) -> None:
        base = self.rules()
        given = profile("two", "Patient", slice_of("Patient.telecom", "mail", min=1), base=base["url"])
        assert known(patient(telecom=[self.PHONE]), given, base) == [("error", "required", "Patient.telecom")]
        assert known(patient(telecom=[self.PHONE, self.MAIL]), given) == []

    def test_slices_of_slices(self, known: Any) -> None:
        given = profile(
            "one",
            "Patient",
            *self.PHONES[:4],
            slice_of(
                "Patient.telecom",
                "mail",
                slicing={"discriminator": [{"type": "value", "path": "use"}], "rules": "closed"},
            ),
            self.PHONES[5],
            slice_of("Patient.telecom", "mail/work", max="1"),
            {"id": "Patient.telecom:mail/work.use", "path": "Patient.telecom.use", "min": 1, "fixedCode": "work"},
        )
        work, home = ({**self.MAIL, "use": use} for use in ("work", "home"))
        assert known(patient(telecom=[self.PHONE, work]), given) == []
        assert known(patient(telecom=[self.PHONE, work, work]), given) == [("error", "structure", "Patient.telecom")]
        assert known(patient(telecom=[self.PHONE, home]), given) == [("error", "structure", "Patient.telecom[1]")]

    def test_by_pattern_above_the_path(self, known: Any) -> None:
        given = profile(
            "one",
            "Observation",
            {
                "path": "Observation.category",
                "slicing": {"discriminator": [{"type": "pattern", "path": "$this"}], "rules": "open"},
            },
            slice_of(
                "Observation.category",
                "lab",
                min=1,
                patternCodeableConcept={"coding": [{"system": "http://x.org", "code": "lab"}]},
            ),
        )
        lab = {"coding": [{"system": "http://x.org", "code": "lab", "display": "Laboratory"}]}
        assert known(observation(category=[{"text": "x"}, lab]), given) == []
        assert known(observation(category=[{"text": "x"}]), given) == [("error", "required", "Observation.category")]

    def test_by_existence(self, known: Any) -> None:
        given = profile(
            "one",
            "Patient",
            {
                "path": "Patient.name",
                "slicing": {"discriminator": [{"type": "exists", "path": "period"}], "rules": "open"},
            },
            slice_of("Patient.name", "former", max="1"),
            {"id": "Patient.name:former.period", "path": "Patient.name.period", "min": 1},
            slice_of("Patient.name", "present", min=1),
            {"id": "Patient.name:present.period", "path": "Patient.name.period", "max": "0"},
        )
        former = {"text": "a", "period": {"end": "2000"}}
        assert known(patient(name=[former, {"text": "b"}]), given) == []
        assert known(patient(name=[former, former]), given) == [
            ("error", "structure", "Patient.name"),
            ("error", "required", "Patient.name"),
        ]

    def test_by_type_of_a_choice(self, known: Any) -> None:
        given = profile(
            "one",
            "Observation",
            {
                "path": "Observation.value[x]",
                "slicing": {"discriminator": [{"type": "type", "path": "$this"}], "rules": "closed"},
            },
            slice_of("Observation.value[x]", "valueQuantity", type=[{"code": "Quantity"}]),
            {"id": "Observation.value[x]:valueQuantity.unit", "path": "Observation.value[x].unit", "min": 1},
            slice_of("Observation.value[x]", "valueString", type=[{"code": "string"}]),
        )
        assert known(observation(valueString="x"), given) == []
        assert known(observation(valueQuantity={"value": 1}), given) == [
            ("error", "required", "Observation.value.unit")
        ]
        assert known(observation(valueBoolean=True), given) == [("error", "structure", "Observation.value")]

    def test_by_type_of_what_a_reference_leads_to(self, known: Any) -> None:
        given = profile(
            "one",
            "Observation",
            {
                "path": "Observation.performer",
                "slicing": {"discriminator": [{"type": "type", "path": "resolve()"}], "rules": "open"},
            },
            slice_of(
                "Observation.performer",
                "person",
                min=1,
                type=[{"code": "Reference", "targetProfile": [f"{R4}/Practitioner"]}],
            ),
        )
        office, person = {"reference": "Organization/1"}, {"reference": "Practitioner/1"}
        assert known(observation(performer=[office, person]), given) == []
        assert known(observation(performer=[office]), given) == [("error", "required", "Observation.performer")]

    def test_by_profile(self, known: Any) -> None:
        adult = profile("adult", "Patient", {"path": "Patient.birthDate", "min": 1})
        given = profile(
            "one",
            "Bundle",
            {
                "path": "Bundle.entry",
                "slicing": {"discriminator": [{"type": "profile", "path": "resource"}], "rules": "open"},
            },
            slice_of("Bundle.entry", "adult", min=1),
            {
                "id": "Bundle.entry:adult.resource",
                "path": "Bundle.entry.resource",
                "type": [{"code": "Patient", "profile": [adult["url"]]}],
            },
        )

        def bundle(resource: dict) -> dict:
            return {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": resource}]}

        assert known(bundle(patient(birthDate="1970")), given, adult) == []
        assert known(bundle(patient(gender="male")), given) == [("error", "required", "Bundle.entry")]

    def test_extensions_by_url(self, known: Any) -> None:
        race = profile(
            "race",
            "Extension",
            {"path": "Extension"},
            slice_of("Extension.extension", "text", min=1, max="1"),
            {"id": "Extension.extension:text.url", "path": "Extension.extension.url", "fixedUri": "text"},
            {
                "id": "Extension.extension:text.value[x]",
                "path": "Extension.extension.value[x]",
                "min": 1,
                "type": [{"code": "string"}],
            },
            {"path": "Extension.url", "fixedUri": f"{URL}/race"},
            {"path": "Extension.value[x]", "max": "0"},
        )
        given = profile(
            "one",
            "Patient",
            slice_of(
                "Patient.extension", "race", min=1, max="1", type=[{"code": "Extension", "profile": [race["url"]]}]
            ),
        )

        def told(**inner: Any) -> dict:
            return patient(extension=[{"url": f"{URL}/race", "extension": [{"url": "text", **inner}]}])

        assert known(told(valueString="x"), given, race) == []
        assert known(told(valueBoolean=True), given) == [
            ("error", "structure", "Patient.extension[0].extension[0].value")
        ]
        other = patient(extension=[{"url": "http://x.org", "valueString": "x"}])
        assert known(other, given) == [("error", "required", "Patient.extension")]
        wrong = patient(extension=[{"url": f"{URL}/race", "extension": [{"url": "else", "valueString": "x"}]}])
        assert known(wrong, given) == [("error", "required", "Patient.extension[0].extension")]

    def test_slices_that_cannot_be_told_apart_are_said_to_be_so(self, known: Any) -> None:
        given = profile(
            "one",
            "Patient",
            {
                "path": "Patient.name",
                "slicing": {"discriminator": [{"type": "value", "path": "use"}], "rules": "open"},
            },
            slice_of("Patient.name", "any", min=1),
        )
        assert known(patient(name=[{"text": "a"}]), given) == [("information", "not-supported", "Patient.name")]


REASON = {"reasonCode": [{"text": "pain"}]}
IMAGING = {"coding": [{"system": "http://snomed.info/sct", "code": "363679005"}]}
ORDER = {
    "resourceType": "ServiceRequest",
    "status": "active",
    "intent": "order",
    "category": [IMAGING],
    "code": {"text": "CT"},
    "subject": {"reference": "Patient/p"},
    "authoredOn": "2026-01-01",
    "requester": {"reference": "Organization/o"},
    "performer": [{"reference": "Organization/r"}],
    **REASON,
}
TRACKER = {
    "resourceType": "Task",
    "status": "requested",
    "intent": "order",
    "code": {"coding": [{"system": "http://hl7.org/fhir/CodeSystem/task-code", "code": "fulfill"}]},
    "focus": {"reference": "ServiceRequest/s"},
    "for": {"reference": "Patient/p"},
    "authoredOn": "2026-01-01",
    "requester": {"reference": "Organization/o"},
}
STATE = {
    "coding": [
        {"system": "http://x.org", "code": "x"},
        {"system": f"{CANONICAL}/CodeSystem/referral-business-status", "code": "received"},
    ]
}
VISIT = {
    "resourceType": "Appointment",
    "status": "booked",
    "start": "2026-01-01T10:00:00Z",
    "end": "2026-01-01T10:30:00Z",
    "slot": [{"reference": "Slot/s"}],
    "basedOn": [{"reference": "ServiceRequest/s"}],
    "participant": [
        {"actor": {"reference": "Location/l"}, "status": "accepted"},
        {"actor": {"reference": "Patient/p"}, "status": "accepted"},
    ],
}
STUDY = {
    "resourceType": "ImagingStudy",
    "identifier": [{"system": "urn:dicom:uid", "value": "urn:oid:1.2.3"}],
    "status": "available",
    "subject": {"reference": "Patient/p"},
    "endpoint": [{"reference": "Endpoint/e"}],
    "numberOfSeries": 1,
    "numberOfInstances": 2,
    "series": [{"uid": "1.2.3.4", "modality": {"code": "CT"}, "numberOfInstances": 2}],
}
ANSWERS = {
    "resourceType": "QuestionnaireResponse",
    "basedOn": [{"reference": "ServiceRequest/s"}],
    "questionnaire": f"{CANONICAL}/Questionnaire/referral-feedback|1.0.0",
    "status": "completed",
    "subject": {"reference": "Patient/p"},
    "authored": "2026-01-01",
    "item": [{"linkId": "ease", "answer": [{"valueInteger": 5}]}],
}


class TestOurOwn:
    """`conformance/definitions`; that what the server itself writes meets them is in tests/radloop."""

    @pytest.mark.parametrize(
        ("good", "changes", "issue"),
        [
            (ORDER, {}, None),
            (ORDER, {"category": [{"text": "x"}, IMAGING]}, None),
            (ORDER, {"category": [{"text": "x"}]}, ("required", "ServiceRequest.category")),
            (ORDER, {"subject": {"reference": "Group/1"}}, ("structure", "ServiceRequest.subject.reference")),
            (ORDER, {"reasonCode": None}, ("invariant", "ServiceRequest")),
            (ORDER, {"performer": None}, ("required", "ServiceRequest.performer")),
            (TRACKER, {"businessStatus": STATE}, None),
            (TRACKER, {"businessStatus": {"text": "x"}}, ("code-invalid", "Task.businessStatus")),
            (TRACKER, {"focus": {"reference": "Patient/p"}}, ("structure", "Task.focus.reference")),
            (TRACKER, {"code": {"text": "x"}}, ("value", "Task.code")),
            (
                TRACKER,
                {"extension": [{"url": f"{CANONICAL}/StructureDefinition/referral-state-since", "valueString": "x"}]},
                ("structure", "Task.extension[0].value"),
            ),
            (VISIT, {}, None),
            (VISIT, {"participant": VISIT["participant"][:1]}, ("required", "Appointment.participant")),
            (VISIT, {"basedOn": None}, ("required", "Appointment.basedOn")),
            (STUDY, {}, None),
            (STUDY, {"numberOfInstances": 3}, ("invariant", "ImagingStudy")),
            (STUDY, {"identifier": [{"value": "1"}]}, ("required", "ImagingStudy.identifier")),
            (
                STUDY,
                {"identifier": [{"system": "urn:dicom:uid", "value": "1.2"}]},
                ("invariant", "ImagingStudy.identifier[0].value"),
            ),
            (ANSWERS, {}, None),
            (ANSWERS, {"status": "in-progress"}, ("invariant", "QuestionnaireResponse.status")),
            (ANSWERS, {"questionnaire": "http://x.org"}, ("invariant", "QuestionnaireResponse.questionnaire")),
        ],
    )
    def test_profiles(self, repository: Repository, good: dict, changes: dict, issue: Any) -> None:
        for definition in conformance.conformance_resources():
            if definition["resourceType"] in ("CodeSystem", "ValueSet"):
                repository.update(PRACTICE, definition)
        resource = {name: value for name, value in (good | changes).items() if value is not None}
        (url,) = own_profiles(good["resourceType"])
        invalid, named = repository.judge(resource, [url])
        assert invalid == []
        assert [(one.code, one.expression) for one in named] == ([] if issue is None else [issue])


class TestWrites:
    GIVEN = profile("one", "Patient", {"path": "Patient.birthDate", "min": 1})

    def named(self, **elements: Any) -> dict:
        return patient(meta={"profile": [f"{URL}/one"]}, **elements)

    def test_what_names_a_profile_must_meet_it(self, repository: Repository) -> None:
        repository.update(PRACTICE, self.GIVEN)
        with pytest.raises(Unprocessable) as refused:
            repository.create(PRACTICE, self.named(gender="male"))
        assert [(one.code, one.expression) for one in refused.value.issues] == [("required", "Patient.birthDate")]
        repository.create(PRACTICE, self.named(birthDate="1970"))
        repository.create(PRACTICE, patient(gender="male"))

    def test_faults_of_r4_and_of_the_profile_are_told_together(self, repository: Repository) -> None:
        repository.update(PRACTICE, self.GIVEN)
        with pytest.raises(InvalidStructure) as refused:
            repository.create(PRACTICE, self.named(gender="blue"))
        assert {one.code for one in refused.value.issues} == {"required", "code-invalid"}

    def test_a_contained_resource_must_meet_its_profile_too(self, repository: Repository) -> None:
        repository.update(PRACTICE, self.GIVEN)
        resource = observation(contained=[{**self.named(gender="male"), "id": "p"}], subject={"reference": "#p"})
        with pytest.raises(Unprocessable) as refused:
            repository.create(PRACTICE, resource)
        assert [one.expression for one in refused.value.issues] == ["Observation.contained[0].birthDate"]

    def test_an_unknown_profile_is_no_fault(self, repository: Repository) -> None:
        repository.create(PRACTICE, self.named(gender="male"))

    def test_a_profile_is_known_as_soon_as_it_is_written(self, repository: Repository) -> None:
        others = Repository(repository.store, repository.base_url, repository.clock)  # as in another process
        others.create(PRACTICE, self.named(gender="male"))
        repository.update(PRACTICE, self.GIVEN)
        with pytest.raises(Unprocessable):
            others.create(PRACTICE, self.named(gender="male"))
        changed = profile("one", "Patient", {"path": "Patient.gender", "min": 1})
        repository.update(PRACTICE, changed)
        others.create(PRACTICE, self.named(gender="male"))
        repository.delete(PRACTICE, "StructureDefinition", "one")
        others.create(PRACTICE, self.named(active=True))

    def test_profiles_are_the_practices_to_define(self, repository: Repository) -> None:
        repository.admissions["StructureDefinition"] = (by_the_practice,)
        repository.update(PRACTICE, self.GIVEN)
        for write in (repository.update, repository.create):
            with pytest.raises(Forbidden):
                write(an_office("o1"), profile("two", "Patient", {"path": "Patient.photo", "max": "0"}))
        with pytest.raises(Forbidden):
            repository.delete(an_office("o1"), "StructureDefinition", "one")

    def test_what_r4_defines_cannot_be_redefined(self, repository: Repository, shared_data: Path) -> None:
        repository.update(
            PRACTICE, {**profile("bp", "Observation", {"path": "Observation.note", "min": 1}), "url": BP}
        )
        _, named = repository.judge(pressure(shared_data))
        assert named == []


class TestValidate:
    @pytest.fixture
    def app(self, repository: Repository) -> Flask:
        return app_with(repository, standard.operations(repository))

    def validate(self, client: FlaskClient, resource: dict, query: str = "") -> list[tuple[str, str]]:
        path = f"/fhir/{resource['resourceType']}/$validate{query}"
        answer = client.post(path, data=json.dumps(resource), content_type="application/fhir+json")
        assert answer.status_code == 200
        return [(one["severity"], one["code"]) for one in answer.get_json()["issue"]]

    def test_by_a_profile_of_the_call(self, client: FlaskClient, repository: Repository) -> None:
        repository.update(PRACTICE, TestWrites.GIVEN)
        query = f"?profile={URL}/one"
        assert self.validate(client, patient(gender="male"), query) == [("error", "required")]
        assert self.validate(client, patient(birthDate="1970"), query) == [("information", "informational")]
        assert self.validate(client, patient(gender="male")) == [("information", "informational")]

    def test_of_a_stored_resource(self, client: FlaskClient, repository: Repository) -> None:
        repository.update(PRACTICE, TestWrites.GIVEN)
        repository.update(PRACTICE, patient(id="p", gender="male"))
        answer = client.get(f"/fhir/Patient/p/$validate?mode=profile&profile={URL}/one")
        assert [issue["code"] for issue in answer.get_json()["issue"]] == ["required"]

    def test_a_code_outside_an_extensible_value_set_is_a_warning(self, client: FlaskClient) -> None:
        def married(system: str, code: str) -> dict:
            return patient(maritalStatus={"coding": [{"system": system, "code": code}]})

        marital = "http://terminology.hl7.org/CodeSystem/v3-MaritalStatus"
        assert self.validate(client, married(marital, "M")) == [("information", "informational")]
        assert self.validate(client, married("http://x.org", "M")) == [("warning", "code-invalid")]
        assert self.validate(client, patient(maritalStatus={"text": "x"})) == [("information", "informational")]

    def test_a_profile_that_is_not_known_is_told(self, client: FlaskClient) -> None:
        assert self.validate(client, TestWrites().named(gender="male")) == [("information", "not-found")]


ENDLESS = [
    profile("one", "Patient", {"path": "Patient"}, base=f"{URL}/one"),
    profile("one", "Observation", {"path": "Patient.name", "min": 1}),
    profile("one", "Patient", {"path": "Patient.unheard.of", "min": 1}),
    profile("one", "Patient", {"path": ".".join(["Patient", *["contact"] * 500])}),
    profile("one", "Patient", {"path": "Patient", "constraint": [rule("x", "(" * 3000)]}),
    profile("one", "Patient", {"path": "Patient", "constraint": [rule("x", "descendants()" * 30)]}),
    profile(
        "one",
        "Patient",
        {
            "path": "Patient",
            "constraint": [rule("x", ".".join(["descendants().select(%resource.descendants())"] * 9))],
        },
    ),
    profile(
        "one", "Patient", {"path": "Patient", "constraint": [rule("x", f"'{'a' * 99}'.matches('(a|a)*?(a|aa)+$b')")]}
    ),
    profile(
        "one", "Patient", {"path": "Patient.extension", "type": [{"code": "Extension", "profile": [f"{URL}/one"]}]}
    ),
    profile(
        "one", "Patient", {"path": "Patient.contained", "type": [{"code": "Patient", "profile": [f"{URL}/one"]}]}
    ),
    profile(
        "one",
        "Patient",
        {"path": "Patient.link.other", "type": [{"code": "Reference", "targetProfile": [f"{URL}/one"]}]},
        {
            "path": "Patient.generalPractitioner",
            "type": [{"code": "Reference", "targetProfile": [f"{URL}/one"] * 20}],
        },
    ),
    profile(
        "one",
        "Patient",
        {
            "path": "Patient.name",
            "slicing": {"discriminator": [{"type": "value", "path": "$this." * 99}], "rules": "open"},
        },
        slice_of("Patient.name", "/" * 50, min=1),
    ),
    profile("one", "Patient", *[slice_of("Patient.name", f"s{n}", min=1) for n in range(2000)]),
]


@pytest.mark.parametrize("given", ENDLESS)
def test_a_hostile_profile_ends_and_refuses_nothing_by_itself(repository: Repository, given: dict) -> None:
    try:
        repository.update(PRACTICE, given)
    except (InvalidStructure, Unprocessable):
        return
    resource = patient(
        meta={"profile": [given["url"]]},
        name=[{"text": "a", "given": ["b"] * 50}] * 50,
        extension=[{"url": f"{URL}/one", "valueString": "x"}] * 50,
        contained=[{"resourceType": "Patient", "id": "p", "link": [{"other": {"reference": "#"}, "type": "refer"}]}],
        link=[{"other": {"reference": "#p"}, "type": "refer"}] * 50,
    )
    try:
        repository.create(PRACTICE, resource)
    except Unprocessable as refused:
        assert refused.issues


def bent(definition: dict, chance: random.Random) -> dict:
    """The definition with some of its values swapped or left out."""
    bent = copy.deepcopy(definition)
    objects = [one for element in bent["differential"]["element"] for one in _objects(element)]
    for _ in range(chance.randint(1, 4)):
        one = chance.choice(objects)
        name = chance.choice([name for other in objects for name in other])
        if chance.random() < 0.2:
            one.pop(name, None)
        elif name in one:
            one[name] = copy.deepcopy(chance.choice([other[name] for other in objects if name in other]))
        else:
            sibling = chance.choice([other for other in objects if name in other])
            one, sibling = sibling, one if one.keys() & sibling.keys() else sibling
            one |= copy.deepcopy({name: value for name, value in sibling.items() if name not in ("id", "path")})
    return bent


def _objects(value: Any) -> Iterator[dict]:
    if isinstance(value, dict):
        yield value
        for child in value.values():
            yield from _objects(child)
    elif isinstance(value, list):
        for child in value:
            yield from _objects(child)


def test_no_definition_that_is_let_in_breaks_a_validation(repository: Repository, shared_data: Path) -> None:
    chance = random.Random(11)
    resource = pressure(shared_data)
    profiles = [found for url in r4_profiles() if (found := shipped_profile(url)) and found["type"] == "Observation"]
    stored = 0
    for number in range(250):
        given = bent(chance.choice(profiles), chance)
        given |= {"url": f"{URL}/bent", "id": "bent", "status": "active", "abstract": False, "name": f"Bent{number}"}
        try:
            repository.update(PRACTICE, given)
        except FhirError:
            continue
        stored += 1
        repository.judge(resource, [f"{URL}/bent"])
    assert stored > 50
