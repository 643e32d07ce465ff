"""A naive search, written from https://hl7.org/fhir/R4/search.html and from nothing else.

It looks at each resource as it is, with a hand-written extractor for each parameter, and compares as the page says.
Slow and small on purpose: it is what the real one is compared with.
"""

import unicodedata
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

Resource = dict[str, Any]
Extract = Callable[[Resource], list[Any]]


def each(value: Any, *path: str) -> list[Any]:
    """The elements at a path, lists opened."""
    values = [value]
    for name in path:
        below = [one[name] for one in values if isinstance(one, dict) and name in one]
        values = [item for one in below for item in (one if isinstance(one, list) else [one])]
    return values


def at(*path: str) -> Extract:
    return lambda resource: each(resource, *path)


def to(type: str, *path: str) -> Extract:
    """References that lead to a type: by their address, or by saying so where they are logical."""

    def leads(reference: Resource) -> bool:
        address = reference.get("reference")
        return address.split("/")[-2:-1] == [type] if address else reference.get("type") == type

    return lambda resource: [one for one in each(resource, *path) if leads(one)]


def any_of(*extracts: Extract) -> Extract:
    return lambda resource: [value for extract in extracts for value in extract(resource)]


def names(resource: Resource) -> list[str]:
    found = []
    for name in resource.get("name", []):
        found += [name[part] for part in ("text", "family") if part in name]
        found += [text for part in ("given", "prefix", "suffix") for text in name.get(part, [])]
    return found


# type -> code -> (parameter type, what it looks at)
PARAMETERS: dict[str, dict[str, tuple[str, Extract]]] = {
    "Patient": {
        "gender": ("token", at("gender")),
        "active": ("token", at("active")),
        "identifier": ("token", at("identifier")),
        "phone": ("token", lambda patient: [one for one in each(patient, "telecom") if one.get("system") == "phone"]),
        "family": ("string", at("name", "family")),
        "given": ("string", at("name", "given")),
        "name": ("string", names),
        "address-city": ("string", at("address", "city")),
        "birthdate": ("date", at("birthDate")),
        "organization": ("reference", at("managingOrganization")),
        "deceased": (
            "token",
            lambda patient: ["deceasedDateTime" in patient or patient.get("deceasedBoolean", False)],
        ),
    },
    "Organization": {"name": ("string", at("name")), "identifier": ("token", at("identifier"))},
    "ServiceRequest": {
        "status": ("token", at("status")),
        "priority": ("token", at("priority")),
        "code": ("token", at("code")),
        "identifier": ("token", at("identifier")),
        "authored": ("date", at("authoredOn")),
        "occurrence": ("date", any_of(at("occurrenceDateTime"), at("occurrencePeriod"), at("occurrenceTiming"))),
        "subject": ("reference", at("subject")),
        "patient": ("reference", to("Patient", "subject")),
        "requester": ("reference", at("requester")),
        "instantiates-uri": ("uri", at("instantiatesUri")),
    },
    "Task": {
        "status": ("token", at("status")),
        "business-status": ("token", at("businessStatus")),
        "focus": ("reference", at("focus")),
        "owner": ("reference", at("owner")),
        "patient": ("reference", to("Patient", "for")),
        "modified": ("date", at("lastModified")),
        "period": ("date", at("executionPeriod")),
    },
    "Appointment": {
        "status": ("token", at("status")),
        "date": ("date", at("start")),
        "patient": ("reference", to("Patient", "participant", "actor")),
        "actor": ("reference", at("participant", "actor")),
        "part-status": ("token", at("participant", "status")),
        "based-on": ("reference", at("basedOn")),
    },
    "ImagingStudy": {
        "status": ("token", at("status")),
        "modality": ("token", at("series", "modality")),
        "series": ("token", at("series", "uid")),
        "started": ("date", at("started")),
        "patient": ("reference", to("Patient", "subject")),
        "basedon": ("reference", at("basedOn")),
        "identifier": ("token", at("identifier")),
    },
    "Observation": {
        "code": ("token", at("code")),
        "value-quantity": ("quantity", at("valueQuantity")),
        "value-concept": ("token", at("valueCodeableConcept")),
        "value-string": ("string", any_of(at("valueString"), at("valueCodeableConcept", "text"))),
        "date": ("date", any_of(at("effectiveDateTime"), at("effectivePeriod"))),
        "patient": ("reference", to("Patient", "subject")),
    },
    "RiskAssessment": {"probability": ("number", at("prediction", "probabilityDecimal"))},
}
for _parameters in PARAMETERS.values():
    _parameters["_id"] = ("token", at("id"))
    _parameters["_tag"] = ("token", at("meta", "tag"))
    _parameters["_profile"] = ("uri", at("meta", "profile"))
    _parameters["_lastUpdated"] = ("date", at("meta", "lastUpdated"))

