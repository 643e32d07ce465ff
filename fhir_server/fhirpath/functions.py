"""The functions of FHIRPath. https://hl7.org/fhirpath/N1/#functions, and those that FHIR adds"""

import time
from collections.abc import Callable, Sequence
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from typing import Any

import regex  # type: ignore[import-untyped]

from fhir_server.fhirpath.evaluate import (
    FALSE,
    TRUE,
    Nodes,
    Run,
    Scope,
    TooCostly,
    boolean,
    compile_syntax,
    contains,
    descendants,
    is_type,
    spend_text,
    step,
    truth,
    typed,
    union,
)
from fhir_server.fhirpath.nodes import Node, all_children
from fhir_server.fhirpath.parse import Syntax, Unsupported
from fhir_server.fhirpath.values import compute, distinct, is_number, made, number, text
from fhir_server.index.spans import date_span

Function = Callable[[Run, Sequence[Syntax]], Run]
MAX_PATTERN = 1000  # characters of a regular expression
REGEX_S = 0.05  # seconds that one may take: some never end
PER_S = 500_000  # elements looked at in a second, about


def _plain(act: Callable[[Scope, Nodes], Nodes]) -> Function:
    """Of the collection alone."""

    def function(of: Run, arguments: Sequence[Syntax]) -> Run:
        _arity(arguments, 0, 0)
        return lambda scope: act(scope, of(scope))

    return function


def _with(act: Callable[..., Nodes], fewest: int = 1, most: int = 1) -> Function:
    """Of the collection and arguments that are evaluated once."""

    def function(of: Run, arguments: Sequence[Syntax]) -> Run:
        _arity(arguments, fewest, most)
        runs = [compile_syntax(one) for one in arguments]
        return lambda scope: act(scope, of(scope), *[run(scope) for run in runs])

    return function


def _each(act: Callable[[Scope, Nodes, Callable[[int, Node], Nodes]], Nodes], optional: bool = False) -> Function:
    """Of the collection and an expression that is evaluated for its items."""

    def function(of: Run, arguments: Sequence[Syntax]) -> Run:
        _arity(arguments, 0 if optional else 1, 1)
        inner: Run = compile_syntax(arguments[0]) if arguments else lambda _scope: TRUE

        def run(scope: Scope) -> Nodes:
            def evaluate(index: int, node: Node) -> Nodes:
                scope.context.work.spend()
                return inner(Scope(scope.context, [node], index, scope.total))

            return act(scope, of(scope), evaluate)

        return run

    return function


def _text_function(act: Callable[..., Any], fewest: int = 0, most: int = 0) -> Function:
    """Of one string, and arguments of one value each; nothing where any of them is missing."""

    def run(scope: Scope, nodes: Nodes, *arguments: Nodes) -> Nodes:
        if len(nodes) != 1 or not isinstance(nodes[0].value, str) or any(len(one) != 1 for one in arguments):
            return []
        try:
            found = act(nodes[0].value, *[one[0].value for one in arguments])
        except (TypeError, AttributeError):  # an argument of another type
            return []
        made = found if isinstance(found, list) else [found]
        kind = {bool: "boolean", int: "integer"}
        result = [Node(one, kind.get(type(one), "string")) for one in made if one is not None]
        spend_text(scope, result)
        scope.context.work.spend(len(result))
        return result

    return _with(run, fewest, most)


def _arity(arguments: Sequence[Syntax], fewest: int, most: int) -> None:
    if not fewest <= len(arguments) <= most:
        raise Unsupported("a function has not the arguments it takes")


def _where(_scope: Scope, nodes: Nodes, evaluate: Callable[[int, Node], Nodes]) -> Nodes:
    return [node for index, node in enumerate(nodes) if truth(evaluate(index, node))]


def _select(_scope: Scope, nodes: Nodes, evaluate: Callable[[int, Node], Nodes]) -> Nodes:
    return [found for index, node in enumerate(nodes) for found in evaluate(index, node)]


def _repeat(scope: Scope, nodes: Nodes, evaluate: Callable[[int, Node], Nodes]) -> Nodes:
    found: Nodes = []
    waiting = list(nodes)
    while waiting:
        for one in evaluate(0, waiting.pop()):
            if not contains(scope, found, one):
                found.append(one)
                waiting.append(one)
    return found


