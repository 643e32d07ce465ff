"""Search keys of one value, by the type of the parameter. https://hl7.org/fhir/R4/search.html#ptypes

token `code=value`, `code=system|value`, `code=|value` (no system), `code=system|`; what it is called, also of a
reference, `code:text=folded text`; reference `code=Type/id` or an
absolute address; string `code=folded text` and `code:exact=Text`; uri `code=value`. In a token, | and \\ are escaped.
"""

import re
from typing import Any

from fhir_server.index.text import bounded, escaped, fold
from fhir_server.references import RELATIVE

Keys = dict[str, None]  # a set that keeps its order

# ContactPoint.system: a code, where Identifier.system is a URI
_CONTACT = frozenset({"phone", "fax", "email", "pager", "url", "sms", "other"})
_TEXTS = ("text", "family", "given", "prefix", "suffix")  # of a HumanName
_LINES = ("text", "line", "city", "district", "state", "postalCode", "country")  # of an Address
_VERSIONED = re.compile(r"(.+/[A-Za-z]+/[A-Za-z0-9\-.]{1,64})/_history/[A-Za-z0-9\-.]{1,64}")


def token(name: str, value: Any, keys: Keys, _base_url: str) -> None:
    if isinstance(value, str):
        keys[bounded(f"{name}={escaped(value)}")] = None
    elif isinstance(value, bool):
        keys[f"{name}={'true' if value else 'false'}"] = None
    elif isinstance(value, int):
        keys[f"{name}={value}"] = None
    elif isinstance(value, dict):
        codings = value.get("coding")
        if isinstance(codings, list):
            for coding in codings:
                if isinstance(coding, dict):
                    _coded(name, coding.get("system"), coding.get("code"), keys)
                    _called(name, coding.get("display"), keys)
            _called(name, value.get("text"), keys)
        elif "value" in value:
            _identified(name, value, keys)
        else:
            _coded(name, value.get("system"), value.get("code"), keys)
            _called(name, value.get("display") or value.get("text"), keys)


def _identified(name: str, value: dict, keys: Keys) -> None:
    """An Identifier or a ContactPoint."""
    system, text = value.get("system"), value["value"]
    if isinstance(system, str) and system in _CONTACT:
        token(name, text, keys, "")
        return
    _coded(name, system, text, keys)
    kind = value.get("type")
    if not isinstance(kind, dict):
        return
    _called(name, kind.get("text"), keys)
    codings = kind.get("coding")
    for coding in codings if isinstance(codings, list) else ():
        if isinstance(coding, dict) and isinstance(text, str):
            parts = [part for part in (coding.get("system"), coding.get("code")) if isinstance(part, str)]
            if len(parts) == 2:
                keys[bounded(f"{name}:of-type={'|'.join(map(escaped, (*parts, text)))}")] = None


def _coded(name: str, system: Any, code: Any, keys: Keys) -> None:
    system = escaped(system) if isinstance(system, str) and system else None
    code = escaped(code) if isinstance(code, str) and code else None
    if system:
        keys[bounded(f"{name}={system}|")] = None
    if code:
        keys[bounded(f"{name}={code}")] = None
        keys[bounded(f"{name}={system or ''}|{code}")] = None


def _called(name: str, text: Any, keys: Keys) -> None:
    if isinstance(text, str) and (folded := fold(text)):
        keys[bounded(f"{name}:text={folded}")] = None


def reference(name: str, value: Any, keys: Keys, base_url: str) -> None:
    if isinstance(value, str):
        uri(name, normal(value, base_url), keys, base_url)
        return
    if not isinstance(value, dict):
        return
    target = value.get("reference")
    if isinstance(target, str) and not target.startswith("#"):
        keys[bounded(f"{name}={normal(target, base_url)}")] = None
    elif isinstance(target, dict):  # Consent.provision.data, whose `reference` is the Reference
        reference(name, target, keys, base_url)
    if isinstance(value.get("identifier"), dict):
        token(f"{name}:identifier", value["identifier"], keys, base_url)
    _called(name, value.get("display"), keys)
    resource_type, id = value.get("resourceType"), value.get("id")
    if isinstance(resource_type, str) and isinstance(id, str):  # the resource itself, in a Bundle
        keys[bounded(f"{name}={resource_type}/{id}")] = None


def normal(target: str, base_url: str) -> str:
    """`Patient/1` for what is here, however it is written and whatever version it names; an address elsewhere."""
    target = target.removeprefix(base_url + "/")
    if match := RELATIVE.fullmatch(target):
        return f"{match[1]}/{match[2]}"
    match = _VERSIONED.fullmatch(target) if "/_history/" in target else None
    return match[1] if match else target


def uri(name: str, value: Any, keys: Keys, _base_url: str) -> None:
    if isinstance(value, str) and value:
        keys[bounded(f"{name}={value}")] = None
        address, version, _ = value.rpartition("|")
        if version and address:  # a canonical with its version is found without it too
            keys[bounded(f"{name}={address}")] = None


def string(name: str, value: Any, keys: Keys, _base_url: str) -> None:
    if isinstance(value, str):
        folded = fold(value)
        if folded:
            keys[bounded(f"{name}={folded}")] = None
        keys[bounded(f"{name}:exact={value}")] = None
    elif isinstance(value, dict):
        for element in dict.fromkeys((*_TEXTS, *_LINES)):
            part = value.get(element)
            for text in part if isinstance(part, list) else [part]:
                if isinstance(text, str):
                    string(name, text, keys, "")
