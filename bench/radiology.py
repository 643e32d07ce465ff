"""A radiology practice of any size: resources as they are stored, made by the indexer and put in by bulk writes.

The same numbers give the same resources. Of `size` resources 10 % are patients, 30 % referrals (ServiceRequest), 30 %
their Tasks, 15 % ImagingStudies, 15 % DiagnosticReports; 60 organizations refer, each fewer than the one before.
"""

import random
from collections.abc import Collection, Iterator
from datetime import UTC, datetime, timedelta

from pymongo.database import Database
from pymongo.write_concern import WriteConcern

from fhir_server import fhir_json
from fhir_server.index import Indexer
from fhir_server.store import PREFIX, Change, VersionStore, document_of
from fhir_server.version import Version

BASE = "http://127.0.0.1:8080/fhir"
NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
ORGANIZATIONS = 60
CODES = 200
STATUSES = {"completed": 0.65, "active": 0.33, "draft": 0.01, "on-hold": 0.009, "revoked": 0.001}
PRIORITIES = {"routine": 0.9, "urgent": 0.08, "asap": 0.015, "stat": 0.005}
TASK_STATUSES = {"completed": 0.8, "accepted": 0.1, "in-progress": 0.05, "requested": 0.04, "on-hold": 0.01}
SHARES = {"Patient": 0.1, "ServiceRequest": 0.3, "Task": 0.3, "ImagingStudy": 0.15, "DiagnosticReport": 0.15}
SORTED = {
    "DiagnosticReport": ("date", "issued"),
    "ImagingStudy": ("started",),
    "ServiceRequest": ("authored",),
    "Task": ("authored-on", "modified"),
}
_BATCH = 1000
_CODE_SYSTEM = "http://loinc.org"


def load(database: Database, size: int) -> VersionStore:
    """Put the practice into an empty database."""
    store = VersionStore(database, SORTED)
    chosen = random.Random(1)
    counts = _counts(size)
    for resource_type, count in counts.items():
        store._prepare(resource_type)
        collection = database[PREFIX + resource_type].with_options(write_concern=WriteConcern(1))
        batch: list[dict] = []
        for version in _versions(store, resource_type, count, counts, chosen):
            batch.append(version)
            if len(batch) == _BATCH:
                collection.insert_many(batch, ordered=False)
                batch = []
        if batch:
            collection.insert_many(batch, ordered=False)
    return store


def resources(size: int, types: Collection[str]) -> dict[str, list[dict]]:
    """As a client would send them: those of these types out of `size` in all."""
    chosen = random.Random(1)
    counts = _counts(size)
    made: dict[str, list[dict]] = {}
    for resource_type in types:
        made[resource_type] = [
            _MAKERS[resource_type](number, counts, chosen) for number in range(counts[resource_type])
        ]
        for resource in made[resource_type]:
            resource.pop("_scope", None)
            resource.pop("meta", None)
    return made


def _counts(size: int) -> dict[str, int]:
    return {"Organization": ORGANIZATIONS} | {type: int(size * share) for type, share in SHARES.items()}


def _versions(
    store: VersionStore, resource_type: str, count: int, counts: dict[str, int], chosen: random.Random
) -> Iterator[dict]:
    indexer = Indexer(BASE)
    for number in range(count):
        resource = _MAKERS[resource_type](number, counts, chosen)
        organization = resource.pop("_scope", "")
        scope = [f"@Organization/{organization}"] if organization else ["@any"]
        entry = indexer.index(resource)
        at = store.numbers.next()
        version = Version(
            resource_type,
            resource["id"],
            1,
            at,
            at,
            NOW,
            "system:bench",
            "create",
            fhir_json.dumps(resource),
            tuple(scope),
            ("*", *scope, *entry.keys),
        )
        yield document_of(Change(version, entry.ranges, entry.sorts, layout=entry.layout))


def organization_of(chosen: random.Random) -> str:
    """The first ones refer a fifth each of what is left, so that the last ones have hardly any."""
    for number in range(ORGANIZATIONS - 1):
        if chosen.random() < 0.15:
            return f"o{number}"
    return f"o{ORGANIZATIONS - 1}"


def _organization(number: int, _counts: dict[str, int], _chosen: random.Random) -> dict:
    return {"resourceType": "Organization", "id": f"o{number}", "active": True, "name": f"Practice {number}"}


