"""The parameters of a scope, as `category=laboratory` in `patient/Observation.rs?category=laboratory`, read.
https://hl7.org/fhir/smart-app-launch/scopes-and-launch-context.html#finer-grained-resource-constraints-using-search-parameters

A parameter means what it means in a search. What can be held against each resource by its search keys is taken.
"""

from collections.abc import Mapping
from functools import cache, lru_cache
from urllib.parse import parse_qsl

import conformance
from fhir_server.access import Clause
from fhir_server.errors import FhirError
from fhir_server.index import Rule, official_rules
from fhir_server.references import RELATIVE
from fhir_server.search.condition import condition
from fhir_server.search.terms import Asked
from fhir_server.search.values import unescape
from fhir_server.validation import ID

TYPES = ("token", "reference", "uri")  # of parameters whose values are keys as they are
MAX_CLAUSES = 10  # of a scope
MAX_KEYS = 200  # of a clause


@lru_cache(maxsize=1024)
def clauses_of(resource_type: str, query: str) -> tuple[Clause, ...] | None:
    """The parameters of a scope on the type (or `*`); None when not all of them can be held against a resource.

    These are tokens, references and URIs of R4, without modifiers and chains; on `*`, those that every type has.
    """
    parts = list(dict.fromkeys(query.split("&")))
    made = [_clause(resource_type, part) for part in parts[:MAX_CLAUSES]]
    found = tuple(clause for clause in made if clause is not None)
    return found if len(found) == len(parts) else None


def _clause(resource_type: str, text: str) -> Clause | None:
    pairs = parse_qsl(text, keep_blank_values=True)
    rule = _parameters(resource_type).get(pairs[0][0]) if len(pairs) == 1 else None
    if rule is None or rule.parameter.type not in TYPES:
        return None
    asked = Asked(_a_type(resource_type), rule, "", pairs[0][1], "")
    try:
        # Which addresses are our own is not known here, so references are relative.
        if rule.parameter.type == "reference" and not all(map(_is_relative, asked.values)):
            return None
        wanted = condition(asked).filter["keys"]
    except FhirError:
        return None
    keys = frozenset([wanted] if isinstance(wanted, str) else wanted["$in"])
    return Clause(text, keys) if 0 < len(keys) <= MAX_KEYS else None


def _is_relative(value: str) -> bool:
    target = unescape(value)
    return RELATIVE.fullmatch(target) is not None or ID.fullmatch(target) is not None


@cache
def _parameters(resource_type: str) -> Mapping[str, Rule]:
    """What a scope on the type can name."""
    if resource_type not in conformance.resource_types() | {"*"}:
        return {}
    found = official_rules(_a_type(resource_type))
    return {code: rule for code, rule in found.items() if resource_type != "*" or code.startswith("_")}


def _a_type(resource_type: str) -> str:
    """Parameters with an underscore mean the same on every type, so for `*` any will do."""
    return "Basic" if resource_type == "*" else resource_type
