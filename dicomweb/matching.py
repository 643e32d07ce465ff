"""Which order a study belongs to. Never a guess: a study without a sure match stays without a patient of ours."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from conformance import CANONICAL
from dicomweb.dicom_json import Attributes, items, text
from fhir_server import references
from fhir_server.access import Access
from fhir_server.repository import Repository

ACCESSION_SYSTEM = f"{CANONICAL}/accession-number"  # of the numbers that the practice itself gives
SYSTEM = Access.system("dicomweb")
MAX_CANDIDATES = 20
MAX_NUMBER = 64
_REQUESTS, _PLACER_NUMBER = "00400275", "00402016"


@dataclass(frozen=True, slots=True)
class StudyAttributes:
    """What a study says of its order and patient. Empty strings where it says nothing."""

    study_instance_uid: str
    accession_numbers: tuple[str, ...]
    placer_order_numbers: tuple[str, ...]
    patient_id: str
    issuer_of_patient_id: str
    patient_name: str
    patient_birth_date: str  # YYYY-MM-DD


@dataclass(frozen=True, slots=True)
class Match:
    """subject: `Patient/1`. based_on: `ServiceRequest/2`, one or more. accession_system: of a number of ours."""

    subject: str
    based_on: tuple[str, ...]
    accession_system: str | None = None


Matcher = Callable[[StudyAttributes], Match | None]


def study_attributes(study: str, attributes: Attributes, series: Iterable[Attributes]) -> StudyAttributes:
    """Gather from the attributes of the study, and from the request attributes of its series: a study that serves
    several orders names each there."""
    places = [attributes, *(item for one in series for item in (one, *items(one, _REQUESTS)))]
    birth_date = text(attributes, "00100030")
    return StudyAttributes(
        study,
        _numbers(text(place, "00080050") for place in places),
        _numbers(text(place, _PLACER_NUMBER) for place in places),
        text(attributes, "00100020"),
        text(attributes, "00100021"),
        text(attributes, "00100010"),
        f"{birth_date[:4]}-{birth_date[4:6]}-{birth_date[6:]}" if len(birth_date) == 8 else "",
    )


class OrderMatcher:
    """Finds orders in the Repository: by the practice's accession number on the Task of a referral, by an identifier
    of the order itself, by the placer's order number."""

    def __init__(self, repository: Repository, accession_system: str = ACCESSION_SYSTEM) -> None:
        self._repository = repository
        self._accession_system = accession_system

    def __call__(self, study: StudyAttributes) -> Match | None:
        """The order or orders, all of one patient who is not contradicted by the study; else None."""
        for orders, system in self._candidates(study):
            by_subject: dict[str, list[str]] = {}
            for order in orders:
                subject = self._subject(order)
                if subject and self._may_be(subject, study):
                    by_subject.setdefault(subject, []).append(f"ServiceRequest/{order['id']}")
            if len(by_subject) == 1:
                subject, based_on = by_subject.popitem()
                return Match(subject, tuple(sorted(set(based_on))), system)
        return None

    def why_not(self, study: StudyAttributes) -> str:
        """Why there is no match: `other-patient`, `several-patients`, `unknown-number` or `no-number`."""
        for orders, _ in self._candidates(study):
            subjects = {subject for order in orders if (subject := self._subject(order))}
            if subjects:
                return "several-patients" if sum(self._may_be(s, study) for s in subjects) > 1 else "other-patient"
        return "unknown-number" if study.accession_numbers or study.placer_order_numbers else "no-number"

    def _candidates(self, study: StudyAttributes) -> Iterator[tuple[list[dict], str | None]]:
        """The surest first."""
        ours = self._accession_system
        numbers = [f"{ours}|{_escaped(number)}" for number in study.accession_numbers]
        tasks = [task for number in numbers for task in self._search("Task", number)]
        yield self._focused(tasks) + [o for number in numbers for o in self._search("ServiceRequest", number)], ours
        for identifiers in (study.accession_numbers, study.placer_order_numbers):
            yield [o for number in identifiers for o in self._search("ServiceRequest", _escaped(number))], None

    def _search(self, resource_type: str, identifier: str) -> list[dict]:
        parameters = [("identifier", identifier), ("_count", str(MAX_CANDIDATES))]
        found = self._repository.search(SYSTEM, resource_type, parameters, strict=True)
        return [version.resource() for version in found.matches]

    def _focused(self, tasks: list[dict]) -> list[dict]:
        """The orders that the Tasks are about."""
        targets = {self._local(task.get("focus")) for task in tasks}
        orders = {target for target in targets if target and target[0] == "ServiceRequest"}
        return [version.resource() for version in self._repository.store.newest_many(sorted(orders))]

    def _subject(self, order: dict) -> str | None:
        target = self._local(order.get("subject"))
        return f"Patient/{target[1]}" if target and target[0] == "Patient" else None

    def _local(self, reference: object) -> tuple[str, str] | None:
        literal = reference.get("reference") if isinstance(reference, dict) else None
        return references.local(literal, self._repository.base_url) if isinstance(literal, str) else None

    def _may_be(self, subject: str, study: StudyAttributes) -> bool:
        """Whether the study does not contradict that this is its patient."""
        found = self._repository.store.newest_many([("Patient", subject.partition("/")[2])])
        if not found:
            return False
        patient = found[0].resource()
        known = {identifier.get("value") for identifier in patient.get("identifier", [])} - {None}
        if study.patient_id and known:
            return study.patient_id in known
        born = patient.get("birthDate", "")
        return not (born and study.patient_birth_date) or study.patient_birth_date.startswith(born)


def identifiers_of(resource: dict) -> list[str]:
    """The values of a resource's identifiers."""
    return [i["value"] for i in resource.get("identifier", []) if isinstance(i, dict) and i.get("value")]


def _escaped(value: str) -> str:
    """A value as it stands in a search parameter. https://hl7.org/fhir/R4/search.html#escaping"""
    return "".join(f"\\{sign}" if sign in "\\,|$" else sign for sign in value)


def _numbers(values: Iterable[str]) -> tuple[str, ...]:
    """Those that can be somebody's number: SH has 16 characters and LO 64, none of them a control character."""
    return tuple(
        dict.fromkeys(value for value in values if value and value.isprintable() and len(value) <= MAX_NUMBER)
    )
