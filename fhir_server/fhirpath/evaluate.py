"""FHIRPath compiled to closures, and the work that an evaluation may do. https://hl7.org/fhirpath/N1/

An expression is part of a profile that anybody may send: it can neither run long, nor grow what it computes, nor fail
in any way but by `Unsupported` (when it is compiled) and `TooCostly`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from fhir_server.fhirpath.nodes import Node, all_children, base_of, children, is_a
from fhir_server.fhirpath.parse import Syntax, Unsupported, parse
from fhir_server.fhirpath.values import compare, compute, distinct, equal, equivalent

Nodes = list[Node]


class TooCostly(Exception):
    """It would take more work than one validation may do."""


@dataclass(slots=True)
class Work:
    """What is left to do in one validation; counted in elements looked at."""

    left: int = 200_000

    def spend(self, amount: int = 1) -> None:
        self.left -= amount
        if self.left < 0:
            raise TooCostly


@dataclass(slots=True, frozen=True)
class Context:
    """What an expression is evaluated in.

    resource: around the element, a contained one too; root: around that. resolve: the resource that a reference of
    the content leads to. in_value_set: whether a coding or code is in it; None when that is not known.
    """

    resource: Node
    root: Node
    element: Node
    work: Work
    resolve: Callable[[Node], Node | None]
    in_value_set: Callable[[Node, str], bool | None]


@dataclass(slots=True, frozen=True)
class Scope:
    """this: `$this`, index: `$index`, total: `$total` of an aggregate."""

    context: Context
    this: Nodes
    index: int = 0
    total: Nodes | None = None


Run = Callable[[Scope], Nodes]
TRUE, FALSE = [Node(True, "boolean")], [Node(False, "boolean")]


def boolean(value: bool | None) -> Nodes:
    return [] if value is None else TRUE if value else FALSE


def truth(nodes: Nodes) -> bool | None:
    """A collection as a boolean: nothing is None, one item that is no boolean is true."""
    if len(nodes) != 1:
        return None if not nodes else True
    return nodes[0].value if isinstance(nodes[0].value, bool) else True


@lru_cache(maxsize=512)
def compiled(expression: str) -> Run:
    """Raises Unsupported."""
    return compile_syntax(parse(expression))


def holds(expression: str, element: Node, context: Context) -> bool:
    """Whether a rule holds; one that yields nothing does not. Raises Unsupported, TooCostly."""
    return truth(compiled(expression)(Scope(context, [element]))) is True


def compile_syntax(syntax: Syntax) -> Run:
    return _KINDS[syntax.kind](syntax)


def _literal(syntax: Syntax) -> Run:
    found = [syntax.value]
    return lambda _scope: found


def _nothing(_syntax: Syntax) -> Run:
    return lambda _scope: []


def _this(syntax: Syntax) -> Run:
    if syntax.value == "$index":
        return lambda scope: [Node(scope.index, "integer")]
    if syntax.value == "$total":
        return lambda scope: scope.total or []
    if syntax.value != "$this":
        raise Unsupported(f"no {syntax.value}")
    return lambda scope: scope.this


_VARIABLES: dict[str, Callable[[Context], Nodes]] = {
    "resource": lambda context: [context.resource],
    "rootResource": lambda context: [context.root],
    "context": lambda context: [context.element],
    "ucum": lambda _context: [Node("http://unitsofmeasure.org", "string")],
    "sct": lambda _context: [Node("http://snomed.info/sct", "string")],
    "loinc": lambda _context: [Node("http://loinc.org", "string")],
}


def _variable(syntax: Syntax) -> Run:
    name: str = syntax.value
    if name.startswith("vs-"):
        return lambda _scope: [Node(f"http://hl7.org/fhir/ValueSet/{name[3:]}", "string")]
    if name.startswith("ext-"):
        return lambda _scope: [Node(f"http://hl7.org/fhir/StructureDefinition/{name[4:]}", "string")]
    if name not in _VARIABLES:
        raise Unsupported(f"no variable %{name[:40]}")
    value = _VARIABLES[name]
    return lambda scope: value(scope.context)


def _name(syntax: Syntax) -> Run:
    name: str = syntax.value
    if not syntax.parts:  # at the start a type name may stand for the element itself

        def first(scope: Scope) -> Nodes:
            if name[0].isupper():
                return [node for node in scope.this if is_a(node.type, name)]
            return step(scope, scope.this, name)

        return first
    of = compile_syntax(syntax.parts[0])
    return lambda scope: step(scope, of(scope), name)


def step(scope: Scope, nodes: Sequence[Node], name: str) -> Nodes:
    found: Nodes = []
    for node in nodes:
        found += children(node, name)
    scope.context.work.spend(1 + len(nodes) + len(found))
    return found


def _index(syntax: Syntax) -> Run:
    of, index = map(compile_syntax, syntax.parts)

    def run(scope: Scope) -> Nodes:
        nodes, at = of(scope), index(scope)
        if len(at) != 1 or type(at[0].value) is not int or not 0 <= at[0].value < len(nodes):
            return []
        return [nodes[at[0].value]]

    return run


def _negate(syntax: Syntax) -> Run:
    of = compile_syntax(syntax.parts[0])

    def run(scope: Scope) -> Nodes:
        nodes = of(scope)
        return compute("-", Node(0, "integer"), nodes[0]) if len(nodes) == 1 else []

    return run


def _binary(syntax: Syntax) -> Run:
    operator = syntax.value
    left = compile_syntax(syntax.parts[0])
    if operator in ("is", "as"):
        type: str = syntax.parts[1].value
        return typed(left, type) if operator == "as" else lambda scope: is_type(left(scope), type)
    right = compile_syntax(syntax.parts[1])
    if operator in ("and", "or", "xor", "implies"):
        return _logic(operator, left, right)
    act = _OPERATORS.get(operator)

    def run(scope: Scope) -> Nodes:
        first, second = left(scope), right(scope)
        scope.context.work.spend(1 + len(first) + len(second))
        if act is not None:
            return act(scope, first, second)
        if len(first) != 1 or len(second) != 1:
            return []
        found = compute(operator, first[0], second[0])
        spend_text(scope, found)
        return found

    return run


def spend_text(scope: Scope, nodes: Nodes) -> None:
    """A text that was made costs by its length: doubling it again and again must end."""
    for node in nodes:
        if isinstance(node.value, str):
            scope.context.work.spend(len(node.value) // 16)


def _logic(operator: str, left: Run, right: Run) -> Run:
    """Three-valued, and the right side only where it matters."""

    def run(scope: Scope) -> Nodes:
        first = truth(left(scope))
        if operator == "and":
            if first is False:
                return FALSE
            second = truth(right(scope))
            return FALSE if second is False else TRUE if first and second else []
        if operator == "implies":
            if first is False:
                return TRUE
            second = truth(right(scope))
            return TRUE if second else [] if first is None or second is None else FALSE
        if operator == "or":
            if first:
                return TRUE
            second = truth(right(scope))
            return TRUE if second else [] if first is None or second is None else FALSE
        second = truth(right(scope))
        return [] if first is None or second is None else boolean(first is not second)

    return run


def all_equal(first: Nodes, second: Nodes) -> bool | None:
    if not first or not second:
        return None
    if len(first) != len(second):
        return False
    found = [equal(one, other) for one, other in zip(first, second, strict=True)]
    return False if False in found else None if None in found else True


def _all_equivalent(first: Nodes, second: Nodes) -> bool:
    if len(first) != len(second):
        return False
    return all(any(equivalent(one, other) for other in second) for one in first)


def contains(scope: Scope, nodes: Nodes, item: Node) -> bool:
    scope.context.work.spend(len(nodes))
    return any(equal(node, item) for node in nodes)


def union(scope: Scope, first: Nodes, second: Nodes) -> Nodes:
    scope.context.work.spend((len(first) + len(second)) ** 2)
    return distinct([*first, *second])


def _ordered(test: Callable[[int], bool]) -> Callable[[Scope, Nodes, Nodes], Nodes]:
    def act(_scope: Scope, first: Nodes, second: Nodes) -> Nodes:
        if len(first) != 1 or len(second) != 1:
            return []
        found = compare(first[0], second[0])
        return [] if found is None else boolean(test(found))

    return act


def _concatenated(scope: Scope, first: Nodes, second: Nodes) -> Nodes:
    words = [nodes[0].value if nodes and isinstance(nodes[0].value, str) else "" for nodes in (first, second)]
    found = [Node("".join(words), "string")]
    spend_text(scope, found)
    return found


def _negated(value: bool | None) -> Nodes:
    return [] if value is None else boolean(not value)


_OPERATORS: dict[str, Callable[[Scope, Nodes, Nodes], Nodes]] = {
    "=": lambda _scope, one, other: boolean(all_equal(one, other)),
    "!=": lambda _scope, one, other: _negated(all_equal(one, other)),
    "~": lambda _scope, one, other: boolean(_all_equivalent(one, other)),
    "!~": lambda _scope, one, other: boolean(not _all_equivalent(one, other)),
    "<": _ordered(lambda found: found < 0),
    "<=": _ordered(lambda found: found <= 0),
    ">": _ordered(lambda found: found > 0),
    ">=": _ordered(lambda found: found >= 0),
    "|": union,
    "&": _concatenated,
    "in": lambda scope, one, other: boolean(contains(scope, other, one[0])) if len(one) == 1 else [],
    "contains": lambda scope, one, other: boolean(contains(scope, one, other[0])) if len(other) == 1 else [],
}


def _matches_type(node: Node, type: str) -> bool:
    """System types are written with a capital, `Boolean`; those of FHIR that are primitive are not."""
    lowered = type[:1].lower() + type[1:]
    return is_a(node.type, type) or (base_of(lowered) is not None and is_a(node.type, lowered))


def is_type(nodes: Nodes, type: str) -> Nodes:
    return boolean(_matches_type(nodes[0], type)) if len(nodes) == 1 else []


def typed(of: Run, type: str) -> Run:
    return lambda scope: [node for node in of(scope) if _matches_type(node, type)]


def _call(syntax: Syntax) -> Run:
    from fhir_server.fhirpath.functions import FUNCTIONS  # they need what is here

    name, (of, *arguments) = syntax.value, syntax.parts
    made = FUNCTIONS.get(name)
    if made is None:
        raise Unsupported(f"no function {name[:40]}()")
    return made(compile_syntax(of), arguments)


_KINDS: dict[str, Callable[[Syntax], Run]] = {
    "literal": _literal,
    "nothing": _nothing,
    "this": _this,
    "variable": _variable,
    "name": _name,
    "index": _index,
    "negate": _negate,
    "binary": _binary,
    "call": _call,
}


def descendants(scope: Scope, nodes: Nodes) -> Nodes:
    found: Nodes = []
    waiting: list[Any] = list(nodes)
    while waiting:
        below = list(all_children(waiting.pop()))
        scope.context.work.spend(1 + len(below))
        found += below
        waiting += below
    return found
