"""The brand bundle: who runs this server, for apps that show users where they may log in.

https://hl7.org/fhir/smart-app-launch/brands.html
"""

from dataclasses import dataclass
from hashlib import sha256

from fhir_server import fhir_json
from fhir_server.access import Access
from fhir_server.errors import FhirError
from fhir_server.prepare import instant
from fhir_server.repository import Repository
from smart_auth.service import AuthService

_BRAND = "http://hl7.org/fhir/StructureDefinition/organization-brand"
_PORTAL = "http://hl7.org/fhir/StructureDefinition/organization-portal"
_VERSION = "http://hl7.org/fhir/StructureDefinition/endpoint-fhir-version"
_CATEGORY = {"system": "http://terminology.hl7.org/CodeSystem/organization-type", "code": "prov"}
_READER = Access.system("brand")


@dataclass(frozen=True, slots=True)
class Brand:
    """The bundle as JSON, with its weak ETag."""

    body: bytes
    etag: str


def identifier(service: AuthService) -> str:
    """What names the practice's brand among others (`user_access_brand_identifier`)."""
    return f"urn:ietf:rfc:3986|{service.origin}"


def brand_bundle(service: AuthService, repository: Repository, practice: str) -> Brand:
    """A collection of the practice's Organization and our Endpoint. practice: its reference, `Organization/<id>`.

    Of the Organization only what the public may know: name, address, web site. Its time is that of its last change.
    """
    resource_type, _, id = practice.partition("/")
    try:
        found = repository.read(_READER, resource_type, id)
        known, changed = found.resource(), instant(found.last_updated)
    except FhirError:
        known, changed = {}, "2020-01-01T00:00:00.000+00:00"
    name = known.get("name") or "Radloop"
    website = [t for t in known.get("telecom", []) if t.get("system") == "url"]
    telecom = website or [{"system": "url", "value": service.origin}]
    organization = {
        "resourceType": "Organization",
        "id": "practice",
        "identifier": [{"system": "urn:ietf:rfc:3986", "value": service.origin}],
        "active": True,
        "type": [{"coding": [_CATEGORY], "text": "Radiology practice"}],
        "name": name,
        "telecom": telecom,
        "extension": [
            {"url": _BRAND, "extension": [{"url": "brandBundle", "valueUrl": address(service)}]},
            {
                "url": _PORTAL,
                "extension": [
                    {"url": "portalName", "valueString": f"{name}, referrals and images"},
                    {"url": "portalUrl", "valueUrl": f"{service.origin}/"},
                    {"url": "portalEndpoint", "valueReference": {"reference": "Endpoint/fhir"}},
                ],
            },
        ],
        "endpoint": [{"reference": "Endpoint/fhir"}],
    }
    if "address" in known:
        organization["address"] = known["address"]
    endpoint = {
        "resourceType": "Endpoint",
        "id": "fhir",
        "extension": [{"url": _VERSION, "valueCode": "4.0.1"}],
        "status": "active",
        "connectionType": {
            "system": "http://terminology.hl7.org/CodeSystem/endpoint-connection-type",
            "code": "hl7-fhir-rest",
        },
        "name": f"{name}, FHIR R4",
        "contact": telecom,
        "payloadType": [
            {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/endpoint-payload-type", "code": "none"}]}
        ],
        "address": service.fhir_base,
    }
    entries = [
        {"fullUrl": f"{service.fhir_base}/{one['resourceType']}/{one['id']}", "resource": one}
        for one in (organization, endpoint)
    ]
    bundle = {"resourceType": "Bundle", "type": "collection", "timestamp": changed, "entry": entries}
    body = fhir_json.dumps(bundle)
    return Brand(body, sha256(body).hexdigest()[:16])


def address(service: AuthService) -> str:
    """Where the bundle is; public, for any origin."""
    return f"{service.fhir_base}/.well-known/brands.json"