def _all(_scope: Scope, nodes: Nodes, evaluate: Callable[[int, Node], Nodes]) -> Nodes:
    return boolean(all(truth(evaluate(index, node)) for index, node in enumerate(nodes)))


def _exists(_scope: Scope, nodes: Nodes, evaluate: Callable[[int, Node], Nodes]) -> Nodes:
    return boolean(any(truth(evaluate(index, node)) for index, node in enumerate(nodes)))


def _iif(of: Run, arguments: Sequence[Syntax]) -> Run:
    _arity(arguments, 2, 3)
    runs = [compile_syntax(one) for one in arguments]

    def run(scope: Scope) -> Nodes:
        nodes = of(scope)
        inner = Scope(scope.context, nodes, scope.index, scope.total)
        if truth(runs[0](inner)):
            return runs[1](inner)
        return runs[2](inner) if len(runs) > 2 else []

    return run


def _aggregate(of: Run, arguments: Sequence[Syntax]) -> Run:
    _arity(arguments, 1, 2)
    inner, *first = (compile_syntax(one) for one in arguments)

    def run(scope: Scope) -> Nodes:
        total = first[0](scope) if first else []
        for index, node in enumerate(of(scope)):
            scope.context.work.spend(1 + len(total))
            total = inner(Scope(scope.context, [node], index, total))
        return total

    return run


def _of_type(of: Run, arguments: Sequence[Syntax]) -> Run:
    return typed(of, arguments[0].value)


def _is(of: Run, arguments: Sequence[Syntax]) -> Run:
    return lambda scope: is_type(of(scope), arguments[0].value)


