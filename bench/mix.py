"""The mix of a practice's requests, beside what MongoDB and Flask alone do for the same: `python -m bench.mix`.

Half of it searches of six kinds, 30 % reads, 10 % creates, 10 % updates. What it is measured against asks MongoDB by
hand-written queries over collections with just the fields and indexes that these searches need, and validates,
indexes, versions and authorizes nothing: once from threads of this process, once behind Flask and gunicorn with as
many workers and threads as the web process has.
"""

import argparse
import json
import os
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any
from urllib.parse import quote

import orjson
import pymongo
from flask import Flask, Response, request

from bench import bare, radiology
from bench.__main__ import show
from bench.demo import app_headers
from bench.load import Connection, Figures, run
from radloop import mongod
from radloop.commands.demo import server_of_its_own
from radloop.settings import Settings

TYPES = ("Organization", "Patient", "ServiceRequest", "ImagingStudy")
INDEXES = {
    "Patient": [("family", 1), ("birth", 1)],
    "ServiceRequest": [("patient", 1), ("status", 1)],
    "ImagingStudy": [("patient", 1), ("modality", 1)],
}
MORE_INDEXES = {
    "ServiceRequest": [[("requester", 1), ("authored", -1)]],
    "ImagingStudy": [[("uid", 1)], [("started", 1)]],
}
PAGE = 50
_CHUNK = 200


@dataclass(frozen=True, slots=True)
class Order:
    """One request: as FHIR has it, and as a query by hand (`find`, `sort` and `limit` of one collection)."""

    method: str
    resource_type: str
    path: str
    body: bytes | None = None
    find: dict[str, Any] | None = None
    sort: tuple[str, int] | None = None
    limit: int = PAGE


class ByHand:
    """The same answers by pymongo alone."""

    def __init__(self, database: Any) -> None:
        journaled = pymongo.WriteConcern(w="majority", j=True)
        self._collections = {type: database[f"bench_{type}"].with_options(write_concern=journaled) for type in TYPES}

    def fill(self, resource_type: str, resources: Iterable[dict]) -> None:
        collection = self._collections[resource_type]
        if indexes := INDEXES.get(resource_type):
            for keys in [indexes, *MORE_INDEXES.get(resource_type, [])]:
                collection.create_index(keys)
        collection.insert_many([_document(resource) for resource in resources])

    def answer(self, order: dict[str, Any]) -> bytes:
        """order: of `_plain`; the body of a resource, or of a Bundle."""
        collection = self._collections[order["type"]]
        if order["body"] is not None:
            document = _document(orjson.loads(order["body"]))
            if order["id"] is None:
                collection.insert_one(document)
            else:
                collection.replace_one({"_id": order["id"]}, document)
            return bytes(document["body"])
        if order["find"] is None:
            return bytes(collection.find_one({"_id": order["id"]})["body"])
        cursor = collection.find(order["find"], {"body": 1})
        if order["sort"]:
            cursor = cursor.sort(*order["sort"])
        entries = (b'{"resource":' + found["body"] + b"}" for found in cursor.limit(order["limit"]))
        return b'{"resourceType":"Bundle","type":"searchset","entry":[' + b",".join(entries) + b"]}"


def app() -> Flask:
    """What `ByHand` answers, over HTTP; the query comes as JSON, so that nothing is spent on reading it."""
    served = Flask("by-hand")
    database: Any = pymongo.MongoClient(os.environ[bare.URI])[os.environ[bare.DATABASE]]
    by_hand = ByHand(database)

    @served.post("/")
    def answer() -> Response:
        return Response(by_hand.answer(orjson.loads(request.get_data())), mimetype="application/fhir+json")

    return served


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--seconds", type=float, default=5.0, help="for each figure")
    arguments.add_argument("--clients", type=int, nargs="*", default=[8, 32])
    arguments.add_argument("--size", type=int, default=10_000, help="resources in the store")
    options = arguments.parse_args()
    with server_of_its_own() as settings:
        measure(settings, options.seconds, options.clients, options.size)


