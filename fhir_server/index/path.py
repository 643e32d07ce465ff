"""The FHIRPath of search parameters, compiled once to plain Python. https://hl7.org/fhirpath/N1/

The subset that the R4 definitions use: paths, choice elements, unions, `as`, `is`, `and`, `=`, `!=`, indexers,
`where()`, `exists()`, `extension()`, `resolve()` (asked for its type only), `%resource`. Elements are found by name;
content of an unexpected shape yields nothing, and never an error.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

# (nodes, the resource they are in) -> nodes
Walk = Callable[[list, dict], list]

# What a choice element's name can end with. https://hl7.org/fhir/R4/datatypes.html#open, and `*Definition` left out
DATATYPES = tuple(
    """
    Base64Binary Boolean Canonical Code Date DateTime Decimal Id Instant Integer Markdown Oid PositiveInt String Time
    UnsignedInt Uri Url Uuid Address Age Annotation Attachment CodeableConcept Coding ContactPoint Count Distance
    Duration HumanName Identifier Money Period Quantity Range Ratio Reference SampledData Signature Timing
    ContactDetail Contributor Expression ParameterDefinition RelatedArtifact TriggerDefinition UsageContext Dosage
    """.split()
)
# The choice elements that R4 search parameters name without a type. A name alone would not do: `Coverage.subscriber`
# is no choice, and `subscriberId` no type of it.
CHOICES = frozenset(
    """
    abatement code collected created deceased definition due effective event identified item medication occurred
    occurrence onset performed probability scheduled source start substance target value
    """.split()
)
_ANY = ("Resource", "DomainResource")
_TOKEN = re.compile(r"\s*(?:('(?:[^'\\]|\\.)*')|(%?[A-Za-z_][A-Za-z0-9_]*)|(\d+)|(!=|[().|=\[\]]))")
_TYPED = re.compile(r"(?:^|/)([A-Z][A-Za-z]+)/[A-Za-z0-9\-.]{1,64}(?:/_history/[A-Za-z0-9\-.]{1,64})?$")


class Unsupported(ValueError):
    """The expression uses something outside the subset."""


@dataclass(frozen=True, slots=True)
class Compiled:
    """A compiled expression. tops: the elements of the resource of which one must be there for it to yield
    anything; None when it has to be tried always."""

    walk: Walk
    tops: frozenset[str] | None


@dataclass(frozen=True, slots=True)
class _Part:
    walk: Walk
    tops: frozenset[str] | None = None
    is_root: bool = False  # nothing walked yet
    last: "tuple[_Part, str] | None" = None  # the element just stepped to, and from where: `as` chooses its type
    is_extension: bool = False


class _Type(str):
    """The type of what a reference leads to."""


def compile_path(expression: str, resource_type: str | None) -> Compiled:
    """resource_type: the type that the expression starts from; None when it is relative to an element.

    Raises Unsupported.
    """
    parser = _Parser(expression, resource_type)
    part = parser.conjunction()
    if parser.peek() is not None:
        raise Unsupported(expression)
    if part.is_extension:
        part = _step(part, "value")  # an extension itself can't be searched for, what it says can
    return Compiled(part.walk, part.tops)


class _Parser:
    """Recursive descent, loosest operator first."""

    def __init__(self, expression: str, resource_type: str | None) -> None:
        self._expression = expression
        self._resource_type = resource_type
        self._tokens: list[str] = []
        at, end = 0, len(expression.rstrip())
        while at < end:
            match = _TOKEN.match(expression, at)
            if match is None:
                raise Unsupported(expression)
            self._tokens.append(match[match.lastindex or 0])
            at = match.end()
        self._at = 0

    def peek(self) -> str | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def conjunction(self) -> _Part:
        part = self._equality()
        while self._take("and"):
            part = _both(part, self._equality())
        return part

    def _equality(self) -> _Part:
        part = self._union()
        for sign in ("=", "!="):
            if self._take(sign):
                return _compare(part, self._union(), equal=sign == "=")
        return part

    def _union(self) -> _Part:
        parts = [self._typed()]
        while self._take("|"):
            parts.append(self._typed())
        return parts[0] if len(parts) == 1 else _unite(parts)

    def _typed(self) -> _Part:
        part = self._path()
        if self._take("as"):
            return self._as(part, self._name())
        if self._take("is"):
            return _is(part, self._name())
        return part

    def _path(self) -> _Part:
        part = self._term()
        while True:
            if self._take("."):
                part = self._invocation(part, self._name())
            elif self._take("["):
                part = _nth(part, int(self._next()))
                self._expect("]")
            else:
                return part

    def _term(self) -> _Part:
        if self._take("("):
            part = self.conjunction()
            self._expect(")")
            return part
        word = self._next()
        if word.startswith("'"):
            return _literal(re.sub(r"\\(.)", r"\1", word[1:-1]))
        if word in ("true", "false"):
            return _literal(word == "true")
        if word == "%resource":
            return _Part(lambda _nodes, root: [root], is_root=True)
        here = _Part(lambda nodes, _root: nodes, is_root=True)
        return here if self._resource_type and word in (self._resource_type, *_ANY) else self._invocation(here, word)

    def _invocation(self, source: _Part, name: str) -> _Part:
        if not self._take("("):
            return _step(source, name)
        if name == "where":
            part = _where(source, _Parser._criteria(self))
        elif name in ("as", "ofType"):
            part = self._as(source, self._name())
        elif name == "exists":
            part = _Part(lambda nodes, root: [bool(source.walk(nodes, root))])
        elif name == "resolve":
            part = _resolve(source)
        elif name == "extension":
            part = _extension(source, self._next().strip("'"))
        else:
            raise Unsupported(self._expression)
        self._expect(")")
        return part

    def _criteria(self) -> _Part:
        """The condition of a where(): it starts from the node."""
        outer, self._resource_type = self._resource_type, None
        part = self.conjunction()
        self._resource_type = outer
        return part

    def _as(self, part: _Part, type: str) -> _Part:
        if part.last is None:
            raise Unsupported(self._expression)
        source, name = part.last
        return _step(source, name + type[0].upper() + type[1:])

    def _next(self) -> str:
        token = self.peek()
        if token is None:
            raise Unsupported(self._expression)
        self._at += 1
        return token

    def _name(self) -> str:
        token = self._next()
        if not token[0].isalpha():
            raise Unsupported(self._expression)
        return token

    def _take(self, sign: str) -> bool:
        found = self.peek() == sign
        self._at += found
        return found

    def _expect(self, sign: str) -> None:
        if not self._take(sign):
            raise Unsupported(self._expression)


def _step(source: _Part, name: str) -> _Part:
    """To the element of that name, or to whichever type of the choice element is there."""
    choices = frozenset(name + type for type in DATATYPES) if name in CHOICES else frozenset()
    before = None if source.is_root and source.tops is None else source.walk

    def walk(nodes: list, root: dict) -> list:
        found: list = []
        for node in nodes if before is None else before(nodes, root):
            if not isinstance(node, dict):
                continue
            child = node.get(name)
            if child is None:
                for key in choices & node.keys():
                    _append(found, node[key])
            else:
                _append(found, child)
        return found

    if source.is_root:
        if source.walk([], {}) == [{}]:  # %resource: not of the node, so nothing can be said of it beforehand
            return _Part(_after(source.walk, walk), None, last=(source, name))
        return _Part(walk, choices | {name}, last=(source, name))
    return _Part(walk, source.tops, last=(source, name))


def _after(first: Walk, second: Walk) -> Walk:
    return lambda nodes, root: second(first(nodes, root), root)


def _append(found: list, child: Any) -> None:
    if isinstance(child, list):
        found.extend(child)
    else:
        found.append(child)


def _unite(parts: list[_Part]) -> _Part:
    walks = [part.walk for part in parts]
    tops: frozenset[str] | None = frozenset()
    for part in parts:
        tops = None if tops is None or part.tops is None else tops | part.tops

    def walk(nodes: list, root: dict) -> list:
        return [node for one in walks for node in one(nodes, root)]

    return _Part(walk, tops)


def _where(source: _Part, criteria: _Part) -> _Part:
    def walk(nodes: list, root: dict) -> list:
        return [node for node in source.walk(nodes, root) if criteria.walk([node], root) == [True]]

    return _Part(walk, source.tops, is_extension=source.is_extension)


def _nth(source: _Part, index: int) -> _Part:
    return _Part(lambda nodes, root: source.walk(nodes, root)[index : index + 1], source.tops)


def _extension(source: _Part, url: str) -> _Part:
    every = _step(source, "extension")
    if source.last is not None:  # those of a primitive stand beside it, below `_name`
        before, name = source.last
        every = _unite([every, _step(_step(before, f"_{name}"), "extension")])

    def walk(nodes: list, root: dict) -> list:
        found = every.walk(nodes, root)
        return [node for node in found if isinstance(node, dict) and node.get("url") == url]

    return _Part(walk, every.tops, is_extension=True)


def _resolve(source: _Part) -> _Part:
    def walk(nodes: list, root: dict) -> list:
        types = (_target_type(node, root) for node in source.walk(nodes, root))
        return [_Type(type) for type in types if type]

    return _Part(walk, source.tops)


def _target_type(node: Any, root: dict) -> str | None:
    """The type that a Reference (or a canonical) leads to, as far as it can be told without reading it."""
    reference = node.get("reference") if isinstance(node, dict) else node
    if isinstance(reference, str):
        if reference.startswith("#"):
            contained = root.get("contained")
            for resource in contained if isinstance(contained, list) else ():
                if isinstance(resource, dict) and resource.get("id") == reference[1:]:
                    return resource.get("resourceType")
        elif match := _TYPED.search(reference):
            return match[1]
    type = node.get("type") if isinstance(node, dict) else None
    return type if isinstance(type, str) else None


def _is(part: _Part, type: str) -> _Part:
    def walk(nodes: list, root: dict) -> list:
        return [isinstance(node, _Type) and node == type for node in part.walk(nodes, root)]

    return _Part(walk, part.tops)


def _compare(left: _Part, right: _Part, equal: bool) -> _Part:
    def walk(nodes: list, root: dict) -> list:
        ours, theirs = left.walk(nodes, root), right.walk(nodes, root)
        return [(ours == theirs) == equal] if ours and theirs else []

    return _Part(walk)


def _both(left: _Part, right: _Part) -> _Part:
    return _Part(lambda nodes, root: [left.walk(nodes, root) == [True] and right.walk(nodes, root) == [True]])


def _literal(value: Any) -> _Part:
    return _Part(lambda _nodes, _root: [value])
