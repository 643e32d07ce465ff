"""Generated searches, compared with a naive one (`oracle`); the seed of a difference is printed."""

import json
import os
import random
import re
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any
from urllib.parse import parse_qsl, urlencode

import pytest
from pymongo.database import Database

from fhir_server.access import Access, Scope
from fhir_server.clauses import clauses_of
from fhir_server.errors import NotFound
from fhir_server.index import rules
from fhir_server.prepare import Draft
from fhir_server.repository import Repository
from fhir_server.search import SearchResult, driver, planner, through
from fhir_server.search.request import is_chain
from fhir_server.search.values import TooCostly
from fhir_server.store import VersionStore
from fhir_server.terminology.vocabulary import add_vocabulary
from tests.fhir_server.conftest import ALL, BASE, PRACTICE
from tests.fhir_server.oracle import (
    ABOVE,
    IN_COMPARTMENT,
    PARAMETERS,
    TARGETS,
    VALUE_SETS,
    Oracle,
    Resource,
    reference,
    span,
)
from tests.fhir_server.oracle import sort_value as any_sort_value

SEED = int(os.environ.get("RADLOOP_TEST_SEED", "20240517"))
SEARCHES = 500
MANY = 10_000  # of the long proof
EACH = 24  # resources of a type
START = datetime(2024, 2, 28, 22, 0, tzinfo=UTC)
DATES = (
    "2023",
    "2024",
    "2024-02",
    "2024-03",
    "2024-02-28",
    "2024-02-29",
    "2024-03-01",
    "2024-02-29T10:00Z",
    "2024-02-29T10:00:00Z",
    "2024-02-29T11:00:00+01:00",
    "2024-02-29T10:00:00.500Z",
    "2024-03-01T00:00:00Z",
)
PREFIXES = ("", "eq", "ne", "gt", "lt", "ge", "le", "sa", "eb", "ap")
NAMES = (
    "Müller",
    "muller",
    "Mull",
    "O'Hara",
    "Ångström",
    "José",
    "Josephine",
    "van der Berg",
    "李",
    "Straße",
    "a.b",
    "Ab",
    "Mu\u0308ller",
    "\ufb01nn",
    "\u03a3\u038a\u03a3\u03a5\u03a6\u039f\u03a3",
    "Doe, Jane",
    "5$|",
)
CITIES = ("Graz", "Graz-Umgebung", "Zürich", "São Paulo")
SYSTEMS = ("urn:mrn", "http://acme.example/ids", None)
CODES = ("CT", "MR", "US", "a|b", "x y")
WORDS = ("fracture", "rib", "Hämatom", "thorax")
STATUSES = ("active", "completed", "draft")
NUMBERS = ("5", "5.0", "5.4", "5.40", "5.45", "-1", "0", "100", "99.5", "100.5", "1000")
CODED = ("code", "business-status", "value-concept")
UNITS = (("http://unitsofmeasure.org", "mg", "mg"), ("http://unitsofmeasure.org", "g", "gram"), (None, None, "mg"))


