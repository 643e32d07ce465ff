"""Loading: our own definitions at each start, the demonstration practice and its people."""

import json
import os
import secrets
from datetime import datetime
from pathlib import Path
from typing import Any

from joserfc.jwk import ECKey
from pymongo.database import Database

import conformance
from conformance.terminology import operation_definitions
from fhir_server.access import Access
from fhir_server.operations import standard
from fhir_server.prepare import Draft
from fhir_server.repository import Repository
from radloop import practice
from radloop.progress import Progress
from radloop.settings import Settings
from smart_auth.clients import add_client
from smart_auth.service import AuthService
from smart_auth.store import AlreadyThere
from smart_auth.users import add_user, set_password
from subscriptions.capability import topic_resources
from subscriptions.profile import FILTER_CRITERIA, PAYLOAD_CONTENT, SUBSCRIPTION_PROFILE

CHUNK = 250  # resources in one commit
PUBLISHER = Access.system("conformance")
LOADER = Access.system("load")
CREDENTIALS = "demo-credentials.json"
APP_REDIRECT = "http://127.0.0.1:9/callback"  # nobody listens there: the demonstration reads the redirect itself

_CLIENTS: dict[str, dict[str, Any]] = {
    "demo-app": {
        "type": "public",
        "name": "Demo app",
        "scope": "user/*.cruds openid fhirUser",
        "redirect_uris": [APP_REDIRECT],
    },
    "demo-ehr": {"type": "backend", "scope": "system/*.cruds", "organization": "Organization/lakeside"},
    "demo-modality": {"type": "backend", "scope": "system/ImagingStudy.crus", "practice": True},
}


def load_definitions(repository: Repository) -> int:
    """Store our own definitions, and R4's of the operations offered, where they are new or have changed; the number
    of new versions."""
    offered = {operation.definition for operation in standard.operations(repository)}
    resources = [*conformance.conformance_resources(), *topic_resources(conformance.topics())]
    resources += [one for one in operation_definitions() if one["url"] in offered]
    return sum(repository.update(PUBLISHER, resource).changed for resource in resources)


def load_practice(repository: Repository, settings: Settings, now: datetime, progress: Progress) -> None:
    """Store what the demonstration practice lacks; slots are added up to a fortnight from today."""
    zone = settings.time_zone
    resources = list(practice.resources(settings.practice_organization, now.astimezone(zone).date(), zone))
    known = repository.store.newest_many([(r["resourceType"], r["id"]) for r in resources])
    there = {(version.resource_type, version.id) for version in known}
    new = [resource for resource in resources if (resource["resourceType"], resource["id"]) not in there]
    for begin in range(0, len(new), CHUNK):
        repository.write(LOADER, [Draft("update", resource) for resource in new[begin : begin + CHUNK]])
        progress(min(begin + CHUNK, len(new)), len(new))


def load_mail_subscriptions(repository: Repository) -> None:
    """Offices without an EHR hear by mail: their preference is a Subscription like any other."""
    for office in practice.OFFICES:
        id = f"mail-{office.key}"
        subscription = {
            "resourceType": "Subscription",
            "id": id,
            "meta": {"profile": [SUBSCRIPTION_PROFILE]},
            "status": "requested",
            "reason": f"News on referrals of {office.name}",
            "criteria": f"{conformance.CANONICAL}/SubscriptionTopic/referral-status",
            "_criteria": {
                "extension": [
                    {"url": FILTER_CRITERIA, "valueString": f"Task?requester=Organization/{office.key}&code=fulfill"}
                ]
            },
            "channel": {
                "type": "email",
                "endpoint": f"mailto:{office.email}",
                "payload": "text/plain",
                "_payload": {"extension": [{"url": PAYLOAD_CONTENT, "valueCode": "id-only"}]},
            },
        }
        if repository.store.newest("Subscription", id) is None:
            repository.update(LOADER, subscription)


def load_people(auth: AuthService, data_path: Path) -> dict:
    """The demonstration's users and clients, with the secrets in the data folder; makes them at the first start.

    Safe to repeat after a crash at any point: secrets are written down first, and whoever is there already, under
    a secret that nobody knows any more, gets the one that is written down.
    """
    file = data_path / CREDENTIALS
    first = not file.exists()
    if first:
        _write_private(file, json.dumps(_new_credentials(), indent=2))
    credentials = json.loads(file.read_text())
    for name, person in _people().items():
        password = credentials["users"][name]
        try:
            add_user(auth.store, auth.passwords, name, password, **person)
        except AlreadyThere:
            if first:
                set_password(auth.store, auth.passwords, name, password)
    for client_id, rights in _CLIENTS.items():
        registered = credentials["clients"][client_id]
        jwks = {"keys": [_public(registered["key"])]} if "key" in registered else None
        try:
            add_client(auth.store, client_id, jwks=jwks, **rights)
        except AlreadyThere:
            if first and jwks is not None:
                auth.store.set_client(client_id, jwks=jwks)
    return credentials


def demo_is_loaded(database: Database) -> bool:
    return database["demo"].find_one({"_id": "practice"}) is not None


def mark_demo_loaded(database: Database, now: datetime) -> None:
    database["demo"].update_one({"_id": "practice"}, {"$setOnInsert": {"at": now}}, upsert=True)


def _people() -> dict[str, dict[str, Any]]:
    """User name -> arguments of add_user."""
    staff: dict[str, dict[str, Any]] = {
        "frontdesk": {"roles": ["front-desk"]},
        "radiologist": {"roles": ["radiologist"]},
        "manager": {"roles": ["manager"]},
        "admin": {"roles": ["admin"]},
    }
    return staff | {
        office.key: {
            "roles": ["referrer"],
            "organization": f"Organization/{office.key}",
            "fhir_user": f"PractitionerRole/{office.key}-role",
            "email": office.email,
        }
        for office in practice.OFFICES
    }


def _new_credentials() -> dict:
    clients: dict[str, dict] = {}
    for client_id, rights in _CLIENTS.items():
        clients[client_id] = {"client_id": client_id, "scope": rights["scope"]}
        if rights["type"] == "backend":
            key = ECKey.generate_key("P-384", {"use": "sig", "alg": "ES384"}, private=True, auto_kid=True)
            clients[client_id]["key"] = dict(key.as_dict(private=True))
        else:
            clients[client_id]["redirect_uri"] = APP_REDIRECT
    return {"users": {name: secrets.token_urlsafe(9) for name in _people()}, "clients": clients}


def _public(key: dict) -> dict:
    return dict(ECKey.import_key(key).as_dict(private=False))


def _write_private(file: Path, text: str) -> None:
    """Readable by its owner alone from the first byte on."""
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as out:
        out.write(text)
