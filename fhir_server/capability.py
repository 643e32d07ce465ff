"""The CapabilityStatement, made from what is registered. https://hl7.org/fhir/R4/capabilitystatement.html"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

import conformance
from conformance.profiles import own_profiles
from fhir_server.access import AUDIT_TRAIL
from fhir_server.formats import FHIR_JSON, FHIR_XML, JSON_PATCH, MERGE_PATCH
from fhir_server.operation import Operation

INTERACTIONS = (
    "read",
    "vread",
    "update",
    "patch",
    "delete",
    "history-instance",
    "history-type",
    "create",
    "search-type",
)
_WRITES = ("update", "patch", "delete", "create")
_OF_WRITES = ("updateCreate", "conditionalCreate", "conditionalUpdate", "referencePolicy")
SYSTEM_INTERACTIONS = ("transaction", "batch", "history-system", "search-system")
# Parameters of searches of every type beside those of its own: name, definition, type, what there is to know.
COMMON_PARAMETERS = (
    ("_content", "http://hl7.org/fhir/SearchParameter/Resource-content", "string", "all of the words given"),
    ("_filter", "http://hl7.org/fhir/SearchParameter/filter", "special", "and, or and not with equal precedence"),
    ("_has", None, "special", "reverse chains, also inside one another"),
    ("_list", None, "special", "ids of lists; none by what is current"),
    ("_text", "http://hl7.org/fhir/SearchParameter/DomainResource-text", "string", "all of the words given"),
    ("_type", None, "special", "of a search of several types"),
)
OAUTH_URIS = "http://fhir-registry.smarthealthit.org/StructureDefinition/oauth-uris"
SECURITY_SERVICE = "http://terminology.hl7.org/CodeSystem/restful-security-service"


@dataclass(frozen=True, slots=True)
class Capability:
    """What a package adds. resources: type -> members of its `rest.resource`; instantiates: canonical URLs.

    operations: type, or "" for the whole system -> operations that have routes of their own.
    """

    resources: Mapping[str, dict] = field(default_factory=dict)
    instantiates: tuple[str, ...] = ()
    operations: Mapping[str, tuple[dict, ...]] = field(default_factory=dict)


def capability_statement(
    base_url: str,
    started: datetime,
    software: str,
    operations: Iterable[Operation],
    oauth_uris: Mapping[str, str],
    searchable: Callable[[str], Iterable[conformance.SearchParameter]],
    capabilities: Iterable[Capability] = (),
    deletes_at_once: int = 1,
) -> dict:
    """What this server does. searchable: the search parameters of a type that can really be searched by.

    deletes_at_once: how many resources a conditional delete may delete.
    """
    operations = list(operations)
    capabilities = list(capabilities)
    resources = []
    for resource_type in sorted(conformance.resource_types()):
        resource = _resource(resource_type, _of_type(operations, resource_type), searchable(resource_type))
        if resource_type == AUDIT_TRAIL:
            resource = {name: value for name, value in resource.items() if name not in _OF_WRITES}
            resource["interaction"] = [{"code": code} for code in INTERACTIONS if code not in _WRITES]
        else:
            resource["conditionalDelete"] = "single" if deletes_at_once == 1 else "multiple"
        for capability in capabilities:
            resource |= capability.resources.get(resource_type, {})
            if resource_type in capability.operations:
                resource["operation"] = [*resource.get("operation", ()), *capability.operations[resource_type]]
        resources.append(resource)
    system = [operation for capability in capabilities for operation in capability.operations.get("", ())]
    statement = {
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": started.isoformat(timespec="seconds"),
        "kind": "instance",
        "software": {"name": "Radloop", "version": software},
        "implementation": {"description": "Radloop", "url": base_url},
        "fhirVersion": "4.0.1",
        "format": [FHIR_JSON, FHIR_XML, "json", "xml"],
        "patchFormat": [JSON_PATCH, MERGE_PATCH, FHIR_JSON, FHIR_XML],
        "rest": [
            {
                "mode": "server",
                "security": _security(oauth_uris),
                "resource": resources,
                "interaction": [{"code": code} for code in SYSTEM_INTERACTIONS],
                "searchParam": [_common(*row) for row in COMMON_PARAMETERS],
                "compartment": [
                    f"http://hl7.org/fhir/CompartmentDefinition/{name[0].lower()}{name[1:]}"
                    for name in conformance.compartments()
                ],
            }
            | _offered([operation for operation in operations if operation.system], system)
        ],
    }
    instantiates = [url for capability in capabilities for url in capability.instantiates]
    return statement | ({"instantiates": instantiates} if instantiates else {})


def _common(name: str, definition: str | None, type: str, documentation: str) -> dict:
    row = {"name": name, "definition": definition, "type": type, "documentation": documentation}
    return {key: value for key, value in row.items() if value}


def _of_type(operations: list[Operation], resource_type: str) -> list[Operation]:
    """Those that can be called on the type or on one resource of it."""
    called = [operation for operation in operations if operation.instance or operation.type_level]
    return [operation for operation in called if operation.resource_type in (None, resource_type)]


def _offered(operations: list[Operation], others: list[dict] | None = None) -> dict:
    found = [*map(_operation, operations), *(others or ())]
    return {"operation": found} if found else {}


def _operation(operation: Operation) -> dict:
    row = {"name": operation.name, "definition": operation.definition}
    return row | ({"documentation": operation.documentation} if operation.documentation else {})


def _resource(
    resource_type: str, operations: list[Operation], parameters: Iterable[conformance.SearchParameter]
) -> dict:
    parameters = list(parameters)
    references = [f"{resource_type}:{parameter.code}" for parameter in parameters if parameter.type == "reference"]
    resource: dict = {
        "type": resource_type,
        "profile": f"http://hl7.org/fhir/StructureDefinition/{resource_type}",
        "supportedProfile": own_profiles(resource_type),
        "interaction": [{"code": code} for code in INTERACTIONS],
        "versioning": "versioned-update",
        "readHistory": True,
        "updateCreate": True,
        "conditionalCreate": True,
        "conditionalRead": "full-support",
        "conditionalUpdate": True,
        "referencePolicy": ["literal", "local", "enforced"],
        "searchInclude": references,
        "searchParam": [
            {"name": parameter.code, "definition": parameter.url, "type": parameter.type} for parameter in parameters
        ],
    } | _offered(operations)
    return {name: value for name, value in resource.items() if value != []}


def _security(oauth_uris: Mapping[str, str]) -> dict:
    addresses = [{"url": name, "valueUri": uri} for name, uri in oauth_uris.items()]
    return {
        "cors": True,
        "service": [{"coding": [{"system": SECURITY_SERVICE, "code": "SMART-on-FHIR"}]}],
        "extension": [{"url": OAUTH_URIS, "extension": addresses}],
    }