# https://hl7.org/fhir/R4/search.html#chaining: where a chain can lead to without a type
TARGETS = {
    ("ServiceRequest", "subject"): ("Patient",),
    ("ServiceRequest", "patient"): ("Patient",),
    ("Task", "focus"): ("ServiceRequest", "Appointment", "ImagingStudy"),
    ("Task", "patient"): ("Patient",),
    ("Appointment", "patient"): ("Patient",),
    ("Appointment", "based-on"): ("ServiceRequest",),
    ("ImagingStudy", "patient"): ("Patient",),
    ("ImagingStudy", "basedon"): ("ServiceRequest",),
    ("Patient", "organization"): ("Organization",),
    ("Observation", "patient"): ("Patient",),
}


class Oracle:
    """Searches a list of resources; `base` is the server's own address."""

    def __init__(self, resources: list[Resource], base: str) -> None:
        self.resources = resources
        self.base = base

    def matches(self, resource_type: str, criteria: list[tuple[str, str]]) -> list[Resource]:
        return [
            resource
            for resource in self.resources
            if resource["resourceType"] == resource_type
            and all(self.meets(resource, name, value) for name, value in criteria)
        ]

    def meets(self, resource: Resource, name: str, value: str) -> bool:
        if name.startswith("_has:"):
            _, source, code, rest = name.split(":", 3)
            referrers = [
                one for one in self.resources if one["resourceType"] == source and self.meets(one, rest, value)
            ]
            return any(self.leads_to(one, code, resource) for one in referrers)
        head, dot, rest = name.partition(".")
        code, _, modifier = head.partition(":")
        if dot:
            types = (modifier,) if modifier else TARGETS[resource["resourceType"], code]
            return any(
                self.leads_to(resource, code, target) and self.meets(target, rest, value)
                for target in self.resources
                if target["resourceType"] in types and knows(target, rest)
            )
        type, extract = PARAMETERS[resource["resourceType"]][code]
        values = extract(resource)
        if modifier == "missing":
            return (not values) == (value == "true")
        alternatives = value.split(",")
        if modifier == "not":
            return not any(token(found, one) for found in values for one in alternatives)
        if type == "reference":
            return any(self.reference(found, modifier, one) for found in values for one in alternatives)
        if type == "string":
            return any(string(found, modifier, one) for found in values for one in alternatives)
        compare = {"token": token, "date": date, "quantity": quantity, "number": number, "uri": uri}[type]
        return any(compare(found, one) for found in values for one in alternatives)

    def included(self, matches: list[Resource], includes: list[tuple[str, str]]) -> list[str]:
        """References of what is included, in order of their text."""
        seen = {reference(one) for one in matches}
        fresh, found, once = matches, [], True
        while fresh:
            here = [(name, *value.split(":")) for name, value in includes if once or ":iterate" in name]
            brought = [
                other
                for other in self.resources
                for name, source, code, *target in here
                if any(self.includes(name, source, code, target, one, other) for one in fresh)
            ]
            fresh, once = [], False
            for one in brought:
                if reference(one) not in seen:
                    seen.add(reference(one))
                    fresh.append(one)
            found += fresh
        return sorted(map(reference, found))

    def includes(self, name: str, source: str, code: str, target: list[str], one: Resource, other: Resource) -> bool:
        near, far = (other, one) if name.startswith("_revinclude") else (one, other)
        if near["resourceType"] != source or (target and far["resourceType"] != target[0]):
            return False
        return self.leads_to(near, code, far)

    def leads_to(self, source: Resource, code: str, target: Resource) -> bool:
        _, extract = PARAMETERS[source["resourceType"]][code]
        return any(self.reference(found, "", f"{target['resourceType']}/{target['id']}") for found in extract(source))

    def reference(self, found: Resource, modifier: str, wanted: str) -> bool:
        if modifier == "identifier":
            return token(found["identifier"], wanted) if "identifier" in found else False
        have = found.get("reference", "").removeprefix(self.base + "/")
        wanted = wanted.removeprefix(self.base + "/")
        if modifier and "/" not in wanted:
            return have == f"{modifier}/{wanted}"
        return have == wanted or ("/" not in wanted and have.count("/") == 1 and have.endswith(f"/{wanted}"))


def reference(resource: Resource) -> str:
    return f"{resource['resourceType']}/{resource['id']}"


