"""What searches ask of the terminology: codes of value sets, codes above and below others.
https://hl7.org/fhir/R4/search.html#token
"""

from fhir_server.errors import BadRequest
from fhir_server.repository import Repository
from fhir_server.terminology.code_system import CodeSystem
from fhir_server.terminology.source import READER, Terminology
from fhir_server.terminology.value_set import Composer


class CodeVocabulary:
    """The `Vocabulary` of searches. Definitions are nobody's secret, so that every caller is answered alike."""

    def __init__(self, terminology: Terminology) -> None:
        self._terminology = terminology

    def members(self, value_set: str) -> list[tuple[str, str]]:
        """(system, code) of a value set, by its URL or as `ValueSet/id`. Raises BadRequest, CannotExpand."""
        found = self._terminology.value_set(value_set)
        if found is None and value_set.startswith("ValueSet/"):
            id = value_set.removeprefix("ValueSet/")
            stored = self._terminology.repository.store.newest_many([("ValueSet", id)])
            found = next((version.resource() for version in stored if READER.sees(version.scope)), None)
        if found is None:
            raise BadRequest(f"the value set {value_set[:200]} is not loaded here")
        return [(member.system, member.code) for member in Composer(self._terminology).expand(found)]

    def below(self, system: str, code: str) -> list[str]:
        return list(dict.fromkeys((code, *self._code_system(system).below(code))))

    def above(self, system: str, code: str) -> list[str]:
        return list(dict.fromkeys((code, *self._code_system(system).above(code))))

    def _code_system(self, url: str) -> CodeSystem:
        """Raises BadRequest for a system in which it is not known what is below what."""
        found = self._terminology.code_system(url)
        if found is None or not found.is_complete or not found.is_taxonomy:
            raise BadRequest(f"how the codes of {url[:200]} are ordered is not known here")
        return found


def add_vocabulary(repository: Repository) -> None:
    """Let searches of the repository ask what is known of codes."""
    repository.vocabulary = CodeVocabulary(Terminology(repository))
