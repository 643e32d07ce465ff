"""One validation: the faults found so far, and where it is."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from fhir_server.errors import Issue

MAX_ISSUES = 100
MAX_DEPTH = 60
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Enough(Exception):
    """So many faults that listing more helps nobody."""


@dataclass(frozen=True, slots=True)
class Profiled:
    """A resource that names profiles, and its place. root: the resource it is contained in, or itself; its place."""

    resource: dict
    path: str
    profiles: tuple[str, ...]
    root: tuple[dict, str]


@dataclass(slots=True)
class Run:
    """contained: id -> type of the resources that `#id` references may lead to here. depth: of nested objects.

    invariants: whether those of R4 are looked at. root: the resource it is in that is not contained, with its place.
    profiled: the resources that name profiles.
    """

    issues: list[Issue] = field(default_factory=list)
    contained: Mapping[str, str] = field(default_factory=dict)
    depth: int = 0
    invariants: bool = True
    root: tuple[dict, str] | None = None
    profiled: list[Profiled] = field(default_factory=list)

    def fault(self, code: str, diagnostics: str, expression: str) -> None:
        """Note a fault. diagnostics must not repeat content of the resource. Raises Enough."""
        self.issues.append(Issue(code, diagnostics, expression))
        if len(self.issues) >= MAX_ISSUES:
            self.issues.append(
                Issue("incomplete", f"only the first {MAX_ISSUES} faults are listed", severity="information")
            )
            raise Enough

    def note_profiles(self, resource: dict, path: str) -> None:
        """Keep what profiles a resource says that it meets."""
        meta = resource["meta"]
        named = meta.get("profile") if isinstance(meta, dict) else None
        if isinstance(named, list):
            profiles = tuple(url for url in named if isinstance(url, str) and url)
            self.profiled.append(Profiled(resource, path, profiles, self.root or (resource, path)))


def member(path: str, name: str) -> str:
    """FHIRPath of a child element; a name that is no identifier is quoted, and cut when it is long."""
    if _NAME.fullmatch(name):
        return f"{path}.{name[:64]}"
    quoted = name[:64].encode("ascii", "backslashreplace").decode().replace("`", "'")
    return f"{path}.`{quoted}`"