def knows(resource: Resource, name: str) -> bool:
    return (
        name.startswith("_has:") or name.partition(".")[0].partition(":")[0] in PARAMETERS[resource["resourceType"]]
    )


def codings(found: Any) -> list[tuple[str | None, str | None]]:
    """(system, code) of each coding; a plain code has the system that its definition implies, written here as *."""
    if isinstance(found, bool):
        return [("*", "true" if found else "false")]
    if isinstance(found, str):
        return [("*", found)]
    if "coding" in found:
        return [(one.get("system"), one.get("code")) for one in found["coding"]]
    if "text" in found:
        return []
    if found.get("system") in ("phone", "email"):
        return [("*", found["value"])]
    return [(found.get("system"), found.get("code", found.get("value")))]


def token(found: Any, wanted: str) -> bool:
    system, bar, code = wanted.rpartition("|")
    for have_system, have_code in codings(found):
        if not bar and have_code == code:
            return True
        if bar and (have_system or "") == system and (not code or have_code == code) and (system or code):
            return True
    return False


def plain(text: str) -> str:
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return "".join(sign for sign in decomposed if not unicodedata.combining(sign))


def string(found: str, modifier: str, wanted: str) -> bool:
    if modifier == "exact":
        return found == wanted
    if modifier == "contains":
        return plain(wanted) in plain(found)
    return plain(found).startswith(plain(wanted))


def uri(found: str, wanted: str) -> bool:
    return found == wanted or found.partition("|")[0] == wanted


def period(text: str) -> tuple[datetime, datetime]:
    """The first instant that a date covers and the first after it."""
    if "T" in text:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        clock = text.partition("T")[2]
        if "." in clock:
            return moment, moment + timedelta(milliseconds=1)
        return moment, moment + timedelta(seconds=1 if clock.count(":") - clock.count("+") > 1 else 60)
    parts = [int(part) for part in text.split("-")]
    year, month, day = (*parts, 1, 1)[:3]
    first = datetime(year, month, day, tzinfo=UTC)
    if len(parts) == 1:
        return first, datetime(year + 1, 1, 1, tzinfo=UTC)
    if len(parts) == 2:
        return first, datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC)
    return first, first + timedelta(days=1)


def span(found: Any) -> tuple[datetime, datetime]:
    """What a dateTime, a Period or a Timing covers; without a start or an end it is open."""
    if isinstance(found, str):
        return period(found)
    if "event" in found:
        spans = [period(one) for one in found["event"]]
        return min(one for one, _ in spans), max(one for _, one in spans)
    low = period(found["start"])[0] if "start" in found else datetime(1, 1, 1, tzinfo=UTC)
    high = period(found["end"])[1] if "end" in found else datetime(9999, 12, 31, tzinfo=UTC)
    return low, high


def date(found: Any, wanted: str) -> bool:
    prefix, text = (wanted[:2], wanted[2:]) if wanted[:2].isalpha() else ("eq", wanted)
    start, end = period(text)
    low, high = span(found)
    contained = start <= low and high <= end
    return {
        "eq": contained,
        "ne": not contained,
        "gt": high > end,
        "lt": low < start,
        "ge": high > end or contained,
        "le": low < start or contained,
        "sa": low >= end,
        "eb": high <= start,
    }[prefix]


def number(found: Decimal, wanted: str) -> bool:
    prefix, text = (wanted[:2], wanted[2:]) if wanted[:2].isalpha() else ("eq", wanted)
    value = Decimal(text)
    decimals = len(text.partition(".")[2])
    half = Decimal(5) / Decimal(10) ** (decimals + 1)
    found = Decimal(found)
    equal = value - half <= found < value + half
    return {
        "eq": equal,
        "ne": not equal,
        "gt": found > value,
        "lt": found < value,
        "ge": found >= value,
        "le": found <= value,
        "sa": found > value,
        "eb": found < value,
    }[prefix]


GRAMS = {"mg": Decimal("0.001"), "g": Decimal(1)}  # https://ucum.org/ucum


def quantity(found: Resource, wanted: str) -> bool:
    """https://hl7.org/fhir/R4/search.html#quantity: quantities in other units of UCUM are converted."""
    value, *unit = wanted.split("|")
    if unit and unit[0] == "http://unitsofmeasure.org":
        if found.get("system") != unit[0]:
            return False
        return number(found["value"] * GRAMS[found["code"]] / GRAMS[unit[1]], value)
    if not number(found["value"], value):
        return False
    if not unit:
        return True
    system, code = unit
    if system:
        return found.get("system") == system and found.get("code") == code
    return code in (found.get("code"), found.get("unit"))
