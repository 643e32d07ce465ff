"""The patients that a user can choose from when an app wants one (standalone launch)."""

import re
from dataclasses import dataclass

from fhir_server.access import Access
from fhir_server.errors import FhirError
from fhir_server.repository import Repository

MAX_FOUND = 20
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Choice:
    """One patient. reference: `Patient/<id>`."""

    reference: str
    name: str
    birth_date: str
    numbers: str


@dataclass(frozen=True, slots=True)
class Patients:
    """Finds patients among those that the caller may see."""

    repository: Repository

    def find(self, access: Access, text: str) -> list[Choice]:
        """Up to MAX_FOUND patients with that date of birth, or with that number, or with names that begin so."""
        text = text.strip()[:100]
        if not text:
            return []
        if _DATE.fullmatch(text):
            return self._search(access, [("birthdate", text)])
        escaped = re.sub(r"([\\,$|])", r"\\\1", text)
        names = [("name", re.sub(r"([\\,$|])", r"\\\1", word)) for word in text.split()]
        return self._search(access, [("identifier", escaped)]) or self._search(access, names)

    def choice(self, access: Access, reference: str) -> Choice | None:
        """That patient; None when there is none, or none that the caller may see."""
        if not reference.startswith("Patient/"):
            return None
        try:
            return _choice(self.repository.read(access, "Patient", reference.removeprefix("Patient/")).resource())
        except FhirError:
            return None

    def _search(self, access: Access, parameters: list[tuple[str, str]]) -> list[Choice]:
        query = [*parameters, ("active:not", "false"), ("_count", str(MAX_FOUND))]
        found = self.repository.search(access, "Patient", query, strict=True)
        return [_choice(version.resource()) for version in found.matches]


def _choice(patient: dict) -> Choice:
    names = patient.get("name") or [{}]
    name = next((one for one in names if one.get("use") == "official"), names[0])
    written = name.get("text") or " ".join([*name.get("given", []), name.get("family", "")]).strip()
    numbers = ", ".join(one["value"] for one in patient.get("identifier", []) if "value" in one)
    return Choice(f"Patient/{patient['id']}", written or "no name", patient.get("birthDate", ""), numbers)
