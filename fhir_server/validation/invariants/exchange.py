"""Invariants of what carries resources and describes servers: Bundle, Parameters, CapabilityStatement and the like.
https://hl7.org/fhir/R4/foundation-module.html
"""

from collections.abc import Mapping

from fhir_server.validation.invariants.terms import (
    HERE,
    Invariant,
    Verdict,
    any_of,
    distinct,
    has,
    has_choice,
    holds,
    items,
)

_ASKING = frozenset({"batch", "transaction", "history"})
_ANSWERING = frozenset({"batch-response", "transaction-response", "history"})


def _in_entries(name: str, types: frozenset[str], mandatory: bool) -> Invariant:
    """Each entry of a Bundle has the element in a Bundle of these types, and none in others."""

    def check(bundle: dict) -> Verdict:
        expected = bundle.get("type") in types
        for index, entry in enumerate(items(bundle, "entry")):
            present = has(entry, name)
            if present and not expected:
                return f"entry[{index}].{name}"
            if mandatory and expected and not present:
                return f"entry[{index}].{name}"
        return True

    return check


def _bdl_1(bundle: dict) -> Verdict:
    return holds(not has(bundle, "total") or bundle.get("type") in ("searchset", "history"), "total")


def _bdl_7(bundle: dict) -> Verdict:
    if bundle.get("type") == "history":
        return True
    seen = set()
    for index, entry in enumerate(items(bundle, "entry")):
        if "fullUrl" not in entry:
            continue
        key = entry["fullUrl"], entry.get("resource", {}).get("meta", {}).get("versionId")
        if key in seen:
            return f"entry[{index}].fullUrl"
        seen.add(key)
    return True


def _bdl_9(bundle: dict) -> Verdict:
    identifier = bundle.get("identifier", {})
    return holds(
        bundle.get("type") != "document" or (has(identifier, "system") and has(identifier, "value")), "identifier"
    )


def _first(kind: str, resource_type: str) -> Invariant:
    def check(bundle: dict) -> Verdict:
        if bundle.get("type") != kind:
            return True
        entries = items(bundle, "entry")
        first = entries[0].get("resource", {}).get("resourceType") if entries else None
        return holds(first == resource_type, "entry[0].resource" if entries else "entry")

    return check


def _parameter(parameter: dict) -> Verdict:
    found = has(parameter, "part") + has_choice(parameter, "value") + has(parameter, "resource")
    return holds(found == 1)


def _kind(kind: str, implementation: bool | None, software: bool | None) -> Invariant:
    """A statement of the kind has (True), lacks (False) or may have (None) an implementation, and software."""

    def check(statement: dict) -> Verdict:
        if statement.get("kind") != kind:
            return True
        for name, wanted in (("implementation", implementation), ("software", software)):
            if wanted is not None and has(statement, name) != wanted:
                return name
        return True

    return check


def _cpb_3(statement: dict) -> Verdict:
    if statement.get("kind") == "instance":
        return True
    for index, messaging in enumerate(items(statement, "messaging")):
        if has(messaging, "endpoint"):
            return f"messaging[{index}].endpoint"
    return True


def _operation(found: dict) -> Verdict:
    """tst-7: where the operation of a TestScript goes."""
    if has(found, "sourceId") or has(found, "targetId") + has(found, "url") + has(found, "params") == 1:
        return True
    return holds(found.get("type", {}).get("code") in ("capabilities", "search", "transaction", "history"))


_ASSERTIONS = (
    "contentType expression headerField minimumId navigationLinks path requestMethod resource responseCode response "
    "validateProfileId"
).split()


def _one_assertion(found: dict) -> Verdict:
    return holds("extension" in found or sum(has(found, name) for name in _ASSERTIONS) <= 1)


def _compared(found: dict) -> Verdict:
    other = has(found, "compareToSourceExpression") or has(found, "compareToSourcePath")
    return holds(has(found, "compareToSourceId") == other)


def _direction(found: dict) -> Verdict:
    answered = has(found, "response") or has(found, "responseCode")
    return holds(found.get("direction") != "request" or not answered)


def _exactly_one(*names: str) -> Invariant:
    return lambda element: holds(sum(has(element, name) for name in names) == 1)


def _tcp_1(terminology: dict) -> Verdict:
    versions = items(terminology, "version")
    return holds(len(versions) <= 1 or all(has(version, "code") for version in versions), "version")


INVARIANTS: Mapping[str, Invariant] = {
    "bdl-1": _bdl_1,
    "bdl-2": _in_entries("search", frozenset({"searchset"}), mandatory=False),
    "bdl-3": _in_entries("request", _ASKING, mandatory=True),
    "bdl-4": _in_entries("response", _ANSWERING, mandatory=True),
    "bdl-5": any_of("resource", "request", "response"),
    "bdl-7": _bdl_7,
    "bdl-8": lambda entry: holds("/_history/" not in entry.get("fullUrl", ""), "fullUrl"),
    "bdl-9": _bdl_9,
    "bdl-10": lambda bundle: holds(bundle.get("type") != "document" or "timestamp" in bundle, "timestamp"),
    "bdl-11": _first("document", "Composition"),
    "bdl-12": _first("message", "MessageHeader"),
    "cpb-1": any_of("rest", "messaging", "document"),
    "cpb-2": any_of("description", "software", "implementation"),
    "cpb-3": _cpb_3,
    "cpb-7": lambda it: holds(distinct((d.get("profile"), d.get("mode")) for d in items(it, "document")), "document"),
    "cpb-9": lambda rest: holds(distinct(resource.get("type") for resource in items(rest, "resource")), "resource"),
    "cpb-12": lambda it: holds(distinct(found.get("name") for found in items(it, "searchParam")), "searchParam"),
    "cpb-14": _kind("instance", True, None),
    "cpb-15": _kind("capability", False, True),
    "cpb-16": _kind("requirements", False, False),
    "inv-1@Parameters": _parameter,
    "inv-1@TestReport": _exactly_one("operation", "assert"),
    "inv-2": _exactly_one("operation", "assert"),
    "sev-1": lambda entity: holds(not (has(entity, "name") and has(entity, "query")), HERE),
    "tcp-1": _tcp_1,
    "tcp-2": any_of("description", "software", "implementation"),
    "tcp-3": _kind("instance", True, None),
    "tcp-4": _kind("capability", False, True),
    "tcp-5": _kind("requirements", False, False),
    "tst-1": _exactly_one("operation", "assert"),
    "tst-2": _exactly_one("operation", "assert"),
    "tst-3": lambda it: holds(sum(has(it, name) for name in ("expression", "headerField", "path")) < 3),
    "tst-4": lambda it: holds(any(has(c, "required") or has(c, "validated") for c in items(it, "capability"))),
    "tst-5": _one_assertion,
    "tst-6": _one_assertion,
    "tst-7": _operation,
    "tst-8": _operation,
    "tst-9": _operation,
    "tst-10": _compared,
    "tst-11": _compared,
    "tst-12": _direction,
    "tst-13": _direction,
}
