"""What a terminology operation is asked about."""

from dataclasses import dataclass

from fhir_server.errors import BadRequest, FhirError, Issue
from fhir_server.operation import OperationRequest
from fhir_server.operations.parameters import Given, Parameters, below
from fhir_server.terminology.source import Terminology

CODED = {
    "code": ("code", 1),
    "display": ("string", 1),
    "coding": ("Coding", 1),
    "codeableConcept": ("CodeableConcept", 1),
}


@dataclass(frozen=True, slots=True)
class Coded:
    """A code as asked about. path: where it stood."""

    system: str | None
    code: str
    version: str | None
    display: str | None
    path: str | None


def only_one(request: OperationRequest, given: Parameters, url: str, resource: str) -> None:
    """Raises BadRequest where it is said twice what the operation is about."""
    if (request.id is not None) + bool(given.all(url)) + bool(given.all(resource)) > 1:
        raise BadRequest(f"one of the resource of the address, {url} and {resource}")


def checked(terminology: Terminology, sent: Given) -> dict:
    """A resource sent along, valid R4. Raises BadRequest with its faults."""
    try:
        terminology.repository.check(sent.value)
    except FhirError as error:
        error.issues = below(sent.path, error)
        raise
    return sent.value


def coded_values(given: Parameters, version: str, need_system: bool) -> list[Coded]:
    """The codes asked about: of `code`, `coding` or `codeableConcept`, of which there is one."""
    asked = [one for name in ("code", "coding", "codeableConcept") if (one := given.one(name)) is not None]
    if len(asked) != 1:
        raise missing("one of code, coding and codeableConcept")
    if (code := given.one("code")) is not None:
        system = given.value("system")
        if system is None and need_system:
            raise missing("system")
        return [Coded(system, code.value, given.value(version), given.value("display"), code.path)]
    if (coding := given.one("coding")) is not None:
        return [coding_value(coding.value, coding.path)]
    concept = asked[0]
    codings = concept.value.get("coding")
    if not isinstance(codings, list) or not codings:
        raise BadRequest("the codeableConcept has no coding", concept.path)
    return [coding_value(one, f"{concept.path}.coding[{index}]") for index, one in enumerate(codings)]


def coding_value(value: object, path: str | None) -> Coded:
    if not isinstance(value, dict) or not isinstance(value.get("code"), str) or not value["code"]:
        raise BadRequest("a Coding with a code is expected", path)
    for name in ("system", "version", "display"):
        if not isinstance(value.get(name, ""), str):
            raise BadRequest(f"{name} is a string", f"{path}.{name}")
    return Coded(value.get("system"), value["code"], value.get("version"), value.get("display"), path)


def of_pair(given: Parameters, letter: str) -> Coded:
    code, coding = given.one(f"code{letter}"), given.one(f"coding{letter}")
    if (code is None) == (coding is None):
        raise missing(f"one of code{letter} and coding{letter}")
    if coding is not None:
        return coding_value(coding.value, coding.path)
    if code is None:
        raise AssertionError("unreachable")
    return Coded(given.value("system"), code.value, given.value("version"), None, code.path)


def missing(what: str, path: str | None = "Parameters.parameter") -> BadRequest:
    text = f"{what} is needed"
    return BadRequest(text, path, [Issue("required", text, path)])