class Maker:
    """Makes resources that are few in kinds, so that searches hit some of them."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def pick(self, values: Any) -> Any:
        return self.random.choice(values)

    def maybe(self, chance: float = 0.7) -> bool:
        return self.random.random() < chance

    def identifier(self) -> dict:
        system, value = self.pick(SYSTEMS), self.pick(("1", "2", "A-7", "a|b", "c,d", "e\\f"))
        kind = {"coding": [{"system": "urn:v2", "code": self.pick(("MR", "PI"))}], "text": self.pick(NAMES)}
        return {"value": value} | ({"system": system} if system else {}) | ({"type": kind} if self.maybe(0.3) else {})

    def concept(self) -> dict:
        if self.maybe(0.1):
            return {"text": self.pick(NAMES)}
        system = self.pick(SYSTEMS)
        coding = {"code": self.pick(CODES)} | ({"system": system} if system else {})
        coding |= {"display": self.pick(NAMES)} if self.maybe(0.3) else {}
        more = [{"code": self.pick(CODES), "system": self.pick(SYSTEMS[:2])}] if self.maybe(0.3) else []
        return {"coding": [coding, *more], "text": self.pick(NAMES)}

    def period(self) -> dict:
        start, end = sorted(self.random.sample([one for one in DATES if len(one) == 10], 2))
        return self.pick(({"start": start}, {"end": end}, {"start": start, "end": end}))

    def instant(self) -> str:
        moment = START + timedelta(minutes=self.pick((0, 15, 120, 720, 721, 1440, 2880)))
        return self.pick(
            (moment.isoformat(), moment.isoformat(timespec="milliseconds"), f"{moment:%Y-%m-%dT%H:%M:%SZ}")
        )

    def reference(self, type: str) -> dict:
        if self.maybe(0.1):
            return {"identifier": self.identifier(), "type": type}
        id = f"{type.lower()}-{self.random.randrange(EACH)}"
        addresses = (f"{type}/{id}", f"{type}/{id}", f"{BASE}/{type}/{id}", f"http://far.example/fhir/{type}/{id}")
        return {"reference": self.pick(addresses)} | ({"display": self.pick(NAMES)} if self.maybe(0.2) else {})

    def some(self, **elements: Any) -> dict:
        """Each of the elements, or not."""
        return {name: make() for name, make in elements.items() if self.maybe()}

    def resource(self, type: str, number: int) -> Resource:
        made = getattr(self, type.lower())()
        meta: dict = self.some(
            tag=lambda: [{"system": "urn:tags", "code": self.pick(CODES)}],
            security=lambda: [{"system": self.pick(SYSTEMS[:2]), "code": self.pick(CODES)}],
            profile=lambda: [self.pick(("http://acme.example/p", "http://acme.example/p|1.0"))],
            source=lambda: self.pick(("http://acme.example/p", "http://acme.example/p/q", "urn:x:1")),
        )
        if self.maybe(0.4):
            said = " ".join(self.pick(WORDS) for _ in range(2))
            div = f'<div xmlns="http://www.w3.org/1999/xhtml"><p>{said}</p></div>'
            made = {"text": {"status": "generated", "div": div}} | made
        return {"resourceType": type, "id": f"{type.lower()}-{number}"} | ({"meta": meta} if meta else {}) | made

    def location(self) -> dict:
        position = {
            "latitude": Decimal(self.random.randrange(-90, 91)),
            "longitude": Decimal(self.random.randrange(-180, 181)),
        }
        return self.some(name=lambda: self.pick((*NAMES, *WORDS)), position=lambda: position)

    def patient(self) -> dict:
        name = lambda: [{"family": self.pick(NAMES), "given": [self.pick(NAMES)]} for _ in range(self.pick((1, 2)))]  # noqa: E731
        deceased = self.pick(
            ({}, {"deceasedBoolean": False}, {"deceasedBoolean": True}, {"deceasedDateTime": "2024"})
        )
        return deceased | self.some(
            name=name,
            gender=lambda: self.pick(("male", "female")),
            active=lambda: self.maybe(),
            identifier=lambda: [self.identifier(), self.identifier()],
            telecom=lambda: [{"system": self.pick(("phone", "email")), "value": self.pick(("123", "a@b.example"))}],
            address=lambda: [{"city": self.pick(CITIES)}],
            birthDate=lambda: self.pick([one for one in DATES if "T" not in one]),
            managingOrganization=lambda: self.reference("Organization"),
        )

    def organization(self) -> dict:
        return {"name": self.pick(NAMES), "identifier": [self.identifier()]}

    def servicerequest(self) -> dict:
        occurrence = self.pick(
            (
                {},
                {"occurrenceDateTime": self.pick(DATES)},
                {"occurrencePeriod": self.period()},
                {"occurrenceTiming": {"event": [self.instant(), self.instant()]}},
            )
        )
        occurrence = (
            {} if len(str(occurrence.get("occurrenceDateTime", ""))) == 17 else occurrence
        )  # no seconds: not FHIR
        return (
            occurrence
            | {"status": self.pick(STATUSES), "intent": "order", "subject": self.reference("Patient")}
            | self.some(
                priority=lambda: self.pick(("routine", "stat")),
                code=self.concept,
                identifier=lambda: [self.identifier()],
                authoredOn=self.instant,
                requester=lambda: self.reference("Organization"),
                instantiatesUri=lambda: [self.pick(("http://acme.example/p", "http://acme.example/p/q", "urn:x:1"))],
            )
        )

    def task(self) -> dict:
        focus = lambda: self.reference(self.pick(("ServiceRequest", "ImagingStudy")))  # noqa: E731
        return {
            "status": self.pick(("requested", "completed")),
            "intent": "order",
            "for": self.reference("Patient"),
        } | self.some(
            businessStatus=self.concept,
            focus=focus,
            owner=lambda: self.reference("Organization"),
            lastModified=self.instant,
            executionPeriod=self.period,
        )

    def appointment(self) -> dict:
        actors = [self.reference(self.pick(("Patient", "Location"))) for _ in range(2)]
        participant = [{"actor": actor, "status": self.pick(("accepted", "declined"))} for actor in actors]
        status = self.pick(("proposed", "noshow"))
        start = self.instant()
        time = {"start": start, "end": start} if status == "noshow" or self.maybe() else {}
        return {"status": status, "participant": participant, **time} | self.some(
            basedOn=lambda: [self.reference("ServiceRequest"), self.reference("ServiceRequest")]
        )

    def imagingstudy(self) -> dict:
        series = [
            {"uid": f"1.2.{self.random.randrange(9)}", "modality": {"system": "urn:dcm", "code": self.pick(CODES)}}
            for _ in range(self.pick((0, 1, 3)))
        ]
        return (
            {"status": self.pick(("available", "registered")), "subject": self.reference("Patient")}
            | ({"series": series} if series else {})
            | self.some(
                started=self.instant,
                basedOn=lambda: [self.reference("ServiceRequest")],
                identifier=lambda: [self.identifier()],
            )
        )

    def observation(self) -> dict:
        system, code, unit = self.pick(UNITS)
        quantity = {"value": Decimal(self.pick(NUMBERS)), "unit": unit}
        quantity |= {"system": system, "code": code} if system else {}
        value = self.pick(
            (
                {},
                {"valueQuantity": quantity},
                {"valueCodeableConcept": self.concept()},
                {"valueString": self.pick(NAMES)},
            )
        )
        effective = self.pick(({}, {"effectiveDateTime": self.instant()}, {"effectivePeriod": self.period()}))
        return {"status": "final", "code": self.concept(), "subject": self.reference("Patient")} | value | effective

    def riskassessment(self) -> dict:
        likely = [Decimal(one) for one in NUMBERS if Decimal(one) <= 100]
        prediction = [{"probabilityDecimal": self.pick(likely)} for _ in range(self.pick((0, 1, 2)))]
        return {"status": "final", "subject": self.reference("Patient")} | (
            {"prediction": prediction} if prediction else {}
        )

    # Searches

    def includes(self, type: str) -> list[tuple[str, str]]:
        """_include and _revinclude parameters: to a type or any, once or on and on."""
        out = [(source, code) for source, code in TARGETS if source == type]
        back = [(source, code) for (source, code), targets in TARGETS.items() if type in targets]
        made = []
        for name, choices in (("_include", out), ("_revinclude", back)):
            if choices and self.maybe():
                source, code = self.pick(choices)
                target = f":{self.pick(TARGETS[source, code])}" if self.maybe(0.3) else ""
                made.append((name, f"{source}:{code}{target}"))
        if self.maybe(0.3):
            source, code = self.pick(list(TARGETS))
            made.append((f"{self.pick(('_include', '_revinclude'))}:iterate", f"{source}:{code}"))
        if self.maybe(0.2):
            made.append(("_include", self.pick(("*", f"{type}:*"))))
        if back and self.maybe(0.1):
            made.append(("_revinclude", f"{self.pick(back)[0]}:*"))
        return made

    def criterion(self, type: str, depth: int = 2) -> tuple[str, str]:
        chains = [code for source, code in TARGETS if source == type]
        if depth and chains and self.maybe(0.2):
            code = self.pick(chains)
            target = self.pick(TARGETS[type, code])
            name, value = self.criterion(target, depth - 1)
            explicit = self.maybe(0.5) or len(TARGETS[type, code]) > 1 or name.startswith("_has")
            return f"{code}:{target}.{name}" if explicit else f"{code}.{name}", value
        referrers = [(source, code) for (source, code), targets in TARGETS.items() if type in targets]
        if depth and referrers and self.maybe(0.15):
            source, code = self.pick(referrers)
            name, value = self.criterion(source, depth - 1)
            return f"_has:{source}:{code}:{name}", value
        if self.maybe(0.12):
            return "_filter", self.filter(type)
        if self.maybe(0.08):
            return self.pick(("_text", "_content")), self.pick(
                (self.pick(WORDS), " ".join(self.random.sample(WORDS, 2)), "rib,thorax")
            )
        if self.maybe(0.05):
            return "_list", self.pick(("list-1", "list-2", "list-1,list-2", "list-9"))
        code = self.pick(list(PARAMETERS[type]))
        if self.maybe(0.1) and code != "_id":
            return f"{code}:missing", self.pick(("true", "false"))
        kind, _ = PARAMETERS[type][code]
        modifier, make = getattr(self, f"{kind}_value")(type, code)
        values = [make() for _ in range(self.pick((1, 1, 1, 2, 3)))]
        return code + modifier, ",".join(values)

    def common(self, type: str) -> tuple[str, str]:
        """A criterion that all types have."""
        while True:
            name, value = self.criterion(type, 0)
            if name.startswith("_") and name != "_filter":
                return name, value

    def filter(self, type: str, depth: int = 2) -> str:
        """A `_filter`: tests, and, or, not, parentheses, chains."""
        if depth and self.maybe(0.5):
            left, right = self.filter(type, depth - 1), self.filter(type, depth - 1)
            if self.maybe(0.4):
                left = f"({left})" if self.maybe() else f"not ({left})"
            if self.maybe(0.3):
                right = f"({right})"
            return f"{left} {self.pick(('and', 'or'))} {right}"
        chains = [code for source, code in TARGETS if source == type]
        if chains and self.maybe(0.15):
            code = self.pick(chains)
            target = self.pick(TARGETS[type, code])
            explicit = f":{target}" if len(TARGETS[type, code]) > 1 or self.maybe() else ""
            where = f"[{self.filter(target, 0)}]" if explicit and self.maybe(0.3) else ""
            return f"{code}{explicit}{where}.{self.filter(target, 0) if depth and not where else self.test(target)}"
        referrers = [(source, code) for (source, code), targets in TARGETS.items() if type in targets]
        if referrers and self.maybe(0.1):
            source, code = self.pick(referrers)
            return f"_has:{source}:{code}:{self.test(source)}"
        return f"{'not ' if depth and self.maybe(0.1) else ''}{self.test(type)}"

    def test(self, type: str) -> str:
        kinds = ("token", "string", "date", "number", "quantity", "reference", "uri")
        code = self.pick([code for code, (kind, _) in PARAMETERS[type].items() if kind in kinds and code[0] != "_"])
        kind, _ = PARAMETERS[type][code]
        if self.maybe(0.1):
            return f"{code} pr {self.pick(('true', 'false'))}"
        if kind == "string":
            return f"{code} {self.pick(('eq', 'ne', 'co', 'sw', 'ew'))} {json.dumps(self.pick(NAMES + CITIES))}"
        if kind == "uri":
            part = self.pick(("http://acme.example/p", "http://acme.example/p/q", "/p", "q", "urn:x:1"))
            return f"{code} {self.pick(('eq', 'ne', 'co', 'sw', 'ew'))} {part}"
        if kind == "reference":
            target = self.pick(TARGETS.get((type, code), ("Organization",)))
            return f"{code} {self.pick(('eq', 'ne', 're'))} {target}/{target.lower()}-{self.random.randrange(EACH)}"
        if kind == "token":
            if code in CODED and self.maybe(0.3):
                return f"{code} {self.meaning()}"
            modifier = ":text"
            while modifier not in ("", ":not"):
                modifier, make = self.token_value(type, code)
            value = make()
            return f"{code} {self.pick(('eq', 'ne'))} {json.dumps(value) if ' ' in value else value}"
        _, make = getattr(self, f"{kind}_value")(type, code)
        value = make().lstrip("abcdefghijklmnopqrstuvwxyz")
        operators = ("eq", "ne", "gt", "lt", "ge", "le", "sa", "eb", "ap") + (("po",) if kind == "date" else ())
        return f"{code} {self.pick(operators)} {value}"

    def meaning(self) -> str:
        """An operator by what is known of codes, and its value."""
        if self.maybe(0.4):
            return "in http://acme.example/some"
        return f"{self.pick(('ss', 'sb'))} http://acme.example/ids|{self.pick(('CT', 'MR', 'US'))}"

    def composite_value(self, type: str, code: str) -> tuple[str, Any]:
        _, token = self.token_value(type, "code")
        _, quantity = self.quantity_value(type, "value-quantity")
        return "", lambda: f"{token()}${quantity()}"

    def near_value(self, type: str, code: str) -> tuple[str, Any]:
        def make() -> str:
            latitude, longitude = self.random.uniform(-90, 90), self.random.uniform(-180, 180)
            return f"{latitude:.3f}|{longitude:.3f}|{self.random.randrange(100, 12_000)}|{self.pick(('km', 'mi'))}"

        return "", make

    def token_value(self, type: str, code: str) -> tuple[str, Any]:
        plain = {
            "gender": ("male", "female"),
            "active": ("true", "false"),
            "deceased": ("true", "false"),
            "status": (*STATUSES, "available", "requested", "proposed", "noshow"),
            "priority": ("routine", "stat"),
            "part-status": ("accepted", "declined"),
            "series": ("1.2.3", "1.2.4"),
            "phone": ("123", "a@b.example"),
        }
        modifier = self.pick(("", "", ":not"))
        if code == "_id":
            return modifier, lambda: f"{type.lower()}-{self.random.randrange(EACH + 3)}"
        if code in plain:
            return modifier, lambda: self.pick(plain[code])
        if code in CODED and self.maybe(0.3):
            how = self.pick((":in", ":not-in", ":below", ":above"))
            known = ("CT", "MR", "US", r"a\|b")
            in_set = "http://acme.example/some"
            return how, lambda: in_set if "in" in how else f"http://acme.example/ids|{self.pick(known)}"
        if code in (*CODED, "identifier") and self.maybe(0.15):
            return ":text", lambda: typed(self.pick(NAMES)[: self.random.randrange(1, 6)].strip())
        if code == "identifier" and self.maybe(0.1):
            values = ("1", "A-7", r"a\|b")
            return ":of-type", lambda: f"urn:v2|{self.pick(('MR', 'PI'))}|{self.pick(values)}"
        codes = (
            ("1", "2", "A-7", r"a\|b", r"c\,d", r"e\\f")
            if code == "identifier"
            else ("CT", "MR", "US", "x y", r"a\|b")
        )
        systems = ("urn:mrn", "http://acme.example/ids", "urn:dcm", "urn:tags", "")

        def make() -> str:
            return self.pick(
                (self.pick(codes), f"{self.pick(systems)}|{self.pick(codes)}", f"{self.pick(systems[:4])}|")
            )

        return modifier, make

    def string_value(self, type: str, code: str) -> tuple[str, Any]:
        modifier = self.pick(("", ":exact", ":contains", ":text"))

        def make() -> str:
            text = self.pick(NAMES + CITIES)
            if modifier == ":text":
                return re.sub(r"\W+", " ", text).strip()[: self.random.randrange(1, 8)].strip()
            return typed(text if modifier == ":exact" else text[: self.random.randrange(1, 8)].strip())

        return modifier, make

    def date_value(self, type: str, code: str) -> tuple[str, Any]:
        if code == "_lastUpdated":  # which is a moment ago: not compared with `ap`, that goes by how long ago it is
            now = datetime.now(UTC)
            dates = ("2024", f"{now:%Y}", f"{now:%Y-%m}", f"{now:%Y-%m-%d}", f"{now + timedelta(days=2):%Y-%m-%d}")
            return "", lambda: self.pick(PREFIXES[:-1]) + self.pick(dates)
        return "", lambda: self.pick(PREFIXES) + self.pick(DATES)

    def number_value(self, type: str, code: str) -> tuple[str, Any]:
        return "", lambda: self.pick(PREFIXES) + self.pick(NUMBERS)

    def quantity_value(self, type: str, code: str) -> tuple[str, Any]:
        units = ("", "|http://unitsofmeasure.org|mg", "||mg", "||gram", "|urn:x|mg")
        return "", lambda: self.pick(PREFIXES) + self.pick(NUMBERS) + self.pick(units)

    def uri_value(self, type: str, code: str) -> tuple[str, Any]:
        if code in ("instantiates-uri", "_source") and self.maybe(0.5):
            some = (
                "http://acme.example/p",
                "http://acme.example/p/q",
                "http://acme.example",
                "http://acme.example/p/q/r",
            )
            return self.pick((":below", ":above")), lambda: self.pick(some)
        return "", lambda: self.pick(("http://acme.example/p", "http://acme.example/p|1.0", "urn:x:1", "urn:x"))

    def reference_value(self, type: str, code: str) -> tuple[str, Any]:
        targets = TARGETS.get((type, code), ("Patient", "Location" if code == "actor" else "Organization"))
        if self.maybe(0.1):
            return ":text", lambda: typed(self.pick(NAMES)[: self.random.randrange(1, 6)].strip())
        if self.maybe(0.15):
            return ":identifier", lambda: f"{self.pick(('urn:mrn', ''))}|{self.pick(('1', '2'))}"
        if self.maybe(0.2) and (type, code) in TARGETS:
            target = self.pick(targets)
            return f":{target}", lambda: f"{target.lower()}-{self.random.randrange(EACH)}"

        def make() -> str:
            target = self.pick(targets)
            id = f"{target.lower()}-{self.random.randrange(EACH)}"
            return self.pick(
                (f"{target}/{id}", id, f"{BASE}/{target}/{id}", f"http://far.example/fhir/{target}/{id}")
            )

        return "", make


def typed(text: str) -> str:
    """The text as a value of a parameter."""
    return re.sub(r"([\\,$|])", r"\\\1", text)


@pytest.fixture
def filled(database: Database) -> Repository:
    """Every type, written in an order of no meaning, some of them more than once, and some deleted again."""
    repository = Repository(VersionStore(database), BASE, lambda: datetime.now(UTC), check_references=False)
    maker = Maker(SEED)
    wanted = [(type, number) for type in PARAMETERS for number in range(EACH)]
    maker.random.shuffle(wanted)
    stale = [Draft("update", maker.resource(*key)) for key in wanted[::3]]
    repository.write(PRACTICE, stale)
    repository.write(PRACTICE, [Draft("update", maker.resource(*key)) for key in wanted])
    for type, number in wanted[::20]:
        repository.delete(PRACTICE, type, f"{type.lower()}-{number}")
    for resource in known():
        repository.update(PRACTICE, resource)
    add_vocabulary(repository)
    return repository


LISTS = {
    f"list-{number}": [f"{type}/{type.lower()}-{at}" for type in PARAMETERS for at in range(number, EACH, number + 2)]
    for number in (1, 2)
}


def known() -> Iterator[Resource]:
    """The lists, the value set and the code system that searches ask for."""
    for id, references in LISTS.items():
        entry = [{"item": {"reference": reference}} for reference in references]
        yield {"resourceType": "List", "id": id, "status": "current", "mode": "working", "entry": entry}
    for url, members in VALUE_SETS.items():
        include = [
            {"system": system, "concept": [{"code": code} for of, code in sorted(members) if of == system]}
            for system in sorted({system for system, _ in members})
        ]
        yield {"resourceType": "ValueSet", "id": "v", "url": url, "status": "active", "compose": {"include": include}}
    for url, codes in ABOVE.items():
        concept = [
            {"code": code} | ({"property": [{"code": "parent", "valueCode": one} for one in above]} if above else {})
            for code, above in codes.items()
        ]
        system = {
            "url": url,
            "status": "active",
            "content": "complete",
            "hierarchyMeaning": "is-a",
            "concept": concept,
        }
        yield {"resourceType": "CodeSystem", "id": "c", **system}


def stored(repository: Repository) -> list[Resource]:
    """What there is, newest created first, read without any search."""
    versions = [
        version
        for type in PARAMETERS
        for version in repository.store.newest_many([(type, f"{type.lower()}-{number}") for number in range(EACH)])
    ]
    return [version.resource() for version in sorted(versions, key=lambda version: -version.created)]


def all_pages(repository: Repository, access: Access, type: str, query: list[tuple[str, str]]) -> list[Resource]:
    found: list[Resource] = []
    parameters = query
    for _ in range(200):
        result = repository.search(access, type, parameters, strict=True)
        found += [version.resource() for version in result.matches]
        if result.next is None:
            return found
        parameters = parse_qsl(result.next, keep_blank_values=True)
    raise AssertionError(f"paging does not end: {type}?{urlencode(query)} {parameters[-1]}")


def pages_back(repository: Repository, access: Access, type: str, query: list[tuple[str, str]]) -> list[Resource]:
    """All matches, the last page first, but in the order of the search."""
    result = repository.search(access, type, query, strict=True)
    while result.next is not None:
        result = repository.search(access, type, result.next, strict=True)
    found = [version.resource() for version in result.matches]
    while result.previous is not None:
        result = repository.search(access, type, result.previous, strict=True)
        found[:0] = [version.resource() for version in result.matches]
    return found


def generated(salt: int, searches: int) -> Iterator[tuple[str, Maker, str, list[tuple[str, str]]]]:
    """(what to print when it fails, maker, type, criteria) of so many searches."""
    for number in range(searches):
        maker = Maker(SEED * 1000 + salt + number)
        type = maker.pick(list(PARAMETERS))
        criteria = [maker.criterion(type) for _ in range(maker.pick((1, 1, 2, 3)))]
        yield f"RADLOOP_TEST_SEED={SEED}, search {number}: {type}?{urlencode(criteria)}", maker, type, criteria


def ids(resources: list[Resource]) -> list[str]:
    return [resource["id"] for resource in resources]


@pytest.mark.parametrize("searches", [SEARCHES, pytest.param(MANY, marks=pytest.mark.slow)])
def test_searches_find_what_the_specification_says_newest_first(filled: Repository, searches: int) -> None:
    oracle = Oracle(stored(filled), BASE, LISTS)
    some = 0
    for what, maker, type, criteria in generated(0, searches):
        expected = ids(oracle.matches(type, criteria))
        page = [("_count", str(maker.pick((1, 3, 7, 50))))] if maker.maybe(0.5) else []
        assert ids(all_pages(filled, PRACTICE, type, criteria + page)) == expected, what
        total = filled.search(PRACTICE, type, [*criteria, ("_summary", "count")], strict=True).total
        assert total == len(expected), what
        some += 0 < len(expected) < EACH - 5
    assert some > searches / 4, "the generated searches hardly select anything"


SORTS = {
    "ServiceRequest": ("authored", "occurrence"),
    "Task": ("modified", "period"),
    "Appointment": ("date",),
    "ImagingStudy": ("started",),
    "Patient": ("birthdate",),
    "Observation": ("date",),
}


def sort_value(resource: Resource, code: str) -> Any:
    """What the resource is put in order by: when its date begins."""
    if code == "_id":
        return resource["id"]
    values = PARAMETERS[resource["resourceType"]][code][1](resource)
    return span(values[0])[0] if values else None


@pytest.mark.parametrize(("few", "walked"), [(2000, 20), (2000, 1), (2, 20)])
def test_sorts_by_id_time_and_dates_with_those_without_one_last(
    filled: Repository, monkeypatch: pytest.MonkeyPatch, few: int, walked: int
) -> None:
    """By each way: put in order in memory, or read in order, also where a look shows that this is short."""
    monkeypatch.setattr(driver, "FEW", few)
    monkeypatch.setattr(driver, "VERY_FEW", min(few, 3))
    monkeypatch.setattr(driver, "SORTED", min(few, 20) if walked > 1 else 0)
    monkeypatch.setattr(driver, "WALKED", walked)
    resources = stored(filled)
    oracle = Oracle(resources, BASE, LISTS)
    created = {(one["resourceType"], one["id"]): -place for place, one in enumerate(resources)}
    for what, maker, _, _ in generated(1_000_000, SEARCHES // 4):
        type = maker.pick(list(SORTS))
        code = maker.pick(("_id", "_lastUpdated", *SORTS[type]))
        criteria = [maker.criterion(type) for _ in range(maker.pick((0, 1)))]
        if code in SORTS[type] and maker.maybe(0.7):
            criteria += [(code, maker.date_value(type, code)[1]()) for _ in range(maker.pick((1, 2)))]
        downwards = maker.maybe(0.5)
        expected = oracle.matches(type, criteria)
        expected.sort(key=lambda one: created[one["resourceType"], one["id"]], reverse=downwards)
        valued = [one for one in expected if sort_value(one, code) is not None]
        valueless = [one for one in expected if sort_value(one, code) is None]
        valued.sort(key=lambda one: sort_value(one, code), reverse=downwards)
        valueless.sort(key=lambda one: created[one["resourceType"], one["id"]], reverse=downwards)
        query = [*criteria, ("_sort", ("-" if downwards else "") + code), ("_count", str(maker.pick((1, 2, 50))))]
        found = ids(all_pages(filled, PRACTICE, type, query))
        assert found == ids(valued + valueless), f"{what} -> {type}?{urlencode(query)}"
        if maker.maybe(0.3):
            assert ids(pages_back(filled, PRACTICE, type, query)) == found, f"back: {what} -> {urlencode(query)}"


@pytest.mark.parametrize("searches", [SEARCHES, pytest.param(MANY, marks=pytest.mark.slow)])
@pytest.mark.parametrize("many", [100_000, 1])
def test_sorts_by_several_parameters_of_any_kind(
    filled: Repository, monkeypatch: pytest.MonkeyPatch, many: int, searches: int
) -> None:
    """Of all matches, and where they are too many, of those up to where the first parameter's index says."""
    monkeypatch.setattr(planner, "MAX_SORTED", many)
    resources = stored(filled)
    oracle = Oracle(resources, BASE, LISTS)
    created = {(one["resourceType"], one["id"]): -place for place, one in enumerate(resources)}
    answered = 0
    for what, maker, type, criteria in generated(5_000_000, searches // 4):
        codes = sort_codes(type)
        rules = [(maker.pick(codes), maker.maybe(0.5)) for _ in range(maker.pick((1, 2, 2, 3)))]
        expected = oracle.matches(type, criteria[:1])
        expected.sort(key=lambda one: created[one["resourceType"], one["id"]], reverse=rules[-1][1])
        for code, downwards in reversed(rules):
            values = {one["id"]: any_sort_value(one, code, downwards) for one in expected}
            valued = [one for one in expected if values[one["id"]] is not None]
            valued.sort(key=lambda one: values[one["id"]], reverse=downwards)
            expected = valued + [one for one in expected if values[one["id"]] is None]
        sort = ",".join(("-" if downwards else "") + code for code, downwards in rules)
        query = [*criteria[:1], ("_sort", sort), ("_count", str(maker.pick((1, 2, 7, 50))))]
        try:
            found = ids(all_pages(filled, PRACTICE, type, query))
        except TooCostly:
            assert many == 1
            continue
        assert found == ids(expected), f"{what} -> {type}?{urlencode(query)}"
        answered += 1
        if maker.maybe(0.3):
            try:
                assert ids(pages_back(filled, PRACTICE, type, query)) == found, f"back: {what} -> {urlencode(query)}"
            except TooCostly:
                assert many == 1
    assert answered > searches / 40


def sort_codes(type: str) -> list[str]:
    """The parameters that matches can be put in order by."""
    kinds = ("string", "token", "date", "number", "quantity")
    return [code for code, (kind, _) in PARAMETERS[type].items() if kind in kinds]


@pytest.mark.parametrize("count", [1, 7])
def test_chains_through_many_are_tried_from_the_near_end_first(
    filled: Repository, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """And followed whole where that does not fill the page: the answer is the same."""
    monkeypatch.setattr(through, "MANY", 2)
    monkeypatch.setattr(through, "AT_ONCE", 5)
    oracle = Oracle(stored(filled), BASE, LISTS)
    some = 0
    for what, _, type, criteria in generated(11_000_000, SEARCHES):
        if any(is_chain(name) for name, _ in criteria):
            query = [*criteria, ("_count", str(count)), ("_total", "accurate")]
            expected = ids(oracle.matches(type, criteria))
            assert ids(all_pages(filled, PRACTICE, type, query)) == expected, what
            assert filled.search(PRACTICE, type, query, strict=True).total == len(expected), what
            some += bool(expected)
    assert some > SEARCHES / 20


def test_chains_through_many_are_followed_from_the_near_end(
    filled: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From what meets the other conditions, from a few at a time where these are many; a page may end before it is
    full. Refused is what leads through many more of its own, and a total."""
    monkeypatch.setattr(planner, "MAX_CHAINED", 5)
    monkeypatch.setattr(planner, "FEW_CHAINED", 3)
    monkeypatch.setattr(through, "AT_ONCE", 2)
    monkeypatch.setattr(through, "MANY", 5)
    monkeypatch.setattr(through, "MOST", 6)
    oracle = Oracle(stored(filled), BASE, LISTS)
    answered = refused = short = 0
    for what, maker, type, criteria in generated(2_000_000, SEARCHES * 2):
        if not any(is_chain(name) for name, _ in criteria):
            continue
        sort = [("_sort", maker.pick(("_id", "-_lastUpdated", "-_id")))] if maker.maybe(0.3) else []
        query = [*criteria, *sort, ("_count", str(maker.pick((1, 3, 50))))]
        try:
            found = ids(all_pages(filled, PRACTICE, type, query))
            back = ids(pages_back(filled, PRACTICE, type, query)) if maker.maybe(0.3) else found
        except TooCostly:
            refused += 1
            continue
        expected = ids(oracle.matches(type, criteria))
        if sort and sort[0][1].endswith("_id"):
            expected.sort(reverse=sort[0][1] == "-_id")
        assert found == back, f"back: {what}"
        assert sorted(found) == sorted(expected) if sort[:1] == [("_sort", "-_lastUpdated")] else found == expected, (
            what
        )
        answered += 1
        short += filled.search(PRACTICE, type, query, strict=True).total is None and len(found) < 3
    assert answered > 4 * refused > 0
    assert short > 0, "no page ended early"


def test_a_restricted_caller_finds_what_would_be_found_if_there_were_nothing_else(
    filled: Repository, database: Database
) -> None:
    """answer(scoped, all data) = answer(unscoped, data of the scope): matches, chains, totals and includes."""
    office = Access("client:x", ALL, frozenset({"@Organization/x", "@any"}), organization="Organization/x")
    resources = stored(filled)
    maker = Maker(SEED)
    # The directory of organizations and places is seen by everybody already.
    directory = ("Organization", "Location")
    visible = [one for one in resources if one["resourceType"] in directory or maker.maybe(0.6)]
    for one in visible:
        key = maker.pick(("@Organization/x", "@any"))
        database[f"versions_{one['resourceType']}"].update_one(
            {"id": one["id"], "keys": "*"}, {"$addToSet": {"keys": key, "scope": key}}
        )
    database["versions_List"].update_many({"keys": "*"}, {"$addToSet": {"keys": "@any", "scope": "@any"}})
    alone = Oracle(visible, BASE, LISTS)
    for what, maker, type, criteria in generated(3_000_000, SEARCHES):
        expected = alone.matches(type, criteria)
        assert ids(all_pages(filled, office, type, [*criteria, ("_count", "7")])) == ids(expected), what
        includes = maker.includes(type)
        result = filled.search(office, type, [*criteria, *includes, ("_total", "accurate")], strict=True)
        assert result.total == len(expected), what
        included = sorted(version.reference for version in result.included)
        assert included == alone.included(expected, includes), f"{what}&{urlencode(includes)}"


KINDS_OF_SCOPES = ("token", "reference", "uri")


def limited(maker: Maker, type: str) -> list[list[tuple[str, str]]]:
    """The parameters of some scopes on the type: of each scope all, of one of the scopes."""
    codes = [
        code
        for code, (kind, _) in PARAMETERS[type].items()
        if kind in KINDS_OF_SCOPES and rules(type)[code].parameter.type in KINDS_OF_SCOPES
    ]

    def parameter() -> tuple[str, str]:
        code = maker.pick(codes)
        kind = PARAMETERS[type][code][0]
        modifier, make = ":", str
        while modifier:
            modifier, make = ("", a_reference) if kind == "reference" else getattr(maker, f"{kind}_value")(type, code)
        return code, ",".join(make() for _ in range(maker.pick((1, 2, 4))))

    def a_reference() -> str:
        target = maker.pick(("Patient", "Organization", "ServiceRequest", "ImagingStudy"))
        return f"{target}/{target.lower()}-{maker.random.randrange(EACH)}"

    return [[parameter() for _ in range(maker.pick((1, 1, 2)))] for _ in range(maker.pick((2, 3, 5)))]


@pytest.mark.parametrize("callers", [8, pytest.param(100, marks=pytest.mark.slow)])
def test_scopes_with_parameters_find_what_would_be_found_if_there_were_nothing_else(
    filled: Repository, database: Database, callers: int
) -> None:
    """By search, with what it includes and through chains; and by every read. With and without an audience and the
    compartment of a patient, of which the caller sees what is in both."""
    resources = stored(filled)
    everything = Oracle(resources, BASE, LISTS)
    keys: dict[str, set[str]] = {}
    for one in resources:
        maker = Maker(SEED + hash_of(one))
        keys[reference(one)] = {key for key in ("@Organization/x", "@Patient/x") if maker.maybe(0.8)}
        database[f"versions_{one['resourceType']}"].update_one(
            {"id": one["id"], "keys": "*"},
            {"$addToSet": {name: {"$each": sorted(keys[reference(one)])} for name in ("keys", "scope")}},
        )
    some = 0
    for caller in range(callers):
        maker = Maker(SEED * 1000 + 6_000_000 + caller)
        chosen = {type: limited(maker, type) for type in PARAMETERS if maker.maybe(0.6)}
        scopes = [Scope("user", type, "rs") for type in (*PARAMETERS, "List") if type not in chosen]
        for type, alternatives in chosen.items():
            for parameters in alternatives:
                clauses = clauses_of(type, "&".join(urlencode([one]) for one in parameters))
                assert clauses is not None, (type, parameters)
                scopes.append(Scope("user", type, "rs", clauses))
        sights = frozenset({"@Organization/x"}), frozenset({"@Patient/x"})
        audience, compartment = maker.pick(((None, None), (sights[0], None), sights))
        access = Access("user:x", tuple(scopes), audience, compartment=compartment)
        visible = [
            one
            for one in resources
            if access.sees(keys[reference(one)])
            and (
                one["resourceType"] not in chosen
                or any(
                    all(everything.meets(one, *parameter) for parameter in parameters)
                    for parameters in chosen[one["resourceType"]]
                )
            )
        ]
        some += 0.05 < len(visible) / len(resources) < 0.95
        told = f"caller {caller} of seed {SEED}: {' '.join(map(str, access.scopes))}, {audience}, {compartment}"
        assert readable(filled, access, resources) == {reference(one) for one in visible}, told
        alone = Oracle(visible, BASE, LISTS if audience is None else {})
        for what, maker, type, criteria in generated(7_000_000 + 1000 * caller, 25):
            expected = alone.matches(type, criteria)
            assert ids(all_pages(filled, access, type, [*criteria, ("_count", "7")])) == ids(expected), (what, told)
            includes = maker.includes(type)
            result = filled.search(access, type, [*criteria, *includes, ("_total", "accurate")], strict=True)
            assert result.total == len(expected), (what, told)
            included = sorted(version.reference for version in result.included)
            assert included == alone.included(expected, includes), (what, told)
    assert some > callers / 2, "the generated scopes hardly narrow anything"


def hash_of(resource: Resource) -> int:
    return zlib.crc32(reference(resource).encode())


def readable(repository: Repository, access: Access, resources: list[Resource]) -> set[str]:
    """What can be read; each of it also by its version and with its history, the rest by none."""
    found = set()
    for one in resources:
        type, id = one["resourceType"], one["id"]
        roads: list[Callable[[], object]] = [
            partial(repository.read, access, type, id),
            partial(repository.vread, access, type, id, int(one["meta"]["versionId"])),
            partial(repository.history, access, type, id),
        ]
        answered = [not refuses(road) for road in roads]
        assert len(set(answered)) == 1, f"{type}/{id}: {answered}"
        found |= {f"{type}/{id}"} if answered[0] else set()
    return found


def refuses(road: Callable[[], object]) -> bool:
    try:
        road()
    except NotFound:
        return True
    return False


def test_includes_bring_what_the_matches_refer_to_and_what_refers_to_them(filled: Repository) -> None:
    oracle = Oracle(stored(filled), BASE, LISTS)
    some = 0
    for what, maker, type, criteria in generated(4_000_000, SEARCHES // 2):
        includes = maker.includes(type)
        result: SearchResult = filled.search(PRACTICE, type, [*criteria, *includes, ("_count", "5")], strict=True)
        expected = oracle.included([version.resource() for version in result.matches], includes)
        assert sorted(version.reference for version in result.included) == expected, f"{what}&{urlencode(includes)}"
        some += bool(expected)
    assert some > SEARCHES / 10, "hardly anything was included"


@pytest.mark.parametrize("searches", [SEARCHES // 5, pytest.param(MANY // 5, marks=pytest.mark.slow)])
def test_compartments_have_what_refers_to_their_patient(filled: Repository, searches: int) -> None:
    oracle = Oracle(stored(filled), BASE, LISTS)
    some = 0
    for what, maker, type, criteria in generated(8_000_000, searches):
        if type not in (*IN_COMPARTMENT, "Patient"):
            continue
        patient, criteria = f"patient-{maker.random.randrange(EACH)}", criteria[:1] if maker.maybe(0.7) else []
        expected = [one for one in oracle.matches(type, criteria) if oracle.in_compartment(one, patient)]
        query = [*criteria, ("_count", str(maker.pick((1, 3, 50))))]
        search = partial(filled.search, PRACTICE, type, compartment=("Patient", patient), strict=True)
        assert ids(paged(search, query)) == ids(expected), f"{what} -> {patient}"
        some += bool(expected)
    assert some > searches / 20, "the compartments are nearly empty"


@pytest.mark.parametrize("searches", [SEARCHES // 5, pytest.param(MANY // 5, marks=pytest.mark.slow)])
def test_searches_over_several_types_have_the_matches_of_each(filled: Repository, searches: int) -> None:
    oracle = Oracle(stored(filled), BASE, LISTS)
    some = 0
    for what, maker, _, _ in generated(9_000_000, searches):
        types = maker.random.sample(list(PARAMETERS), maker.pick((1, 2, 4, len(PARAMETERS))))
        criteria = [maker.common(types[0]) for _ in range(maker.pick((0, 1, 1, 2)))]
        patient = f"patient-{maker.random.randrange(EACH)}" if maker.maybe(0.3) else None
        types = [one for one in types if patient is None or one in (*IN_COMPARTMENT, "Patient")]
        if not types:
            continue
        expected = [
            one
            for one in oracle.resources
            if one["resourceType"] in types
            and all(oracle.meets(one, *criterion) for criterion in criteria)
            and (patient is None or oracle.in_compartment(one, patient))
        ]
        query = [*criteria, ("_type", ",".join(types)), ("_count", str(maker.pick((1, 7, 50))))]
        compartment = ("Patient", patient) if patient else None
        search = partial(filled.search_across, PRACTICE, compartment=compartment, strict=True)
        assert list(map(reference, paged(search, query))) == list(map(reference, expected)), (what, query, patient)
        some += bool(expected)
    assert some > searches / 4


@pytest.mark.parametrize("searches", [SEARCHES // 5, pytest.param(MANY // 5, marks=pytest.mark.slow)])
def test_contained_resources_are_compared_as_others_are(database: Database, searches: int) -> None:
    """All conditions have to be met by one of them."""
    repository = Repository(VersionStore(database), BASE, lambda: datetime.now(UTC), check_references=False)
    add_vocabulary(repository)
    for resource in known():
        repository.update(PRACTICE, resource)
    maker = Maker(SEED)
    containers: list[Resource] = []
    for number in range(2 * EACH):
        inner = [(maker.pick(list(PARAMETERS)), at) for at in range(maker.pick((0, 1, 2, 4)))]
        contained = [without(maker.resource(*one), "meta", "text") for one in inner]
        used = [{"url": "urn:x", "valueReference": {"reference": f"#{one['id']}"}} for one in contained]
        basic: Resource = {"resourceType": "Basic", "id": f"basic-{number}", "code": {"text": "x"}}
        containers.insert(0, basic | ({"contained": contained, "extension": used} if contained else {}))
    repository.write(PRACTICE, [Draft("update", one) for one in reversed(containers)])
    oracle = Oracle([], BASE, {})
    some = 0
    for what, maker, type, criteria in generated(10_000_000, searches):
        criteria = [one for one in criteria if not is_outside(*one)]
        inside = {
            one["id"]: [
                inner["id"]
                for inner in one.get("contained", ())
                if inner["resourceType"] == type and all(oracle.meets(inner, *criterion) for criterion in criteria)
            ]
            for one in containers
        }
        query = [*criteria, ("_contained", "true"), ("_count", str(maker.pick((1, 3, 50))))]
        search = partial(repository.search, PRACTICE, type, strict=True)
        assert ids(paged(search, query)) == [id for id in inside if inside[id]], what
        found = sorted(result_ids(search, [*query, ("_containedType", "contained")]))
        assert found == sorted(f"{id}#{one}" for id in inside for one in inside[id]), what
        some += any(inside.values())
    assert some > searches / 10


def is_outside(name: str, value: str) -> bool:
    """Whether the criterion is about other resources, or about what contained ones do not have."""
    elsewhere = ("_has", "_list", "_tag", "_security", "_profile", "_source", "_lastUpdated", "_text", "_content")
    return (
        is_chain(name)
        or name.startswith(elsewhere)
        or (name == "_filter" and bool(re.search(r"[a-z]\.|\[|_has", value)))
    )


def without(resource: Resource, *elements: str) -> Resource:
    return {name: value for name, value in resource.items() if name not in elements}


def paged(search: Callable[..., SearchResult], query: list[tuple[str, str]]) -> list[Resource]:
    return [version.resource() for page in pages(search, query) for version in page.matches]


def result_ids(search: Callable[..., SearchResult], query: list[tuple[str, str]]) -> list[str]:
    return [version.id for page in pages(search, query) for version in page.matches]


def pages(search: Callable[..., SearchResult], query: list[tuple[str, str]]) -> Iterator[SearchResult]:
    """All of them; and the same backwards."""
    found = [search(query=query)]
    while (following := found[-1].next) is not None:
        found.append(search(query=following))
    back = [found[-1]]
    while (preceding := back[-1].previous) is not None:
        back.append(search(query=preceding))
    assert [ids_of(page) for page in reversed(back)] == [ids_of(page) for page in found], query
    return iter(found)


def ids_of(page: SearchResult) -> list[str]:
    return [version.reference for version in page.matches]