def measure(settings: Settings, seconds: float, clients: list[int], size: int) -> None:
    """Print the rates of the mix and of what it is made of."""
    headers = app_headers(settings, "user/*.cruds")
    uri = mongod.uri(mongod.last_port(settings.data_path / "mongod") or 0)
    by_hand = ByHand(pymongo.MongoClient(uri)[settings.mongodb_database])
    practice = _load(settings, headers, by_hand, size)

    with bare.served(settings, uri, "bench.mix:app()") as port:
        kinds: dict[str, Callable[[random.Random], Order]] = {
            "mix": partial(_mixed, practice),
            **{name: partial(make, practice) for name, make in SEARCHES.items()},
        }
        for count in clients:
            print(f"\n{count} clients, {seconds:g} s a figure, {size:,} resources; ms")
            print(f"{'':<34}{'per s':>8}{'p50':>8}{'p95':>8}{'p99':>8}  ratio")
            for name, make in kinds.items():
                if name != "mix" and count != clients[0]:
                    continue
                alone = _run(make, lambda: None, lambda _, order: by_hand.answer(_plain(order)), seconds, count)
                show(f"pymongo alone: {name}", alone)
                plain = partial(Connection, settings.host, port)
                flask = _run(make, plain, lambda to, order: to.request("POST", "/", _sent(order)), seconds, count)
                show(f"Flask and pymongo: {name}", flask, alone, "of pymongo alone")
                ours = partial(Connection, settings.host, settings.port)
                fhir = _run(
                    make,
                    ours,
                    lambda to, order: to.request(order.method, f"/fhir/{order.path}", order.body, headers),
                    seconds,
                    count,
                )
                show(
                    f"FHIR: {name}",
                    fhir,
                    flask,
                    f"of Flask and pymongo, {fhir.rate / alone.rate:.2f} of pymongo alone",
                )


def _run(
    make: Callable[[random.Random], Order],
    connect: Callable[[], Any],
    send: Callable[[Any, Order], object],
    seconds: float,
    clients: int,
) -> Figures:
    def work(connection: Any, number: int) -> None:
        send(connection, make(random.Random(number)))

    return run(work, connect, seconds, clients)


def _patient(practice: dict[str, list[dict]], chosen: random.Random) -> dict:
    return chosen.choice(practice["Patient"])


def _by_patient_status(practice: dict[str, list[dict]], chosen: random.Random) -> Order:
    patient = f"Patient/{_patient(practice, chosen)['id']}"
    path = f"ServiceRequest?patient={patient}&status=active&_count={PAGE}"
    return Order("GET", "ServiceRequest", path, find={"patient": patient, "status": "active"})


def _by_requester_sorted(practice: dict[str, list[dict]], chosen: random.Random) -> Order:
    requester = chosen.choice(practice["ServiceRequest"])["requester"]["reference"]
    since = (radiology.NOW - timedelta(days=540)).date().isoformat()
    path = f"ServiceRequest?requester={requester}&authored=ge{since}&_sort=-authored&_count=20"
    find = {"requester": requester, "authored": {"$gte": since}}
    return Order("GET", "ServiceRequest", path, find=find, sort=("authored", -1), limit=20)


def _by_day(_practice: dict[str, list[dict]], chosen: random.Random) -> Order:
    day = (radiology.NOW - timedelta(days=chosen.randrange(3 * 365))).date()
    begin, end = day.isoformat(), (day + timedelta(days=1)).isoformat()
    path = f"ImagingStudy?started=ge{begin}&started=lt{end}&status=available&_count={PAGE}"
    return Order("GET", "ImagingStudy", path, find={"started": {"$gte": begin, "$lt": end}, "status": "available"})


def _by_modality(practice: dict[str, list[dict]], chosen: random.Random) -> Order:
    patient = chosen.choice(practice["ImagingStudy"])["subject"]["reference"]
    path = f"ImagingStudy?patient={patient}&modality=CT&_count={PAGE}"
    return Order("GET", "ImagingStudy", path, find={"patient": patient, "modality": "CT"})


