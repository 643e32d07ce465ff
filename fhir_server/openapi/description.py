"""From the CapabilityStatement and the declared operations to an OpenAPI description.

What all types have in common stands once, under `/{type}/{id}` and in the components; what differs from type to type,
its search and its operations, has an address of its own.
"""

from collections.abc import Iterable, Mapping

from fhir_server.openapi.components import components, search_parameter
from fhir_server.openapi.parts import action, body, parameters
from fhir_server.operation import Operation

VERSION = "3.1.1"
_TEXT = (
    "FHIR R4 (4.0.1). Every address also answers HEAD (where it answers GET) and OPTIONS. Formats: "
    "`application/fhir+json` and `application/fhir+xml`, chosen by `Accept` or `_format`; `_pretty=true` indents. "
    "Errors are OperationOutcomes; `issue.expression` names the element at fault. `X-Request-Id` is taken from the "
    "request, or given, and stands in each answer. The CapabilityStatement is at `metadata`."
)
_SHAPES = ("_count", "_sort", "_total", "_summary", "_elements", "_include", "_revinclude", "_page")
_HISTORY = ("_since", "_at", "_history_count", "_page")


def describe(statement: dict, operations: Iterable[Operation], more: Iterable[Mapping[str, dict]] = ()) -> dict:
    """The OpenAPI description of what the statement claims.

    operations: those of the statement that `fhir_server.operations.routes` serves. more: path items, by address below
    the base, of packages that have routes of their own.
    """
    rest = statement["rest"][0]
    resources = {resource["type"]: resource for resource in rest["resource"]}
    operations = list(operations)
    paths: dict[str, dict] = {
        "/metadata": {"get": action("metadata", "What this server does", "CapabilityStatement", public=True)},
        "/": {
            "get": action("search-system", "Search of several types", "Bundle", query=_SHAPES, headers=("Handling",)),
            "post": action("bundle", "Batch or transaction", "Bundle", headers=("Prefer",)) | body("Bundle"),
        },
        "/_search": {"post": action("search-system-by-post", "Search of several types", "Bundle") | body("Search")},
        "/_history": {"get": action("history-system", "All versions", "Bundle", query=_HISTORY)},
    }
    paths |= {f"/{type}": _of_type(type, resource) for type, resource in resources.items()}
    paths |= {f"/{type}/_search": _search_by_post(type) for type in resources}
    paths |= _of_all_types() | _of_compartments()
    for operation in operations:
        paths |= _operation(operation)
    for items in more:
        paths |= items
    return {
        "openapi": VERSION,
        "info": {
            "title": "Radloop FHIR API",
            "version": statement["software"]["version"],
            "description": _TEXT,
            "license": {"name": "Apache 2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": statement["implementation"]["url"]}],
        "security": [{"smart": []}],
        "tags": [{"name": type, "externalDocs": {"url": _page(type)}} for type in resources],
        "paths": paths,
        "components": components(resources, _addresses(rest["security"])),
    }


def _page(type: str) -> str:
    return f"https://hl7.org/fhir/R4/{type.lower()}.html"


def _addresses(security: dict) -> dict[str, str]:
    """Those of the authorization server: authorize, token ..."""
    return {row["url"]: row["valueUri"] for row in security["extension"][0]["extension"]}


def _of_type(type: str, resource: dict) -> dict:
    """What `/Patient` takes. Conditions of an update, patch or delete are search parameters."""
    search = [search_parameter(row["name"], row["type"]) for row in resource["searchParam"]]
    conditions = {"description": "Search parameters that exactly one resource meets."}
    tag = {"tags": [type]}
    written = ("Written", "Created")
    return {
        "get": tag | action(f"search{type}", "Search", "Bundle", query=(*search, *_SHAPES), headers=("Handling",)),
        "post": tag
        | action(f"create{type}", "Create", *written, headers=("If-None-Exist", "Prefer"))
        | body("Resource"),
        "put": tag
        | conditions
        | action(f"conditionalUpdate{type}", "Conditional update", *written, headers=("If-Match", "Prefer"))
        | body("Resource"),
        "patch": tag
        | conditions
        | action(f"conditionalPatch{type}", "Conditional patch", "Written", headers=("If-Match", "Prefer"))
        | body("Patch"),
        "delete": tag
        | conditions
        | action(f"conditionalDelete{type}", "Conditional delete", "Told", "Deleted", headers=("If-Match", "Prefer")),
    }


