"""SMART scopes: parsing, meeting of two sets, writing. https://hl7.org/fhir/smart-app-launch/scopes-and-launch-context.html

Scopes we cannot enforce (granular ones with `?`), with letters out of order, or unknown, are dropped, never fatal.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fhir_server.access import Scope

IDENTITY = ("openid", "fhirUser", "profile")
LAUNCH = ("launch", "launch/patient")
REFRESH = ("online_access", "offline_access")
WORDS = (*IDENTITY, *LAUNCH, *REFRESH)
V1 = {"read": "rs", "write": "cud", "*": "cruds"}
_V1_NAME = {letters: name for name, letters in V1.items()}
_LETTERS = "cruds"
_GRAMMAR = re.compile(r"(patient|user|system)/(\*|[A-Z][A-Za-z]{1,63})\.(?:(c?r?u?d?s?)|(read|write|\*))", re.ASCII)
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
        if self.v1 and self.scope.letters in _V1_NAME:
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
        context, resource_type, letters, v1 = match.groups()
        letters = V1[v1] if v1 else letters
        if letters:
            found[word] = Granted(word, Scope(context, resource_type, letters), bool(v1))
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
    """The part of one scope that the rights of its own context cover."""
    rights = [right for right in rights if right.context == asked.context]
    everywhere = _common(asked.letters, (right.letters for right in rights if right.resource_type == "*"))
    if asked.resource_type != "*":
        own = "".join(right.letters for right in rights if right.resource_type == asked.resource_type)
        letters = _common(asked.letters, (everywhere, own))
        return [Scope(asked.context, asked.resource_type, letters)] if letters else []
    met = [Scope(asked.context, "*", everywhere)] if everywhere else []
    for resource_type in sorted({right.resource_type for right in rights} - {"*"}):
        own = "".join(right.letters for right in rights if right.resource_type == resource_type)
        letters = _common(asked.letters, (own,))
        if set(letters) - set(everywhere):
            met.append(Scope(asked.context, resource_type, letters))
    return met


def resource_scopes(granted: Iterable[Granted]) -> tuple[Scope, ...]:
    return tuple(item.scope for item in granted if item.scope is not None)


def words(text: str) -> frozenset[str]:
    """The scopes of a list that are words, such as `openid`."""
    return frozenset(text.split()).intersection(WORDS)


def text(granted: Iterable[Granted]) -> str:
    """The list as OAuth writes it, e.g. `openid user/Task.rs`."""
    return " ".join(str(item) for item in granted)


def _common(letters: str, given: Iterable[str]) -> str:
    have = set("".join(given))
    return "".join(letter for letter in _LETTERS if letter in letters and letter in have)