def _by_uid(practice: dict[str, list[dict]], chosen: random.Random) -> Order:
    uid = chosen.choice(practice["ImagingStudy"])["identifier"][0]["value"]
    path = f"ImagingStudy?identifier={quote(f'urn:dicom:uid|{uid}')}"
    return Order("GET", "ImagingStudy", path, find={"uid": uid})


def _by_family_birth_date(practice: dict[str, list[dict]], chosen: random.Random) -> Order:
    patient = _patient(practice, chosen)
    family, birth = patient["name"][0]["family"], patient["birthDate"]
    path = f"Patient?family={family}&birthdate={birth}"
    return Order("GET", "Patient", path, find={"family": {"$gte": family, "$lt": family + "\uffff"}, "birth": birth})


SEARCHES = {
    "patient, status": _by_patient_status,
    "requester, sorted": _by_requester_sorted,
    "studies of a day": _by_day,
    "patient, modality": _by_modality,
    "study UID": _by_uid,
    "family, birth date": _by_family_birth_date,
}


def _mixed(practice: dict[str, list[dict]], chosen: random.Random) -> Order:
    part = chosen.random()
    if part < 0.5:
        return chosen.choice(list(SEARCHES.values()))(practice, chosen)
    resource_type = chosen.choice(TYPES[1:])
    resource = chosen.choice(practice[resource_type])
    if part < 0.8:
        return Order("GET", resource_type, f"{resource_type}/{resource['id']}")
    order = chosen.choice(practice["ServiceRequest"])
    if part < 0.9:
        body = orjson.dumps({name: value for name, value in order.items() if name != "id"} | {"status": "draft"})
        return Order("POST", "ServiceRequest", "ServiceRequest", body)
    changed = order | {"note": [{"text": f"Changed {chosen.random()}"}]}
    return Order("PUT", "ServiceRequest", f"ServiceRequest/{order['id']}", orjson.dumps(changed))


def _plain(order: Order) -> dict[str, Any]:
    id = order.path.partition("/")[2] if order.find is None and "/" in order.path else None
    return {
        "type": order.resource_type,
        "id": id,
        "body": order.body.decode() if order.body else None,
        "find": order.find,
        "sort": order.sort,
        "limit": order.limit,
    }


def _sent(order: Order) -> bytes:
    return orjson.dumps(_plain(order))


def _document(resource: dict) -> dict[str, Any]:
    """As by hand: the body, and the fields that are asked for."""
    document: dict[str, Any] = {"body": orjson.dumps(resource), "status": resource.get("status")}
    if id := resource.get("id"):
        document["_id"] = id
    match resource["resourceType"]:
        case "Patient":
            document |= {"family": resource["name"][0]["family"], "birth": resource["birthDate"]}
        case "ServiceRequest":
            document |= {"patient": resource["subject"]["reference"], "authored": resource["authoredOn"]}
            document["requester"] = resource["requester"]["reference"]
        case "ImagingStudy":
            modalities = [series["modality"]["code"] for series in resource["series"]]
            document |= {"patient": resource["subject"]["reference"], "modality": modalities}
            document |= {"uid": resource["identifier"][0]["value"], "started": resource["started"]}
    return document


def _load(settings: Settings, headers: dict[str, str], by_hand: ByHand, size: int) -> dict[str, list[dict]]:
    """The same resources by FHIR transactions and by hand; all of them by type."""
    practice = radiology.resources(size, TYPES)
    connection = Connection(settings.host, settings.port, timeout_s=120)
    for resource_type, resources in practice.items():
        for begin in range(0, len(resources), _CHUNK):
            entries = [
                {"resource": one, "request": {"method": "PUT", "url": f"{resource_type}/{one['id']}"}}
                for one in resources[begin : begin + _CHUNK]
            ]
            bundle = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
            connection.request("POST", "/fhir", json.dumps(bundle).encode(), headers)
        by_hand.fill(resource_type, resources)
    return practice


if __name__ == "__main__":
    main()