def _search_by_post(type: str) -> dict:
    return {"post": {"tags": [type]} | action(f"searchByPost{type}", "Search", "Bundle") | body("Search")}


def _of_compartments() -> dict[str, dict]:
    """Searches of what is in the compartment of a resource."""
    tag = {"tags": ["any type"]}
    found: dict[str, dict] = {}
    for address, what, ending in (("*", (), "all"), ("{member}", ("member",), "type")):
        name = f"search-compartment-{ending}"
        search = action(name, "Search of a compartment", "Bundle", query=_SHAPES, headers=("Handling",))
        found[f"/{{type}}/{{id}}/{address}"] = {"parameters": parameters("type", "id", *what), "get": tag | search}
        posted = "/{type}/{id}/_search" if ending == "all" else "/{type}/{id}/{member}/_search"
        by_post = action(f"{name}-by-post", "Search of a compartment", "Bundle") | body("Search")
        found[posted] = {"parameters": parameters("type", "id", *what), "post": tag | by_post}
    return found


def _of_all_types() -> dict[str, dict]:
    """What each type has alike."""
    tag = {"tags": ["any type"]}
    conditions = ("If-None-Match", "If-Modified-Since")
    write = ("If-Match", "Prefer")
    return {
        "/{type}/_history": {
            "parameters": parameters("type"),
            "get": tag | action("history-type", "Versions of a type", "Bundle", query=_HISTORY),
        },
        "/{type}/{id}": {
            "parameters": parameters("type", "id"),
            "get": tag | action("read", "Read", "Read", "NotModified", headers=conditions),
            "put": tag
            | action(
                "update", "Update, or create with this id", "Written", "Created", headers=("If-None-Match", *write)
            )
            | body("Resource"),
            "patch": tag | action("patch", "Patch", "Written", headers=write) | body("Patch"),
            "delete": tag | action("delete", "Delete", "Told", "Deleted", headers=write),
        },
        "/{type}/{id}/_history": {
            "parameters": parameters("type", "id"),
            "get": tag | action("history-instance", "Versions of a resource", "Bundle", query=_HISTORY),
        },
        "/{type}/{id}/_history/{version}": {
            "parameters": parameters("type", "id", "version"),
            "get": tag | action("vread", "Read a version", "Read", "NotModified", headers=conditions),
        },
    }


def _operation(operation: Operation) -> dict[str, dict]:
    """The addresses of an operation: of the system, of its types, of one resource."""
    type = operation.resource_type
    name = f"${operation.name}"
    levels = {
        "System": (operation.system, f"/{name}", ()),
        "Type": (operation.type_level, f"/{type or '{type}'}/{name}", () if type else ("type",)),
        "Instance": (operation.instance, f"/{type or '{type}'}/{{id}}/{name}", ("id",) if type else ("type", "id")),
    }
    return {
        address: ({"parameters": parameters(*variables)} if variables else {})
        | _called(operation, f"{operation.name}{type or ''}{level}")
        for level, (offered, address, variables) in levels.items()
        if offered
    }


def _called(operation: Operation, id: str) -> dict[str, dict]:
    text = {"description": operation.documentation} if operation.documentation else {}
    about = {
        "tags": [operation.resource_type or "any type"],
        "externalDocs": {"url": operation.definition},
    } | text
    summary = f"${operation.name}"
    headers = ("If-Match", "Prefer") if operation.affects_state else ()
    post = about | action(id, summary, "Answer", headers=headers) | body("Parameters")
    if operation.affects_state:
        return {"post": post}
    return {"get": about | action(f"{id}ByGet", summary, "Answer", query=("inputs",)), "post": post}
