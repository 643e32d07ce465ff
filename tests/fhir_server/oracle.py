"""A naive search, written from https://hl7.org/fhir/R4/search.html and from nothing else.

It looks at each resource as it is, with a hand-written extractor for each parameter, and compares as the page says.
Slow and small on purpose: it is what the real one is compared with.
"""

import json
import re
import unicodedata
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from math import acos, cos, radians, sin
from typing import Any

Resource = dict[str, Any]
Extract = Callable[[Resource], list[Any]]
Meets = Callable[[Resource], bool]


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


def coded_quantities(resource: Resource) -> list[Any]:
    """(code, quantity) of a composite whose two elements are there."""
    code, value = resource["code"], resource.get("valueQuantity")
    return [(code, value)] if value and codings(code) else []


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
        "code-value-quantity": ("composite", coded_quantities),
        "value-string": ("string", any_of(at("valueString"), at("valueCodeableConcept", "text"))),
        "date": ("date", any_of(at("effectiveDateTime"), at("effectivePeriod"))),
        "patient": ("reference", to("Patient", "subject")),
    },
    "Location": {"name": ("string", at("name")), "near": ("near", at("position"))},
    "RiskAssessment": {
        "probability": ("number", at("prediction", "probabilityDecimal")),
        "patient": ("reference", to("Patient", "subject")),
    },
}
for _parameters in PARAMETERS.values():
    _parameters["_id"] = ("token", at("id"))
    _parameters["_tag"] = ("token", at("meta", "tag"))
    _parameters["_security"] = ("token", at("meta", "security"))
    _parameters["_profile"] = ("uri", at("meta", "profile"))
    _parameters["_source"] = ("uri", at("meta", "source"))
    _parameters["_lastUpdated"] = ("date", at("meta", "lastUpdated"))

# What is known of codes: the members of a value set, and of each code the ones above it.
VALUE_SETS = {
    "http://acme.example/some": {
        ("http://acme.example/ids", "CT"),
        ("http://acme.example/ids", "a|b"),
        ("urn:mrn", "MR"),
    }
}
ABOVE = {"http://acme.example/ids": {"CT": (), "MR": ("CT",), "US": ("CT", "MR"), "a|b": ("CT",), "x y": ()}}

# https://hl7.org/fhir/R4/search.html#chaining: where a chain can lead to without a type
TARGETS = {
    ("ServiceRequest", "subject"): ("Patient",),
    ("ServiceRequest", "patient"): ("Patient",),
    ("ServiceRequest", "requester"): ("Organization",),
    ("Task", "owner"): ("Organization",),
    ("Task", "focus"): ("ServiceRequest", "Appointment", "ImagingStudy"),
    ("Task", "patient"): ("Patient",),
    ("Appointment", "patient"): ("Patient",),
    ("Appointment", "actor"): ("Patient", "Location"),
    ("Appointment", "based-on"): ("ServiceRequest",),
    ("ImagingStudy", "patient"): ("Patient",),
    ("ImagingStudy", "basedon"): ("ServiceRequest",),
    ("Patient", "organization"): ("Organization",),
    ("Observation", "patient"): ("Patient",),
    ("RiskAssessment", "patient"): ("Patient",),
}

# https://hl7.org/fhir/R4/compartmentdefinition-patient.html
IN_COMPARTMENT = {
    "Appointment": ("actor",),
    "ImagingStudy": ("patient",),
    "Observation": ("patient",),
    "RiskAssessment": ("patient",),
    "ServiceRequest": ("subject",),
}


