"""FHIRPath text to a syntax tree. https://hl7.org/fhirpath/N1/#grammar

Expressions come with profiles that anybody may send, so their size and depth are limited.
"""

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from fhir_server.fhirpath.nodes import Node

MAX_LENGTH = 4_000  # characters; the longest of R4 itself has about 1,400
MAX_DEPTH = 40  # of brackets
MAX_TREE = 100

_TOKEN = re.compile(
    r"\s*(?:(?:/\*.*?\*/|//[^\n]*)\s*)*+(?:"
    r"(?P<moment>@(?:T\d[\d:.]*|\d{4}(?:-\d\d(?:-\d\d)?)?(?:T(?:\d\d(?::\d\d(?::\d\d(?:\.\d+)?)?)?(?:Z|[+-]\d\d:\d\d)?)?)?))"
    r"|(?P<text>'(?:[^'\\]|\\.)*')"
    r"|(?P<quoted>`(?:[^`\\]|\\.)*`)"
    r"|(?P<number>\d+(?:\.\d+)?)"
    r"|(?P<name>[$%]?[A-Za-z_][A-Za-z0-9_\-]*(?<!-)|%`[^`]*`|%'[^']*')"
    r"|(?P<sign><=|>=|!=|!~|[-+*/&|<>=~.,()\[\]{}])"
    r")",
    re.DOTALL,
)
_SPACE = re.compile(r"\s*(?:(?:/\*.*?\*/|//[^\n]*)\s*)*", re.DOTALL)
_NAME = re.compile(r"[$%]?[A-Za-z_][A-Za-z0-9_]*")
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_ESCAPES = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}

# Binary operators and how tightly they bind.
BINDS = {
    "implies": 1,
    "or": 2,
    "xor": 2,
    "and": 3,
    "in": 4,
    "contains": 4,
    "=": 5,
    "~": 5,
    "!=": 5,
    "!~": 5,
    "<": 6,
    ">": 6,
    "<=": 6,
    ">=": 6,
    "|": 7,
    "is": 8,
    "as": 8,
    "+": 9,
    "-": 9,
    "&": 9,
    "*": 10,
    "/": 10,
    "div": 10,
    "mod": 10,
}


class Unsupported(ValueError):
    """The expression cannot be evaluated here: it is no FHIRPath, too large, or uses what we do not have."""


@dataclass(frozen=True, slots=True)
class Syntax:
    """kind: literal, name, this, variable, call, index, binary, negate or nothing. parts: operands, arguments."""

    kind: str
    value: Any = None
    parts: tuple["Syntax", ...] = ()
    depth: int = 1

    def __post_init__(self) -> None:
        # Also a chain such as `a + b + c` is a tree as deep as it is long, and is walked by recursion.
        object.__setattr__(self, "depth", 1 + max((part.depth for part in self.parts), default=0))
        if self.depth > MAX_TREE:
            raise Unsupported(f"an expression may have {MAX_TREE} steps one after the other")


