"""The text of `_filter`, read. https://hl7.org/fhir/R4/search_filter.html

filter = term *(("and" / "or") term)      from left to right, neither binds stronger
term   = "not" term / "(" filter ")" / path operator value
path   = ["_has:" type ":" reference ":"] name [("[" filter "]")] ["." path]
value  = a JSON string, or signs up to a space, ")" or "]"
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from fhir_server.search.values import MAX_VALUE, bad_value

OPERATORS = frozenset("eq ne co sw ew gt lt ge le ap sa eb pr po ss sb in re".split())
MAX_DEPTH = 20  # parentheses, brackets and nots inside one another
MAX_TESTS = 100
MAX_LINKS, MAX_ALL_LINKS = 4, 20  # of a path, and of all paths
MAX_TEXT = 8000  # characters
_SPACE = re.compile(r"\s*")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_\-]*(?::[A-Za-z]+)?", re.ASCII)
_HAS = re.compile(r"_has:([A-Za-z]+):([A-Za-z_][A-Za-z0-9_\-]*):", re.ASCII)
_WORD = re.compile(r"[a-z]+", re.ASCII)
_BARE = re.compile(r"[^\s)\]]+")


@dataclass(frozen=True, slots=True)
class Step:
    """One link of a path. name: of a parameter, perhaps with a type behind a colon; where: what the resource that
    it leads to must meet besides. reverse: the link leads back, from resources of the type `name` that refer here by
    their parameter `by`."""

    name: str
    by: str = ""
    where: "Filter | None" = None

    @property
    def reverse(self) -> bool:
        return bool(self.by)


@dataclass(frozen=True, slots=True)
class Test:
    """`a.b operator value`. is_string: the value was a JSON string, in which no sign has a meaning."""

    links: tuple[Step, ...]
    name: str
    operator: str
    value: str
    is_string: bool


@dataclass(frozen=True, slots=True)
class Not:
    filter: "Filter"


@dataclass(frozen=True, slots=True)
class Both:
    left: "Filter"
    right: "Filter"
    is_and: bool


Filter = Test | Not | Both


def parse(text: str) -> Filter:
    """Raises BadRequest, which says where the fault is."""
    reader = _Reader(text)
    found = reader.filter(0)
    reader.end()
    return found


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._tests = self._links = 0
        if len(text) > MAX_TEXT:
            raise bad_value("_filter", f"at most {MAX_TEXT} characters")

    def filter(self, depth: int) -> Filter:
        left = self._term(depth)
        while (word := self._peek_word()) in ("and", "or"):
            self._word()
            left = Both(left, self._term(depth), word == "and")
        return left

    def end(self) -> None:
        self._skip()
        if self._at < len(self._text):
            raise self._fault("and, or, or the end")

    def _term(self, depth: int) -> Filter:
        if depth > MAX_DEPTH:
            raise bad_value("_filter", f"filters inside one another up to {MAX_DEPTH} deep")
        if self._peek_word() == "not" and self._is_negation():
            self._word()
            return Not(self._term(depth + 1))
        if self._take("("):
            found = self.filter(depth + 1)
            if not self._take(")"):
                raise self._fault("a )")
            return found
        return self._test(depth)

    def _is_negation(self) -> bool:
        """Whether what follows the word `not` is not an operator, which would make it the name of a parameter."""
        following = _WORD.match(self._text, _after(_SPACE, self._text, self._at + 3))
        return following is None or following[0] not in OPERATORS

    def _test(self, depth: int) -> Test:
        self._tests += 1
        if self._tests > MAX_TESTS:
            raise bad_value("_filter", f"at most {MAX_TESTS} tests")
        *links, last = self._path(depth)
        self._links += len(links)
        if len(links) > MAX_LINKS or self._links > MAX_ALL_LINKS:
            raise bad_value("_filter", f"paths of {MAX_LINKS} links, and {MAX_ALL_LINKS} links in all")
        if last.where is not None or last.reverse or ":" in last.name:
            raise self._fault("the name of a parameter at the end of a path")
        operator = self._word()
        if operator not in OPERATORS:
            raise self._fault(f"one of {', '.join(sorted(OPERATORS))}")
        self._skip()
        if self._text.startswith('"', self._at):
            return Test(tuple(links), last.name, operator, self._string(), is_string=True)
        match = _BARE.match(self._text, self._at)
        if match is None or len(match[0]) > MAX_VALUE:
            raise self._fault("a value")
        self._at = match.end()
        return Test(tuple(links), last.name, operator, match[0], is_string=False)

    def _path(self, depth: int) -> Iterator[Step]:
        self._skip()
        while True:
            while has := _HAS.match(self._text, self._at):
                self._at = has.end()
                yield Step(has[1], has[2])
            match = _NAME.match(self._text, self._at)
            if match is None:
                raise self._fault("the name of a parameter")
            self._at, where = match.end(), None
            if self._text.startswith("[", self._at):
                self._at += 1
                where = self.filter(depth + 1)
                if not self._take("]"):
                    raise self._fault("a ]")
            yield Step(match[0], where=where)
            if not self._text.startswith(".", self._at):
                return
            self._at += 1

    def _string(self) -> str:
        try:
            value, self._at = json.JSONDecoder().raw_decode(self._text, self._at)
        except ValueError:
            raise self._fault("a JSON string") from None
        if not value or len(value) > MAX_VALUE:
            raise self._fault(f"a value of 1 to {MAX_VALUE} characters")
        return value

    def _skip(self) -> None:
        self._at = _after(_SPACE, self._text, self._at)

    def _take(self, sign: str) -> bool:
        self._skip()
        found = self._text.startswith(sign, self._at)
        self._at += found
        return found

    def _peek_word(self) -> str:
        """The word that comes, if it ends there."""
        self._skip()
        match = _WORD.match(self._text, self._at)
        following = self._text[match.end() : match.end() + 1] if match else ""
        return match[0] if match and (not following or following in " \t\r\n(") else ""

    def _word(self) -> str:
        word = self._peek_word()
        self._at += len(word)
        return word

    def _fault(self, expected: str) -> Exception:
        return bad_value("_filter", f"{expected} at character {self._at + 1}")


def _after(pattern: re.Pattern, text: str, at: int) -> int:
    match = pattern.match(text, at)
    return match.end() if match else at
