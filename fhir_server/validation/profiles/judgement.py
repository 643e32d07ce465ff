"""One resource against its profiles: what was found, and what it may still cost."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fhir_server.errors import Issue
from fhir_server.fhirpath.evaluate import Context, Work
from fhir_server.fhirpath.nodes import Node, children, is_a
from fhir_server.validation.run import MAX_ISSUES
from fhir_server.validation.targets import literal_target

if TYPE_CHECKING:
    from fhir_server.validation.profiles.source import Profile, Source

# What it costs to look for a definition that is not at hand; a value set may have to be put together.
_LOOK_UP, _LOOK_UP_CODES = 2_000, 10_000
MAX_RECURSION = 80  # elements inside elements, profiles of elements included


@dataclass(slots=True)
class Judgement:
    """root: the resource that is not contained; around: the one that holds the element looked at.

    active: the (element, profile) being checked, since profiles may lead back to themselves.
    """

    source: "Source"
    root: Node
    around: Node
    work: Work
    issues: dict[Issue, None] = field(default_factory=dict)
    active: set[tuple[int, str]] = field(default_factory=set)
    depth: int = 0

    def tell(self, code: str, diagnostics: str, expression: str, severity: str = "error") -> None:
        """Note a fault, once. diagnostics must not repeat content of the resource."""
        if len(self.issues) < MAX_ISSUES:
            self.issues[Issue(code, diagnostics[:500], expression, severity)] = None

    def unknown(self, url: str, path: str) -> None:
        """No fault: nobody knows every profile."""
        text = f"the profile {url[:200]} is not known here, so that nothing was checked against it"
        self.tell("not-found", text, path, "information")

    @contextmanager
    def on_trial(self) -> Iterator[dict[Issue, None]]:
        """Collect what is found apart, as where several profiles are tried."""
        kept, self.issues = self.issues, {}
        try:
            yield self.issues
        finally:
            self.issues = kept

    def context(self, element: Node) -> Context:
        return Context(self.around, self.root, element, self.work, self.resolve, self.in_value_set)

    def resolve(self, reference: Node) -> Node | None:
        """The resource that a reference leads to, inside of what was sent: contained, or an entry of the Bundle."""
        told = reference.value.get("reference") if isinstance(reference.value, dict) else reference.value
        if not isinstance(told, str):
            return None
        self.work.spend(5)
        if told.startswith("#"):
            contained = children(self.root, "contained")
            if told == "#":
                return self.root
            return next((one for one in contained if _id(one.value) == told[1:]), None)
        if self.root.type != "Bundle":
            return None
        for entry in children(self.root, "entry"):
            self.work.spend()
            url = entry.value.get("fullUrl") if isinstance(entry.value, dict) else None
            if isinstance(url, str) and (url == told or ("/" in told and url.endswith(f"/{told}"))):
                return next(iter(children(entry, "resource")), None)
        return None

    def target_type(self, reference: Node) -> str | None:
        """The resource type that a reference leads to, as far as it tells."""
        if not isinstance(reference.value, dict):
            return None
        found = self.resolve(reference)
        if found is not None:
            return found.type
        told = reference.value.get("type")
        return literal_target(reference.value.get("reference")) or (told if isinstance(told, str) else None)

    def profile(self, url: str) -> "Profile | None":
        if not self.source.has_profile(url):
            self.work.spend(_LOOK_UP)
        return self.source.profile(url)

    def type_of(self, url: str) -> str | None:
        """The R4 type that the profile is about."""
        found = self.profile(url)
        return found.type if found else None

    def in_value_set(self, node: Node, url: str) -> bool | None:
        """Whether a code, Coding, CodeableConcept or Quantity is of the value set; None when that is not known."""
        if not self.source.has_codes(url):
            self.work.spend(_LOOK_UP_CODES)
        codes = self.source.codes(url)
        if codes is None:
            return None
        found = [codes.has(system, code) for system, code in codings(node)]
        self.work.spend(10 * len(found))
        return True if True in found else None if None in found else False


def codings(node: Node) -> list[tuple[str | None, str]]:
    """(system, code) of what is coded; the system is None where the type has none."""
    value = node.value
    if isinstance(value, str):
        return [(None, value)]
    if not isinstance(value, dict):
        return []
    if node.type == "CodeableConcept":
        inside = value.get("coding")
        return [pair for one in inside for pair in _coding(one)] if isinstance(inside, list) else []
    if node.type == "Coding" or is_a(node.type, "Quantity"):
        return list(_coding(value))
    return []


def _coding(value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and isinstance(value.get("code"), str):
        system = value.get("system")
        yield (system if isinstance(system, str) else "", value["code"])


def _id(value: Any) -> Any:
    return value.get("id") if isinstance(value, dict) else None