class Oracle:
    """Searches a list of resources; `base` is the server's own address."""

    def __init__(self, resources: list[Resource], base: str, lists: dict[str, list[str]] | None = None) -> None:
        """lists: id of a List -> references of its entries."""
        self.resources = resources
        self.base = base
        self.lists = lists or {}

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
        if name == "_filter":
            return self.filtered(resource, value)
        if name == "_list":
            return any(reference(resource) in self.lists.get(id, []) for id in value.split(","))
        if name in ("_text", "_content"):
            text = (
                resource.get("text", {}).get("div", "")
                if name == "_text"
                else json.dumps(resource, default=str, ensure_ascii=False)
            )
            there = set(re.findall(r"\w+", plain(re.sub(r"<[^>]*>", " ", text))))
            return any(set(plain(one).split()) <= there for one in value.split(","))
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
        alternatives = parted(value, ",")
        if modifier == "not":
            return not any(token(found, one) for found in values for one in alternatives)
        if modifier == "not-in":
            return not any(by_meaning(found, "in", one) for found in values for one in alternatives)
        return any(self.compare(type, found, modifier, one) for found in values for one in alternatives)

    def compare(self, type: str, found: Any, modifier: str, wanted: str) -> bool:
        """Whether one value of a resource is what is wanted."""
        if modifier in ("in", "below", "above") and type == "token":
            return by_meaning(found, modifier, wanted)
        if modifier == "text" and type in ("token", "reference"):
            return any(plain(text).startswith(plain(unescaped(wanted))) for text in called(found))
        if modifier == "of-type":
            return of_type(found, wanted)
        if type == "reference":
            return self.reference(found, modifier, wanted)
        if type == "string":
            return string(found, modifier, unescaped(wanted))
        if type == "uri":
            return uri(found, modifier, wanted)
        if type == "composite":
            code, value = parted(wanted, "$")
            return token(found[0], code) and quantity(found[1], value)
        return {"token": token, "date": date, "quantity": quantity, "number": number, "near": near}[type](
            found, wanted
        )

    def filtered(self, resource: Resource, text: str) -> bool:
        """https://hl7.org/fhir/R4/search_filter.html, read from left to right."""
        tokens = re.findall(r'"(?:[^"\\]|\\.)*"|[()\[\]]|[^\s()\[\]]+', text)

        def expression() -> Meets:
            met = term()
            while tokens and tokens[0] in ("and", "or"):
                met = joined(met, tokens.pop(0), term())
            return met

        def term() -> Meets:
            first = tokens.pop(0)
            if first == "not":
                negated = term()
                return lambda one: not negated(one)
            if first == "(":
                met = expression()
                assert tokens.pop(0) == ")"
                return met
            where: tuple[int, Meets] | None = None
            if tokens[0] == "[":
                tokens.pop(0)
                where = first.count("."), expression()
                assert tokens.pop(0) == "]"
                first += tokens.pop(0)
            operator, text = tokens.pop(0), tokens.pop(0)
            value = json.loads(text) if text.startswith('"') else text
            return lambda one: self.tested(one, first, operator, value, where)

        return expression()(resource)

    def tested(
        self, resource: Resource, path: str, operator: str, value: str, where: tuple[int, Meets] | None = None
    ) -> bool:
        """where: which link leads to a resource that must meet more than the rest, and what."""
        if path.startswith("_has:"):
            _, source, code, rest = path.split(":", 3)
            referrers = [one for one in self.resources if one["resourceType"] == source]
            return any(
                self.leads_to(one, code, resource) and self.tested(one, rest, operator, value) for one in referrers
            )
        head, dot, rest = path.partition(".")
        code, _, target = head.partition(":")
        if dot:
            types = (target,) if target else TARGETS[resource["resourceType"], code]
            leads = [one for one in self.resources if one["resourceType"] in types and knows(one, rest)]
            return any(
                self.leads_to(resource, code, one)
                and (where is None or where[0] > 0 or where[1](one))
                and self.tested(one, rest, operator, value, (where[0] - 1, where[1]) if where and where[0] else None)
                for one in leads
            )
        type, extract = PARAMETERS[resource["resourceType"]][code]
        found = extract(resource)
        if operator == "pr":
            return bool(found) == (value == "true")
        return any(self.item(type, one, operator, value) for one in items(type, found))

    def item(self, type: str, found: Any, operator: str, value: str) -> bool:
        """Whether one item of a set passes a test."""
        if type == "string":
            have, wanted = plain(found), plain(value)
            return {
                "eq": have == wanted,
                "ne": have != wanted,
                "co": wanted in have,
                "sw": have.startswith(wanted),
                "ew": have.endswith(wanted),
            }[operator]
        if type == "uri" and operator != "eq":
            return {
                "ne": found != value,
                "co": value in found,
                "sw": found.startswith(value),
                "ew": found.endswith(value),
            }[operator]
        if operator == "po":
            (low, high), (start, end) = span(found), period(value)
            return low < end and high > start
        if operator in ("in", "ss", "sb"):
            return by_meaning(found, {"in": "in", "ss": "below", "sb": "above"}[operator], value)
        if operator == "ne" and type in ("token", "reference"):
            if type == "reference" and "reference" not in found:
                return False  # a logical one is neither equal nor unequal to an address
            return not self.compare(type, found, "", value)
        return self.compare(type, found, "", value if type in ("token", "reference", "uri") else f"{operator}{value}")

    def included(self, matches: list[Resource], includes: list[tuple[str, str]]) -> list[str]:
        """References of what is included, in order of their text."""
        seen = {reference(one) for one in matches}
        fresh, found, once = matches, [], True
        while fresh:
            here = [
                (name, *(value.split(":") if value != "*" else ("*", "*")))
                for name, value in includes
                if once or ":iterate" in name
            ]
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
        if source not in ("*", near["resourceType"]) or (target and far["resourceType"] != target[0]):
            return False
        own = PARAMETERS[near["resourceType"]]
        codes = [name for name, (type, _) in own.items() if type == "reference"] if code == "*" else [code]
        return any(self.leads_to(near, name, far) for name in codes)

    def in_compartment(self, resource: Resource, patient: str) -> bool:
        """Of the patient with this id."""
        codes = IN_COMPARTMENT.get(resource["resourceType"], ())
        whose = {"resourceType": "Patient", "id": patient}
        return reference(resource) == reference(whose) or any(self.leads_to(resource, code, whose) for code in codes)

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