def _patient(number: int, _counts: dict[str, int], chosen: random.Random) -> dict:
    born = datetime(1930, 1, 1, tzinfo=UTC) + timedelta(days=chosen.randrange(33_000))
    return _resource("Patient", number) | {
        "identifier": [{"system": "urn:mrn", "value": f"{number:08}"}],
        "name": [{"family": f"Family{chosen.randrange(5000):04}", "given": [f"Given{chosen.randrange(300):03}"]}],
        "gender": chosen.choice(("male", "female")),
        "birthDate": born.date().isoformat(),
        "telecom": [{"system": "phone", "value": f"+1-555-{number:07}"}],
        "address": [
            {"line": [f"{number} Pier Street"], "city": f"City{chosen.randrange(300)}", "postalCode": "01234"}
        ],
        "_scope": organization_of(chosen),
    }


def _service_request(number: int, counts: dict[str, int], chosen: random.Random) -> dict:
    organization = organization_of(chosen)
    return _resource("ServiceRequest", number) | {
        "identifier": [{"system": "urn:placer", "value": f"ORD{number:08}"}],
        "status": _picked(STATUSES, chosen),
        "intent": "order",
        "priority": _picked(PRIORITIES, chosen),
        "category": [_concept("imaging")],
        "code": _concept(f"c{_skewed(CODES, chosen)}"),
        "subject": _reference("Patient", counts, chosen),
        "authoredOn": _moment(chosen),
        "requester": {"reference": f"Organization/{organization}"},
        "reasonCode": [_concept(f"r{_skewed(CODES, chosen)}")],
        "_scope": organization,
    }


def _task(number: int, counts: dict[str, int], chosen: random.Random) -> dict:
    organization = organization_of(chosen)
    return _resource("Task", number) | {
        "identifier": [{"system": "urn:referral", "value": f"REF{number:08}"}],
        "status": _picked(TASK_STATUSES, chosen),
        "intent": "order",
        "priority": _picked(PRIORITIES, chosen),
        "code": _concept("fulfill"),
        "focus": {"reference": f"ServiceRequest/s{min(number, counts['ServiceRequest'] - 1)}"},
        "for": _reference("Patient", counts, chosen),
        "authoredOn": _moment(chosen),
        "lastModified": _moment(chosen),
        "requester": {"reference": f"Organization/{organization}"},
        "owner": {"reference": "Organization/o0"},
        "_scope": organization,
    }


def _imaging_study(number: int, counts: dict[str, int], chosen: random.Random) -> dict:
    series = [
        {"uid": f"2.25.{number}.{at}", "modality": {"code": chosen.choice(("CT", "MR", "US", "DX"))}, "number": at}
        for at in range(2)
    ]
    return _resource("ImagingStudy", number) | {
        "identifier": [{"system": "urn:dicom:uid", "value": f"urn:oid:2.25.{number}"}],
        "status": "available",
        "subject": _reference("Patient", counts, chosen),
        "basedOn": [_reference("ServiceRequest", counts, chosen)],
        "started": _moment(chosen),
        "series": series,
        "_scope": organization_of(chosen),
    }


def _diagnostic_report(number: int, counts: dict[str, int], chosen: random.Random) -> dict:
    return _resource("DiagnosticReport", number) | {
        "status": "final",
        "category": [_concept("RAD")],
        "code": _concept(f"c{_skewed(CODES, chosen)}"),
        "subject": _reference("Patient", counts, chosen),
        "basedOn": [_reference("ServiceRequest", counts, chosen)],
        "effectiveDateTime": _moment(chosen),
        "issued": _moment(chosen),
        "conclusion": "No evidence of disease.",
        "_scope": organization_of(chosen),
    }


_MAKERS = {
    "Organization": _organization,
    "Patient": _patient,
    "ServiceRequest": _service_request,
    "Task": _task,
    "ImagingStudy": _imaging_study,
    "DiagnosticReport": _diagnostic_report,
}


def _resource(resource_type: str, number: int) -> dict:
    meta = {"versionId": "1", "lastUpdated": NOW.isoformat(timespec="milliseconds")}
    return {"resourceType": resource_type, "id": f"{resource_type[0].lower()}{number}", "meta": meta}


def _reference(resource_type: str, counts: dict[str, int], chosen: random.Random) -> dict:
    return {"reference": f"{resource_type}/{resource_type[0].lower()}{chosen.randrange(counts[resource_type])}"}


def _concept(code: str) -> dict:
    return {"coding": [{"system": _CODE_SYSTEM, "code": code, "display": f"Procedure {code}"}]}


def _moment(chosen: random.Random) -> str:
    return (NOW - timedelta(seconds=chosen.randrange(3 * 365 * 86_400))).isoformat(timespec="seconds")


def _skewed(count: int, chosen: random.Random) -> int:
    return min(int(chosen.expovariate(12 / count)), count - 1)


def _picked(shares: dict[str, float], chosen: random.Random) -> str:
    return chosen.choices(list(shares), list(shares.values()))[0]
