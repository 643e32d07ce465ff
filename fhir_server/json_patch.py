"""JSON Patch (RFC 6902) over a resource. https://hl7.org/fhir/R4/http.html#patch"""

import re
from collections.abc import Callable
from copy import deepcopy
from decimal import Decimal
from typing import Any

from fhir_server import fhir_json
from fhir_server.errors import BadRequest, FhirError, TooLarge, Unprocessable

MAX_OPERATIONS = 1000
MAX_COPIES = 100  # and moves: each may double the document, so each is measured
MAX_BYTES = 12 * 1024 * 1024
MAX_STEPS = 60  # of a pointer
_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")
_BAD_ESCAPE = re.compile(r"~(?![01])")
_VALUE_NEEDED = ("add", "replace", "test")
_FROM_NEEDED = ("move", "copy")
_OPERATIONS = ("add", "remove", "replace", "move", "copy", "test")

Tokens = list[str]


def parse(patch: Any) -> Callable[[dict], dict]:
    """The change that a patch document makes. Raises BadRequest for what is no JSON Patch.

    The change raises Unprocessable where an operation does not fit the resource, or a test fails.
    """
    if not isinstance(patch, list) or len(patch) > MAX_OPERATIONS:
        raise BadRequest(f"a JSON Patch is a list of up to {MAX_OPERATIONS} operations")
    if sum(isinstance(operation, dict) and operation.get("op") in _FROM_NEEDED for operation in patch) > MAX_COPIES:
        raise BadRequest(f"a JSON Patch may copy and move {MAX_COPIES} times")
    fhir_json.dumps(patch)  # refuses what is nested too deeply
    steps = [_step(operation, index) for index, operation in enumerate(patch)]

    def change(resource: dict) -> dict:
        document: Any = resource
        for index, step in enumerate(steps):
            try:
                document = step(document)
            except FhirError as error:
                raise type(error)(f"operation {index} of the patch: {error.diagnostics}") from None
        return _without_empty_lists(document)

    return change


def _step(operation: Any, index: int) -> Callable[[Any], Any]:
    """One operation, as a function from document to document."""
    where = f"operation {index} of the patch"
    if not isinstance(operation, dict) or operation.get("op") not in _OPERATIONS:
        raise BadRequest(f"{where}: op is one of {', '.join(_OPERATIONS)}")
    name, path = operation["op"], _pointer(operation.get("path"), where)
    if name in _VALUE_NEEDED and "value" not in operation:
        raise BadRequest(f"{where}: {name} needs a value")
    value = operation.get("value")
    source = _pointer(operation.get("from"), where) if name in _FROM_NEEDED else []
    if name == "move" and path[: len(source)] == source and path != source:
        raise BadRequest(f"{where}: nothing moves into itself")
    steps: dict[str, Callable[[Any], Any]] = {
        "add": lambda document: _add(document, path, deepcopy(value)),
        "remove": lambda document: _remove(document, path)[0],
        "replace": lambda document: _replace(document, path, deepcopy(value)),
        "test": lambda document: _test(document, path, value),
        "copy": lambda document: _measured(_add(document, path, deepcopy(_get(document, source)))),
        "move": lambda document: _measured(_move(document, source, path)),
    }
    return steps[name]


def _pointer(text: Any, where: str) -> Tokens:
    """The tokens of a JSON Pointer. https://www.rfc-editor.org/rfc/rfc6901"""
    if (
        not isinstance(text, str)
        or (text and text[0] != "/")
        or _BAD_ESCAPE.search(text)
        or text.count("/") > MAX_STEPS
    ):
        raise BadRequest(f"{where}: a path is a JSON Pointer, such as /name/0/family")
    return [token.replace("~1", "/").replace("~0", "~") for token in text.split("/")[1:]]


def _get(document: Any, path: Tokens) -> Any:
    for at in range(len(path)):
        document = document[_key(document, path, at)]
    return document


def _key(parent: Any, path: Tokens, at: int) -> Any:
    """What finds an existing child: a name of an object, a number in a list."""
    token = path[at]
    if isinstance(parent, dict) and token in parent:
        return token
    if isinstance(parent, list) and _INDEX.fullmatch(token) and int(token) < len(parent):
        return int(token)
    raise Unprocessable(f"there is nothing at {_written(path[: at + 1])}")


def _parent(document: Any, path: Tokens) -> Any:
    return _get(document, path[:-1])


def _add(document: Any, path: Tokens, value: Any) -> Any:
    if not path:
        return value
    parent, last = _parent(document, path), path[-1]
    if isinstance(parent, dict):
        parent[last] = value
    elif isinstance(parent, list) and last == "-":
        parent.append(value)
    elif isinstance(parent, list) and _INDEX.fullmatch(last) and int(last) <= len(parent):
        parent.insert(int(last), value)
    else:
        raise Unprocessable(f"nothing can be added at {_written(path)}")
    return document


def _remove(document: Any, path: Tokens) -> tuple[Any, Any]:
    """(document, what was removed)"""
    if not path:
        raise Unprocessable("a resource is deleted by DELETE")
    parent = _parent(document, path)
    return document, parent.pop(_key(parent, path, len(path) - 1))


def _replace(document: Any, path: Tokens, value: Any) -> Any:
    if not path:
        return value
    parent = _parent(document, path)
    parent[_key(parent, path, len(path) - 1)] = value
    return document


def _move(document: Any, source: Tokens, path: Tokens) -> Any:
    document, value = _remove(document, source)
    return _add(document, path, value)


def _measured(document: Any) -> Any:
    """The document. Raises TooLarge; BadRequest when it is nested too deeply."""
    if len(fhir_json.dumps(document)) > MAX_BYTES:
        raise TooLarge("the patch makes the resource too large")
    return document


def _without_empty_lists(value: Any) -> Any:
    """FHIR has no empty lists; where the last item was removed, the list goes too."""
    if isinstance(value, dict):
        return {name: _without_empty_lists(child) for name, child in value.items() if child != []}
    return [_without_empty_lists(child) for child in value] if isinstance(value, list) else value


def _test(document: Any, path: Tokens, expected: Any) -> Any:
    if not _equal(_get(document, path), expected):
        raise Unprocessable(f"the value at {_written(path)} is another one")
    return document


def _equal(left: Any, right: Any) -> bool:
    """Equality of JSON: 1 is no true, 1.0 equals 1. https://www.rfc-editor.org/rfc/rfc6902#section-4.6"""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, int | Decimal) and isinstance(right, int | Decimal):
        return left == right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_equal(value, right[name]) for name, value in left.items())
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_equal, left, right))
    return type(left) is type(right) and left == right


def _written(path: Tokens) -> str:
    return ("/" + "/".join(token.replace("~", "~0").replace("/", "~1") for token in path))[:200]