def _distinct(scope: Scope, nodes: Nodes) -> Nodes:
    scope.context.work.spend(len(nodes) ** 2 // 2)
    return distinct(nodes)


def _subset(scope: Scope, nodes: Nodes, others: Nodes) -> Nodes:
    return boolean(all(contains(scope, others, node) for node in nodes))


def _intersect(scope: Scope, nodes: Nodes, others: Nodes) -> Nodes:
    return [node for node in _distinct(scope, nodes) if contains(scope, others, node)]


def _exclude(scope: Scope, nodes: Nodes, others: Nodes) -> Nodes:
    return [node for node in nodes if not contains(scope, others, node)]


def _count_argument(found: Nodes) -> int:
    return found[0].value if len(found) == 1 and type(found[0].value) is int else 0


def _extension(scope: Scope, nodes: Nodes, url: Nodes) -> Nodes:
    if len(url) != 1:
        return []
    found = step(scope, nodes, "extension")
    return [one for one in found if isinstance(one.value, dict) and one.value.get("url") == url[0].value]


def _resolve(scope: Scope, nodes: Nodes) -> Nodes:
    return [found for node in nodes if (found := scope.context.resolve(node)) is not None]


def _member_of(scope: Scope, nodes: Nodes, url: Nodes) -> Nodes:
    if len(nodes) != 1 or len(url) != 1 or not isinstance(url[0].value, str):
        return []
    scope.context.work.spend(100)
    return boolean(scope.context.in_value_set(nodes[0], url[0].value))


def _has_value(_scope: Scope, nodes: Nodes) -> Nodes:
    return boolean(len(nodes) == 1 and nodes[0].is_primitive and nodes[0].value is not None)


def _regular(act: Callable[..., Any], arguments: int) -> Function:
    """A function with a regular expression as its first argument. What it takes in time is taken from the work."""

    def run(scope: Scope, nodes: Nodes, *given: Nodes) -> Nodes:
        if any(len(one) != 1 or not isinstance(one[0].value, str) for one in (nodes, *given)):
            return []
        pattern = given[0][0].value
        if len(pattern) > MAX_PATTERN:
            raise TooCostly
        began = time.perf_counter()
        try:
            found = act(pattern, nodes[0].value, *[one[0].value for one in given[1:]])
        except TimeoutError:
            raise TooCostly from None
        except (regex.error, RecursionError, OverflowError, MemoryError, IndexError, ValueError):
            return []  # it is no regular expression
        scope.context.work.spend(int((time.perf_counter() - began) * PER_S))
        made = [Node(found, "boolean" if isinstance(found, bool) else "string")]
        spend_text(scope, made)
        return made

    return _with(run, arguments, arguments)


def _matches(pattern: str, string: str) -> bool:
    return regex.search(pattern, string, regex.DOTALL, timeout=REGEX_S) is not None


def _matches_full(pattern: str, string: str) -> bool:
    return regex.fullmatch(pattern, string, regex.DOTALL, timeout=REGEX_S) is not None


def _replace_matches(pattern: str, string: str, substitution: str) -> str:
    groups = regex.sub(r"\$(\d)", r"\\g<\1>", substitution.replace("\\", "\\\\"))
    return str(regex.sub(pattern, groups, string, timeout=REGEX_S))


def _replaced(string: str, old: str, new: str) -> str:
    if (string.count(old) + 1) * len(new) > 100_000:
        raise TooCostly
    return string.replace(old, new)


def _substring(string: str, start: int, length: int | None = None) -> str | None:
    if not 0 <= start < len(string):
        return None
    return string[start:] if length is None else string[start : start + max(length, 0)]


_BOOLEANS = dict.fromkeys(("true", "t", "yes", "y", "1", "1.0"), True) | dict.fromkeys(
    ("false", "f", "no", "n", "0", "0.0"), False
)


def _boolean_of(node: Node) -> bool | None:
    if isinstance(node.value, bool):
        return node.value
    return _BOOLEANS.get(str(text(node)).lower())


def _decimal_of(node: Node) -> Decimal | int | None:
    if isinstance(node.value, bool):
        return int(node.value)
    if is_number(node.value):
        return number(node)
    try:
        told = str(node.value)
        return Decimal(told) if len(told) < 40 and not set(told) - set("+-.0123456789") else None
    except InvalidOperation:
        return None


def _integer_of(node: Node) -> int | None:
    found = _decimal_of(node)
    return int(found) if found is not None and found == int(found) else None


def _converted(type: str, convert: Callable[[Node], Any]) -> Function:
    def act(_scope: Scope, nodes: Nodes) -> Nodes:
        found = convert(nodes[0]) if len(nodes) == 1 else None
        return [] if found is None else [Node(found, type)]

    return _plain(act)


def _convertible(convert: Callable[[Node], Any]) -> Function:
    return _plain(lambda _scope, nodes: boolean(convert(nodes[0]) is not None) if len(nodes) == 1 else [])


def _moment_of(node: Node) -> str | None:
    return node.value if isinstance(node.value, str) and date_span(node.value) is not None else None


def _math(act: Callable[[Decimal], Decimal | int]) -> Function:
    def run(_scope: Scope, nodes: Nodes) -> Nodes:
        found = number(nodes[0]) if len(nodes) == 1 else None
        return [] if found is None else made(act(Decimal(found)))

    return _plain(run)


def _round(_scope: Scope, nodes: Nodes, digits: Nodes = []) -> Nodes:  # noqa: B006 (never changed)
    found, places = (number(nodes[0]) if len(nodes) == 1 else None), _count_argument(digits)
    if found is None or not 0 <= places <= 20:
        return []
    try:
        return made(Decimal(found).quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP))
    except InvalidOperation:
        return []


def _sum(_scope: Scope, nodes: Nodes) -> Nodes:
    total = [Node(0, "integer")]
    for node in nodes:
        total = compute("+", total[0], node) if total else []
    return total


