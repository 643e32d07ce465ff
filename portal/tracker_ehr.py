"""What an EHR lets us read for a referral, with the token that it gave us: sent below its `iss` and nowhere else.

What may not be read, or does not come, is named and asked of the person. https://hl7.org/fhir/smart-app-launch/
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from portal.words import PRIORITIES
from referral.naming import concept_text
from smart_auth.models import EhrVisit
from smart_auth.outside.calls import NoAnswer, get_json
from smart_auth.outside.servers import Server

MAX_ORDERS, MAX_REASONS = 20, 5
_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}", re.ASCII)
_REFERENCE = re.compile(r"[A-Z][A-Za-z]{1,63}/[A-Za-z0-9\-.]{1,64}", re.ASCII)
_COLOUR = re.compile(r"#[0-9a-fA-F]{6}", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]+")
_READABLE = 4.5  # WCAG 2.2, 1.4.3


@dataclass(frozen=True, slots=True)
class Prefill:
    """The form as far as the EHR fills it. fields: name -> text; missing: what it did not give, in words."""

    fields: Mapping[str, str]
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads one EHR for one visit."""

    server: Server
    visit: EhrVisit

    def prefill(self) -> Prefill:
        """All that it gives; never raises for what it does not."""
        patient = self._patient()
        order = self._order()
        conditions = list(self._found("Condition"))
        coverages = [one for one in self._found("Coverage") if one.get("status") == "active"]
        fields = _of_patient(patient) | _of_order(order) | _of_coverage(coverages[0] if coverages else {})
        reasons = list(dict.fromkeys(filter(None, (_words(one.get("code")) for one in conditions if _active(one)))))
        if not fields.get("reason") and reasons:
            fields["reason"] = "; ".join(reasons[:MAX_REASONS])
        named = {"patient": patient, "order": order, "reason": fields.get("reason"), "insurance": fields.get("payer")}
        missing = tuple(name for name, found in named.items() if not found)
        return Prefill({name: _plain(text) for name, text in fields.items() if text}, missing)

    def _patient(self) -> dict:
        patient = self.visit.patient
        return self._read(f"Patient/{patient}") if patient is not None and _ID.fullmatch(patient) else {}

    def _order(self) -> dict:
        """The order that the app was opened for, else the newest of the patient that stands."""
        for reference in self.visit.references:
            is_order = reference.startswith("ServiceRequest/") and _REFERENCE.fullmatch(reference)
            if is_order and (found := self._read(reference)):
                return found
        standing = [one for one in self._found("ServiceRequest") if one.get("status") in ("draft", "active")]
        return max(standing, key=lambda one: str(one.get("authoredOn", "")), default={})

    def _read(self, reference: str) -> dict:
        found = self._get(reference)
        return found if found.get("resourceType") == reference.partition("/")[0] else {}

    def _found(self, resource_type: str) -> Iterator[dict]:
        if self.visit.patient is None:
            return
        query = urlencode({"patient": self.visit.patient, "_count": MAX_ORDERS})
        entries = self._get(f"{resource_type}?{query}").get("entry", [])
        for entry in entries if isinstance(entries, list) else []:
            resource = entry.get("resource") if isinstance(entry, dict) else None
            if isinstance(resource, dict) and resource.get("resourceType") == resource_type:
                yield resource

    def _get(self, path: str) -> dict:
        """Below the EHR's base, with its token; empty when it does not answer with a resource."""
        try:
            found = get_json(
                f"{self.server.issuer}/{quote(path, safe='/?=&%.-')}", {"Authorization": f"Bearer {self.visit.token}"}
            )
        except NoAnswer:
            return {}  # not among the scopes it gave, or away: either way the person is asked instead
        return found if isinstance(found, dict) else {}


def colours(server: Server, style: str | None) -> dict[str, str]:
    """Background, text and highlight that the EHR asks apps to take on, where they can be read.

    Fetched without its token, from its own origin only. https://hl7.org/fhir/smart-app-launch/ (styling)
    """
    if style is None or _origin(style) != _origin(server.issuer):
        return {}
    try:
        found = get_json(style)
    except NoAnswer:
        return {}
    names = {"page": "color_background", "text": "color_text", "accent": "color_highlight"}
    given = {name: found.get(member) for name, member in names.items()} if isinstance(found, dict) else {}
    wanted = {name: value for name, value in given.items() if isinstance(value, str) and _COLOUR.fullmatch(value)}
    if len(wanted) < len(names):
        return {}
    page = wanted["page"]
    return wanted if all(_contrast(page, wanted[name]) >= _READABLE for name in ("text", "accent")) else {}


def _origin(address: str) -> tuple[str, str]:
    try:
        parts = urlsplit(address)
    except ValueError:
        return "", ""
    return parts.scheme, parts.netloc


def _contrast(one: str, other: str) -> float:
    """WCAG 2.2, contrast ratio."""
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _of_patient(patient: dict) -> dict[str, str]:
    names = _dicts(patient, "name")
    name = next((one for one in names if one.get("use") == "official"), names[0] if names else {})
    given = name.get("given")
    phones = [one.get("value") for one in _dicts(patient, "telecom") if one.get("system") == "phone"]
    return {
        "family": _text(name, "family"),
        "given": " ".join(part for part in given if isinstance(part, str)) if isinstance(given, list) else "",
        "birthdate": _text(patient, "birthDate"),
        "gender": _text(patient, "gender"),
        "phone": next((phone for phone in phones if isinstance(phone, str)), ""),
    }


def _of_order(order: dict) -> dict[str, str]:
    priority = _text(order, "priority")
    return {
        "exam": _words(order.get("code")),
        "reason": "; ".join(filter(None, map(_words, _dicts(order, "reasonCode")))),
        "priority": priority if priority in PRIORITIES else "",
    }


def _of_coverage(coverage: dict) -> dict[str, str]:
    """The first payer that has a name; a number without one would be nobody's."""
    payer = next(filter(None, (_text(payer, "display") for payer in _dicts(coverage, "payor"))), "")
    return {"payer": payer, "insured": _text(coverage, "subscriberId") if payer else ""}


def _active(condition: dict) -> bool:
    status = condition.get("clinicalStatus")
    codes = [_text(coding, "code") for coding in _dicts(status, "coding")] if isinstance(status, dict) else []
    return not codes or bool({"active", "recurrence", "relapse"}.intersection(codes))


def _words(concept: Any) -> str:
    try:
        found = concept_text(concept)
    except (AttributeError, TypeError):
        return ""  # of a shape that FHIR does not have
    return found if isinstance(found, str) else ""


def _dicts(resource: dict, name: str) -> list[dict]:
    found = resource.get(name)
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _text(resource: dict, name: str) -> str:
    found = resource.get(name)
    return found if isinstance(found, str) else ""


def _plain(text: str) -> str:
    return _CONTROL.sub(" ", text).strip()
