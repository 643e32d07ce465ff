"""Tokens, and what is known of their codes. https://hl7.org/fhir/R4/search.html#token"""

import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache

from conformance.structures import structure, value_set
from fhir_server.elements import elements
from fhir_server.errors import BadRequest
from fhir_server.index.text import MAX_KEY, bounded, escaped, fold
from fhir_server.search.terms import KEYS, Asked, Condition, Vocabulary, any_of, having, lacking
from fhir_server.search.values import bad_value, split, unescape

BOOLEANS = "http://hl7.org/fhir/special-values"  # the system of true and false


def token(asked: Asked) -> Condition:
    """A token parameter with any of its modifiers but `missing`."""
    code, name = asked.parameter.code, asked.name
    if asked.modifier == "of-type":
        return having(_of_type(asked, value) for value in asked.values)
    if asked.modifier == "text":
        return called(asked)
    if asked.modifier in _BY_MEANING:
        keys = [
            key for value in asked.values for key in _BY_MEANING[asked.modifier](asked, unescape_token(name, value))
        ]
        return lacking(keys) if asked.modifier == "not-in" else having(keys)
    if asked.is_plain:
        keys = [key for value in asked.values for key in _plain_keys(asked, unescape_token(name, value))]
    else:
        keys = [token_key(code, name, value) for value in asked.values]
    return lacking(keys) if asked.modifier == "not" else having(keys)


def token_key(prefix: str, name: str, value: str) -> str:
    """The key of `code`, `system|code`, `|code` or `system|`; the prefix names the parameter, if it is needed."""
    parts = unescape_token(name, value)
    return bounded(f"{prefix}={'|'.join(escaped(part) for part in parts)}")


def unescape_token(name: str, value: str) -> list[str]:
    """[code], or [system, code] of which one may be empty."""
    parts = [unescape(part) for part in split(value, "|")]
    if len(parts) > 2 or not any(parts):
        raise bad_value(name, r"a token: code, system|code, |code or system|; a | of the code itself is \|")
    return parts


def called(asked: Asked) -> Condition:
    """`:text`: what a code, a kind of identifier or a reference is called begins so."""
    conditions = []
    for value in asked.values:
        folded = fold(unescape(value))
        if not folded or len(folded) > MAX_KEY // 2:
            raise bad_value(asked.name, f"text of at most {MAX_KEY // 2} characters")
        conditions.append({"keys": {"$regex": f"^{re.escape(f'{asked.parameter.code}:text={folded}')}"}})
    return any_of(conditions, KEYS)


def _of_type(asked: Asked, value: str) -> str:
    parts = [escaped(unescape(part)) for part in split(value, "|")]
    if len(parts) != 3 or not all(parts):
        raise bad_value(asked.name, "system|code|value")
    return bounded(f"{asked.parameter.code}:of-type={'|'.join(parts)}")


# Codes without a system beside them: the definition implies it


def _plain_keys(asked: Asked, parts: list[str]) -> list[str]:
    """The keys of a token that is looked for among plain codes, booleans and strings. Raises BadRequest for a system
    that none of them has: to find nothing by it would be right, but with `:not` it would be everything."""
    code = asked.parameter.code
    if len(parts) == 1:
        return [bounded(f"{code}={escaped(parts[0])}")]
    system, wanted = parts
    known = implied(asked)
    if not known:
        raise bad_value(asked.name, "values without a system, since they all have the same")
    if system not in known:
        raise bad_value(asked.name, f"values without a system, or of {', '.join(sorted(known))}")
    return [bounded(f"{code}={escaped(one)}") for one in sorted(known[system]) if wanted in ("", one)]


def implied(asked: Asked) -> Mapping[str, frozenset[str]] | None:
    """System -> codes of the plain codes that a parameter looks at; None where they cannot be listed."""
    found: dict[str, frozenset[str]] = {}
    for path in asked.paths:
        concepts = _implied(asked.resource_type, tuple(path))
        if concepts is None:
            return None
        for system, codes in concepts.items():
            found[system] = found.get(system, frozenset()) | codes
    return found


@cache
def _implied(resource_type: str, path: tuple[str, ...]) -> Mapping[str, frozenset[str]] | None:
    type: str | None = resource_type
    for name in path[:-1]:
        found = elements(type).get(name) if type else None
        type = found.type if found else None
    definition = structure(type) if type else None
    for element in definition.elements if definition else ():
        if element.name == path[-1]:
            if element.types == ("boolean",):
                return {BOOLEANS: frozenset({"true", "false"})}
            return value_set(element.binding) if element.binding else None
    return None


# By what is known of codes


def _vocabulary(asked: Asked) -> Vocabulary:
    if asked.vocabulary is None:
        raise BadRequest(f"{asked.name!r} needs a terminology, and there is none here")
    return asked.vocabulary


def _members(asked: Asked, parts: list[str]) -> Iterable[str]:
    """The keys of all codes of a value set."""
    if len(parts) > 2 or not parts[0]:
        raise bad_value(asked.name, "the URL of a value set")
    return _keys(asked, _vocabulary(asked).members("|".join(part for part in parts if part)))


def _below(asked: Asked, parts: list[str]) -> Iterable[str]:
    system, code = _placed(asked, parts)
    return _keys(asked, ((system, one) for one in _vocabulary(asked).below(system, code)))


def _above(asked: Asked, parts: list[str]) -> Iterable[str]:
    system, code = _placed(asked, parts)
    return _keys(asked, ((system, one) for one in _vocabulary(asked).above(system, code)))


def _placed(asked: Asked, parts: list[str]) -> tuple[str, str]:
    """(system, code); of plain codes the system may be left out."""
    if len(parts) == 1 and asked.is_plain:
        systems = [system for system, codes in (implied(asked) or {}).items() if parts[0] in codes]
        if len(systems) == 1:
            return systems[0], parts[0]
    if len(parts) != 2 or not all(parts):
        raise bad_value(asked.name, "system|code")
    return parts[0], parts[1]


def _keys(asked: Asked, codes: Iterable[tuple[str, str]]) -> Iterable[str]:
    if asked.is_plain:
        known = implied(asked) or {}
        codes = [(system, one) for system, one in codes if one in known.get(system, ())]
        return [bounded(f"{asked.parameter.code}={escaped(one)}") for _, one in codes]
    return [bounded(f"{asked.parameter.code}={escaped(system)}|{escaped(one)}") for system, one in codes]


_BY_MEANING: Mapping[str, Callable[[Asked, list[str]], Iterable[str]]] = {
    "in": _members,
    "not-in": _members,
    "below": _below,
    "above": _above,
}