def joined(left: Meets, word: str, right: Meets) -> Meets:
    if word == "and":
        return lambda one: left(one) and right(one)
    return lambda one: left(one) or right(one)


def knows(resource: Resource, name: str) -> bool:
    return (
        name.startswith(("_has:", "_filter", "_list", "_text", "_content"))
        or name.partition(".")[0].partition(":")[0] in PARAMETERS[resource["resourceType"]]
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


def items(type: str, values: list[Any]) -> list[Any]:
    """What a set consists of: of tokens, each coding."""
    if type != "token":
        return values
    each_one = []
    for found in values:
        is_concept = isinstance(found, dict) and "coding" in found
        each_one += found["coding"] if is_concept else [found] if codings(found) else []
    return each_one


def parted(text: str, sign: str) -> list[str]:
    """https://hl7.org/fhir/R4/search.html#escaping: a sign behind a backslash separates nothing."""
    return re.split(rf"(?<!\\){re.escape(sign)}", text)


def unescaped(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)


def token(found: Any, wanted: str) -> bool:
    *systems, code = map(unescaped, parted(wanted, "|"))
    for have_system, have_code in codings(found):
        if not systems and have_code == code:
            return True
        if systems and (have_system or "") == systems[0] and (not code or have_code == code):
            return True
    return False


def by_meaning(found: Any, modifier: str, wanted: str) -> bool:
    """In a value set, or below or above a code."""
    if modifier == "in":
        return any(coding in VALUE_SETS[wanted] for coding in codings(found))
    system, code = map(unescaped, parted(wanted, "|"))
    for have_system, have in codings(found):
        below, above = (code, have) if modifier == "below" else (have, code)
        if have_system == system and (have == code or below in ABOVE[system].get(above or "", ())):
            return True
    return False


def called(found: Any) -> list[str]:
    """The text of a code, of a kind of identifier, or of a reference."""
    texts = [
        each(found, "display"),
        each(found, "text"),
        each(found, "coding", "display"),
        each(found, "type", "text"),
    ]
    return [text for some in texts for text in some]


def of_type(found: Resource, wanted: str) -> bool:
    system, code, value = map(unescaped, parted(wanted, "|"))
    kinds = each(found, "type", "coding")
    return found.get("value") == value and any(
        (one.get("system"), one.get("code")) == (system, code) for one in kinds
    )


def near(found: Resource, wanted: str) -> bool:
    """By the angle between two directions from the centre of the earth."""
    latitude, longitude, distance = (float(part) for part in wanted.split("|")[:3])
    meters = distance * {"km": 1000, "mi": 1609.344}[wanted.split("|")[3]]

    def direction(lat: float, lon: float) -> tuple[float, float, float]:
        lat, lon = radians(lat), radians(lon)
        return cos(lat) * cos(lon), cos(lat) * sin(lon), sin(lat)

    here, there = direction(latitude, longitude), direction(float(found["latitude"]), float(found["longitude"]))
    product = sum(one * other for one, other in zip(here, there, strict=True))
    return acos(max(-1.0, min(1.0, product))) * 6_371_008.8 <= meters


def plain(text: str) -> str:
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return "".join(sign for sign in decomposed if not unicodedata.combining(sign))


def string(found: str, modifier: str, wanted: str) -> bool:
    if modifier == "exact":
        return found == wanted
    if modifier == "contains":
        return plain(wanted) in plain(found)
    if modifier == "text":
        return all(
            any(word.startswith(one) for word in re.findall(r"\w+", plain(found))) for one in plain(wanted).split()
        )
    return plain(found).startswith(plain(wanted))


def uri(found: str, modifier: str, wanted: str) -> bool:
    wanted = unescaped(wanted)
    if modifier == "below":
        return found == wanted or found.startswith(f"{wanted}/")
    if modifier == "above":
        return found == wanted or wanted.startswith(f"{found}/")
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


def sort_value(resource: Resource, code: str, downwards: bool) -> Any:
    """https://hl7.org/fhir/R4/search.html#sort: of several values, the one that comes first in the order."""
    type, extract = PARAMETERS[resource["resourceType"]][code]
    values = extract(resource)
    if type == "string":
        values = [plain(one) for one in values]
    elif type == "token":
        values = [have for one in values for _, have in codings(one) if have is not None]
    elif type == "date":
        values = [span(one)[0] for one in values]
    elif type == "quantity":
        values = [one["value"] * (GRAMS[one["code"]] if "code" in one else 1) for one in values]
    return (max if downwards else min)(values, default=None)


def date(found: Any, wanted: str) -> bool:
    prefix, text = (wanted[:2], wanted[2:]) if wanted[:2].isalpha() else ("eq", wanted)
    start, end = period(text)
    low, high = span(found)
    contained = start <= low and high <= end
    if prefix == "ap":  # within a tenth of the time from then to now
        margin = abs(datetime.now(UTC) - (start + (end - start) / 2)) / 10
        return low < end + margin and high > start - margin
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
        "ap": value - half <= found <= value + half or abs(found - value) <= abs(value) / 10,
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