def _join(scope: Scope, nodes: Nodes, separator: Nodes = []) -> Nodes:  # noqa: B006 (never changed)
    between = separator[0].value if separator and isinstance(separator[0].value, str) else ""
    scope.context.work.spend(len(between) * len(nodes) // 16)
    found = [Node(between.join(node.value for node in nodes if isinstance(node.value, str)), "string")]
    spend_text(scope, found)
    return found


def _all_are(wanted: bool) -> Callable[[Scope, Nodes], Nodes]:
    return lambda _scope, nodes: boolean(all(node.value is wanted for node in nodes))


def _any_is(wanted: bool) -> Callable[[Scope, Nodes], Nodes]:
    return lambda _scope, nodes: boolean(any(node.value is wanted for node in nodes))


def _not(_scope: Scope, nodes: Nodes) -> Nodes:
    found = truth(nodes)
    return [] if found is None else boolean(not found)


def _single(_scope: Scope, nodes: Nodes) -> Nodes:
    return nodes if len(nodes) == 1 else []


FUNCTIONS: dict[str, Function] = {
    "all": _each(_all),
    "aggregate": _aggregate,
    "as": _of_type,
    "exists": _each(_exists, optional=True),
    "iif": _iif,
    "is": _is,
    "ofType": _of_type,
    "repeat": _each(_repeat),
    "select": _each(_select),
    "where": _each(_where),
    "allFalse": _plain(_all_are(False)),
    "allTrue": _plain(_all_are(True)),
    "anyFalse": _plain(_any_is(False)),
    "anyTrue": _plain(_any_is(True)),
    "children": _plain(lambda _scope, nodes: [child for node in nodes for child in all_children(node)]),
    "count": _plain(lambda _scope, nodes: [Node(len(nodes), "integer")]),
    "descendants": _plain(descendants),
    "distinct": _plain(_distinct),
    "empty": _plain(lambda _scope, nodes: FALSE if nodes else TRUE),
    "first": _plain(lambda _scope, nodes: nodes[:1]),
    "hasValue": _plain(_has_value),
    "getValue": _plain(lambda scope, nodes: nodes if _has_value(scope, nodes) == TRUE else []),
    "isDistinct": _plain(lambda scope, nodes: boolean(len(_distinct(scope, nodes)) == len(nodes))),
    "last": _plain(lambda _scope, nodes: nodes[-1:]),
    "not": _plain(_not),
    "resolve": _plain(_resolve),
    "single": _plain(_single),
    "sum": _plain(_sum),
    "tail": _plain(lambda _scope, nodes: nodes[1:]),
    "combine": _with(lambda _scope, nodes, others: [*nodes, *others]),
    "exclude": _with(_exclude),
    "extension": _with(_extension),
    "htmlChecks": _plain(lambda _scope, _nodes: TRUE),  # narratives are checked wherever they are
    "intersect": _with(_intersect),
    "memberOf": _with(_member_of),
    "skip": _with(lambda _scope, nodes, count: nodes[max(_count_argument(count), 0) :]),
    "subsetOf": _with(_subset),
    "supersetOf": _with(lambda scope, nodes, others: _subset(scope, others, nodes)),
    "take": _with(lambda _scope, nodes, count: nodes[: max(_count_argument(count), 0)]),
    "trace": _with(lambda _scope, nodes, *_: nodes, 1, 2),
    "union": _with(union),
    "contains": _text_function(lambda string, part: part in string, 1, 1),
    "endsWith": _text_function(lambda string, part: string.endswith(part), 1, 1),
    "indexOf": _text_function(lambda string, part: string.index(part) if part in string else -1, 1, 1),
    "join": _with(_join, 0, 1),
    "length": _text_function(len),
    "lower": _text_function(str.lower),
    "matches": _regular(_matches, 1),
    "matchesFull": _regular(_matches_full, 1),
    "replace": _text_function(_replaced, 2, 2),
    "replaceMatches": _regular(_replace_matches, 2),
    "split": _text_function(lambda string, part: string.split(part) if part else [string], 1, 1),
    "startsWith": _text_function(lambda string, part: string.startswith(part), 1, 1),
    "substring": _text_function(_substring, 1, 2),
    "toChars": _text_function(list),
    "trim": _text_function(str.strip),
    "upper": _text_function(str.upper),
    "abs": _math(abs),
    "ceiling": _math(lambda value: int(value) + (value > int(value))),
    "floor": _math(lambda value: int(value) - (value < int(value))),
    "round": _with(_round, 0, 1),
    "truncate": _math(int),
    "toBoolean": _converted("boolean", _boolean_of),
    "toDate": _converted("date", lambda node: (_moment_of(node) or "")[:10] or None),
    "toDateTime": _converted("dateTime", _moment_of),
    "toDecimal": _converted("decimal", _decimal_of),
    "toInteger": _converted("integer", _integer_of),
    "toString": _converted("string", text),
    "convertsToBoolean": _convertible(_boolean_of),
    "convertsToDate": _convertible(_moment_of),
    "convertsToDateTime": _convertible(_moment_of),
    "convertsToDecimal": _convertible(_decimal_of),
    "convertsToInteger": _convertible(_integer_of),
    "convertsToString": _convertible(text),
}
