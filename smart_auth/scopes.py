"""SMART scopes: parsing, meeting of two sets, writing. https://hl7.org/fhir/smart-app-launch/scopes-and-launch-context.html

Scopes we cannot enforce (with parameters beyond tokens, references and URIs), with letters out of order, or unknown,
are dropped, never fatal.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fhir_server.access import AUDIT_TRAIL, Clause, Scope
from fhir_server.clauses import clauses_of

IDENTITY = ("openid", "fhirUser", "profile")
LAUNCH = ("launch", "launch/patient", "launch/encounter", "launch/imagingstudy")
REFRESH = ("online_access", "offline_access")
WORDS = (*IDENTITY, *LAUNCH, *REFRESH)
V1 = {"read": "rs", "write": "cud", "*": "cruds"}
_V1_NAME = {letters: name for name, letters in V1.items()}
_LETTERS = "cruds"
_GRAMMAR = re.compile(
    r"(patient|user|system)/(\*|[A-Z][A-Za-z]{1,63})\.(?:(c?r?u?d?s?)(?:\?([!#-\[\]-~]{1,2000}))?|(read|write|\*))",
    re.ASCII,
)
MAX_LENGTH = 20_000  # characters of a scope parameter; a scope a type and context makes about 10,000


@dataclass(frozen=True, slots=True)
class Granted:
    """One scope with the form it was asked in. `scope` is None for a word such as `openid`."""

    word: str
    scope: Scope | None = None
    v1: bool = False

    def __str__(self) -> str:
        if self.scope is None:
            return self.word
        if self.v1 and self.scope.letters in _V1_NAME and not self.scope.clauses:
            return f"{self.scope.context}/{self.scope.resource_type}.{_V1_NAME[self.scope.letters]}"
        return str(self.scope)


def parse(text: str) -> tuple[Granted, ...]:
    """The scopes of a space separated list that this server can enforce, in its order, none twice."""
    if len(text) > MAX_LENGTH:
        return ()
    found: dict[str, Granted] = {}
    for word in text.split(" "):
        if word in WORDS:
            found[word] = Granted(word)
            continue
        match = _GRAMMAR.fullmatch(word)
        if match is None:
            continue
        context, resource_type, letters, query, v1 = match.groups()
        letters = V1[v1] if v1 else letters
        clauses = clauses_of(resource_type, query) if query else ()
        if letters and clauses is not None:
            found[word] = Granted(word, Scope(context, resource_type, letters, clauses), bool(v1))
    return tuple(found.values())


def restrict(asked: Iterable[Granted], allowed: Iterable[Granted]) -> tuple[Granted, ...]:
    """What is in both, in the form it was asked in. A `*` that is allowed for some types only becomes these types."""
    allowed = tuple(allowed)
    words = {item.word for item in allowed if item.scope is None}
    rights = [item.scope for item in allowed if item.scope is not None]
    met: dict[str, Granted] = {}
    for item in asked:
        if item.scope is None:
            if item.word in words:
                met[item.word] = item
        else:
            for scope in meet(item.scope, rights):
                kept = Granted(str(scope), scope, item.v1)
                met[str(kept)] = kept
    return tuple(met.values())


def meet(asked: Scope, rights: Sequence[Scope]) -> list[Scope]:
    """The part of one scope that the rights of its own context cover. Parameters of both narrow it."""
    rights = [right for right in rights if right.context == asked.context]
    if asked.resource_type == AUDIT_TRAIL:  # no right to all types is one to that
        rights = [right for right in rights if right.resource_type == AUDIT_TRAIL]
    else:
        rights = [right for right in rights if right.resource_type != AUDIT_TRAIL]
    everywhere = [right for right in rights if right.resource_type == "*"]
    if asked.resource_type != "*":
        own = [right for right in rights if right.resource_type == asked.resource_type]
        return _without_covered(_parts(asked, asked.resource_type, [*everywhere, *own]))
    parts = _parts(asked, "*", everywhere)
    for resource_type in sorted({right.resource_type for right in rights} - {"*"}):
        parts += _parts(asked, resource_type, [right for right in rights if right.resource_type == resource_type])
    return _without_covered(parts)


def _parts(asked: Scope, resource_type: str, rights: Iterable[Scope]) -> list[Scope]:
    """The meeting with each of the rights, all about that type; one scope for those with the same parameters."""
    letters: dict[tuple[Clause, ...], str] = {}
    for right in rights:
        implied = [clause for clause in right.clauses if any(one.keys <= clause.keys for one in asked.clauses)]
        clauses = (*asked.clauses, *(clause for clause in right.clauses if clause not in implied))
        letters[clauses] = letters.get(clauses, "") + right.letters
    met = {clauses: _common(asked.letters, given) for clauses, given in letters.items()}
    return [Scope(asked.context, resource_type, common, clauses) for clauses, common in met.items() if common]


def _without_covered(parts: list[Scope]) -> list[Scope]:
    """Without those that the others allow anyway."""
    kept = list(parts)
    for part in parts:
        wider = [one for one in kept if one is not part and _is_wider(one, part)]
        if set(part.letters) <= set("".join(one.letters for one in wider)):
            kept.remove(part)
    return kept


def _is_wider(one: Scope, part: Scope) -> bool:
    """Whether it is about all resources that the part is about."""
    return one.resource_type in ("*", part.resource_type) and all(
        any(narrow.keys <= clause.keys for narrow in part.clauses) for clause in one.clauses
    )


def resource_scopes(granted: Iterable[Granted]) -> tuple[Scope, ...]:
    return tuple(item.scope for item in granted if item.scope is not None)


def words(text: str) -> frozenset[str]:
    """The scopes of a list that are words, such as `openid`."""
    return frozenset(text.split()).intersection(WORDS)


def text(granted: Iterable[Granted]) -> str:
    """The list as OAuth writes it, e.g. `openid user/Task.rs`."""
    return " ".join(str(item) for item in granted)


def _common(letters: str, given: str) -> str:
    return "".join(letter for letter in _LETTERS if letter in letters and letter in given)