def parse(text: str) -> Syntax:
    """Raises Unsupported."""
    if len(text) > MAX_LENGTH:
        raise Unsupported(f"an expression may have {MAX_LENGTH} characters")
    return _Parser(text).whole()


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens: list[tuple[str, str]] = []
        at = 0
        while at < len(text):
            match = _TOKEN.match(text, at)
            if match is None:
                if _SPACE.fullmatch(text, at):
                    break
                raise Unsupported("this is no FHIRPath")
            kind = str(match.lastgroup)
            token = match[kind]
            at = match.end()
            if kind == "name" and "-" in token and not token.startswith("%"):  # a minus, not a part of the name
                cut = _NAME.match(token)
                token = cut[0] if cut else token
                at = match.start(kind) + len(token)
            self._tokens.append((kind, token))
        self._at = 0
        self._depth = 0

    def whole(self) -> Syntax:
        found = self._expression(0)
        if self._at < len(self._tokens):
            raise Unsupported("this is no FHIRPath")
        return found

    def _expression(self, tightest: int) -> Syntax:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise Unsupported(f"an expression may be nested {MAX_DEPTH} deep")
        left = self._signed()
        while (binds := BINDS.get(self._peek_operator(), 0)) > tightest:
            operator = self._next()[1]
            if operator in ("is", "as"):
                left = Syntax("binary", operator, (left, Syntax("literal", self._type_name())))
            else:
                left = Syntax("binary", operator, (left, self._expression(binds)))
        self._depth -= 1
        return left

    def _signed(self) -> Syntax:
        if self._take("-"):
            return Syntax("negate", None, (self._postfix(),))
        self._take("+")
        return self._postfix()

    def _postfix(self) -> Syntax:
        found = self._term()
        while True:
            if self._take("."):
                found = self._invocation(found)
            elif self._take("["):
                found = Syntax("index", None, (found, self._expression(0)))
                self._expect("]")
            else:
                return found

    def _term(self) -> Syntax:
        if self._take("("):
            found = self._expression(0)
            self._expect(")")
            return found
        if self._take("{"):
            self._expect("}")
            return Syntax("nothing")
        kind, written = self._peek()
        if kind == "number":
            return Syntax("literal", self._number())
        if kind == "name" and written in ("true", "false"):
            found = Syntax("literal", Node(written == "true", "boolean"))
        elif kind == "text":
            found = Syntax("literal", Node(_unescaped(written), "string"))
        elif kind == "moment":
            found = Syntax("literal", _moment(written[1:]))
        elif kind == "name" and written[0] == "%":
            found = Syntax("variable", written[1:].strip("`'"))
        else:
            return self._invocation(None)
        self._at += 1
        return found

    def _number(self) -> Node:
        token = self._next()[1]
        number = Decimal(token) if "." in token else int(token)
        kind, unit = self._peek()
        if kind == "text" or (kind == "name" and unit.rstrip("s") in _CALENDAR):
            self._at += 1
            code = _unescaped(unit) if kind == "text" else _CALENDAR[unit.rstrip("s")]
            return Node({"value": number, "system": UCUM, "code": code}, "Quantity")
        return Node(number, "decimal" if "." in token else "integer")

    def _invocation(self, of: Syntax | None) -> Syntax:
        kind, token = self._next()
        if kind == "quoted":
            name = _unescaped(token)
        elif kind == "name" and token[0] != "%":
            name = token
        else:
            raise Unsupported("this is no FHIRPath")
        owner = (of,) if of is not None else ()
        if name.startswith("$"):
            return Syntax("this", name)
        if kind == "name" and self._take("("):
            arguments: list[Syntax] = []
            if name in ("is", "as", "ofType"):
                arguments.append(Syntax("literal", self._type_name()))
            elif self._peek() != ("sign", ")"):
                arguments.append(self._expression(0))
                while self._take(","):
                    arguments.append(self._expression(0))
            self._expect(")")
            return Syntax("call", name, (of or Syntax("this", "$this"), *arguments))
        return Syntax("name", name, owner)

    def _type_name(self) -> str:
        """`FHIR.Patient`, `System.Boolean`, `dateTime`: the R4 name."""
        bracket = self._take("(")
        name = self._next()[1].strip("`")
        while self._take("."):
            name = self._next()[1].strip("`")
        if bracket:
            self._expect(")")
        return name

    def _peek(self) -> tuple[str, str]:
        return self._tokens[self._at] if self._at < len(self._tokens) else ("end", "")

    def _peek_operator(self) -> str:
        kind, token = self._peek()
        return token if kind in ("sign", "name") else ""

    def _next(self) -> tuple[str, str]:
        found = self._peek()
        if found[0] == "end":
            raise Unsupported("this is no FHIRPath: it ends too soon")
        self._at += 1
        return found

    def _take(self, sign: str) -> bool:
        if self._peek() == ("sign", sign):
            self._at += 1
            return True
        return False

    def _expect(self, sign: str) -> None:
        if not self._take(sign):
            raise Unsupported(f"this is no FHIRPath: {sign} is missing")


UCUM = "http://unitsofmeasure.org"
_CALENDAR = {
    "year": "a",
    "month": "mo",
    "week": "wk",
    "day": "d",
    "hour": "h",
    "minute": "min",
    "second": "s",
    "millisecond": "ms",
}


def _moment(text: str) -> Node:
    if text.startswith("T"):
        return Node(text[1:], "time")
    return Node(text.removesuffix("T"), "dateTime" if "T" in text else "date")


def _unescaped(token: str) -> str:
    def sign(match: re.Match) -> str:
        found = match[1]
        return chr(int(found[1:], 16)) if len(found) == 5 else _ESCAPES.get(found, found)

    return _ESCAPE.sub(sign, token[1:-1])
