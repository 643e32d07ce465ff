"""What an OpenAPI description names once: parameters, bodies, answers, schemas and the way to a token."""

from collections.abc import Iterable, Mapping

from fhir_server.errors import (
    BadRequest,
    Conflict,
    FhirError,
    Forbidden,
    Gone,
    MethodNotAllowed,
    NotAcceptable,
    NotAuthenticated,
    NotFound,
    PreconditionFailed,
    TooLarge,
    TooManyRequests,
    Unprocessable,
    UnsupportedMediaType,
)
from fhir_server.formats import FHIR_JSON, FHIR_XML, JSON_PATCH, MERGE_PATCH
from fhir_server.openapi.parts import ref

_REFUSALS: tuple[type[FhirError], ...] = (
    BadRequest,
    NotAuthenticated,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    NotAcceptable,
    Conflict,
    Gone,
    PreconditionFailed,
    TooLarge,
    UnsupportedMediaType,
    Unprocessable,
    TooManyRequests,
)
_ID = {"type": "string", "pattern": r"^[A-Za-z0-9\-.]{1,64}$"}
_TEXT = {"type": "string"}
_COUNT = {"type": "integer", "minimum": 0}
_FORM = "application/x-www-form-urlencoded"


def search_parameter(code: str, type: str) -> str:
    """The name of the component for a search parameter; those of the same code and type share it."""
    return f"{code}.{type}"


def components(resources: Mapping[str, dict], addresses: Mapping[str, str]) -> dict:
    """resources: rows of the CapabilityStatement, by type. addresses: those of the authorization server."""
    return {
        "securitySchemes": {"smart": _security(addresses)},
        "schemas": _schemas(resources),
        "parameters": _variables() | _headers() | _query() | _searches(resources),
        "requestBodies": _bodies(),
        "responses": _responses(),
    }


def _security(addresses: Mapping[str, str]) -> dict:
    scopes = {
        "patient/*.cruds": "one patient, for an app that the user starts for that patient",
        "user/*.cruds": "what the user may do",
        "system/*.cruds": "what the system is registered for; by type and letters, such as system/Task.rs",
    }
    backend = {name: text for name, text in scopes.items() if name.startswith("system")}
    app = {name: text for name, text in scopes.items() if name not in backend}
    return {
        "type": "oauth2",
        "description": "SMART App Launch and SMART Backend Services (client_credentials with private_key_jwt).",
        "flows": {
            "clientCredentials": {"tokenUrl": addresses["token"], "scopes": backend},
            "authorizationCode": {
                "authorizationUrl": addresses["authorize"],
                "tokenUrl": addresses["token"],
                "scopes": app,
            },
        },
    }


def _schemas(resources: Iterable[str]) -> dict:
    def resource(type: str, members: dict | None = None) -> dict:
        known = {"resourceType": {"const": type}, "id": ref("schemas", "id")} | (members or {})
        return {"type": "object", "required": ["resourceType"], "properties": known}

    entries = {"type": "array", "items": {"type": "object"}}
    issue = {
        "type": "object",
        "required": ["severity", "code"],
        "properties": {
            "severity": {"enum": ["fatal", "error", "warning", "information"]},
            "code": _TEXT | {"description": "of http://hl7.org/fhir/ValueSet/issue-type"},
            "diagnostics": _TEXT,
            "expression": {"type": "array", "items": _TEXT, "description": "FHIRPath of the elements at fault"},
        },
    }
    return {
        "id": _ID,
        "type": {"type": "string", "enum": list(resources)},
        "Resource": {
            "type": "object",
            "required": ["resourceType"],
            "properties": {"resourceType": ref("schemas", "type"), "id": ref("schemas", "id")},
            "description": "A resource as https://hl7.org/fhir/R4/resourcelist.html defines it.",
        },
        "Bundle": resource("Bundle", {"type": _TEXT, "entry": entries}),
        "Parameters": resource("Parameters", {"parameter": entries}),
        "CapabilityStatement": resource("CapabilityStatement"),
        "OperationOutcome": resource("OperationOutcome", {"issue": {"type": "array", "minItems": 1, "items": issue}}),
        "JsonPatch": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["op", "path"],
                "properties": {
                    "op": {"enum": ["add", "remove", "replace", "move", "copy", "test"]},
                    "path": _TEXT,
                    "from": _TEXT,
                    "value": {},
                },
            },
        },
    }


def _variables() -> dict:
    schemas = {
        "type": ref("schemas", "type"),
        "id": ref("schemas", "id"),
        "version": _COUNT | {"minimum": 1},
        "member": ref("schemas", "type"),
    }
    return {
        name: {"name": name, "in": "path", "required": True, "schema": schema} for name, schema in schemas.items()
    }


def _headers() -> dict:
    texts = {
        "If-Match": ('the version that is changed: `W/"3"`; 412 when there is a newer one', _TEXT),
        "If-None-Match": (
            'of a read, the version that the client has: `W/"3"`; of an update `*`, to create only',
            _TEXT,
        ),
        "If-Modified-Since": ("a HTTP date; 304 when there is nothing newer", _TEXT),
        "If-None-Exist": ("search parameters: create only when nothing meets them", _TEXT),
        "Prefer": (
            "what a write answers with",
            {"type": "string", "examples": ["return=minimal", "return=representation", "return=OperationOutcome"]},
        ),
        "Handling": (
            "whether search parameters that are not known here are refused, or left out and named in the answer",
            {"type": "string", "examples": ["handling=strict", "handling=lenient"]},
        ),
        "Async": ("bulk operations need it", {"type": "string", "const": "respond-async"}),
    }
    names = {"Handling": "Prefer", "Async": "Prefer"}
    return {
        key: {"name": names.get(key, key), "in": "header", "description": text, "schema": schema}
        | ({"required": True} if key == "Async" else {})
        for key, (text, schema) in texts.items()
    }


def _query() -> dict:
    texts: dict[str, tuple[str, dict]] = {
        "_count": ("matches on a page", _COUNT),
        "_sort": ("search parameters to order by, separated by commas; `-` before one turns it round", _TEXT),
        "_total": ("", {"enum": ["none", "estimate", "accurate"]}),
        "_summary": ("", {"enum": ["true", "false", "text", "data", "count"]}),
        "_elements": ("names of elements, separated by commas", _TEXT),
        "_include": ("`Type:parameter` or `Type:parameter:Target`", _TEXT),
        "_revinclude": ("`Type:parameter` or `Type:parameter:Target`", _TEXT),
        "_page": ("which page: follow the `link` with relation `first`, `previous` or `next`", _TEXT),
        "_since": ("an instant", _TEXT),
        "_at": ("a date, a time or a span of these", _TEXT),
        "_type": ("resource types, separated by commas", _TEXT),
        "_typeFilter": ("searches, of which a resource of their type meets one", _TEXT),
        "_outputFormat": ("", {"enum": ["application/fhir+ndjson", "application/ndjson", "ndjson"]}),
    }
    made = {name: _in_query(name, schema, text) for name, (text, schema) in texts.items()}
    inputs = {"type": "object", "additionalProperties": _TEXT}
    return made | {
        "_history_count": _in_query("_count", _COUNT, "versions on a page"),
        "inputs": _in_query("inputs", inputs, "the operation's parameters, by their names")
        | {"style": "form", "explode": True},
    }


def _searches(resources: Mapping[str, dict]) -> dict:
    """Each search parameter by code and type, its modifiers and chains being those of the specification."""
    found = {(row["name"], row["type"]) for resource in resources.values() for row in resource["searchParam"]}
    return {
        search_parameter(code, type): _in_query(code, _TEXT, f"https://hl7.org/fhir/R4/search.html#{type}")
        for code, type in sorted(found)
    }


def _in_query(name: str, schema: dict, text: str = "") -> dict:
    return {"name": name, "in": "query", "schema": schema} | ({"description": text} if text else {})


def _in_fhir(schema: str) -> dict:
    """Content in the two formats of FHIR; of XML no schema is given."""
    return {FHIR_JSON: {"schema": ref("schemas", schema)}, FHIR_XML: {}}


def _bodies() -> dict:
    def required(content: dict) -> dict:
        return {"required": True, "content": content}

    patch = {
        JSON_PATCH: {"schema": ref("schemas", "JsonPatch")},
        MERGE_PATCH: {"schema": {"type": "object"}},
    } | _in_fhir("Parameters")
    form = {"type": "object", "additionalProperties": _TEXT}
    return {
        "Resource": required(_in_fhir("Resource")),
        "Bundle": required(_in_fhir("Bundle")),
        "Parameters": {"content": _in_fhir("Parameters")},
        "Patch": required(patch),
        "Search": {"content": {_FORM: {"schema": form}}},
        "Upload": required(
            {"application/fhir+ndjson": {"schema": _TEXT}, FHIR_JSON: {"schema": ref("schemas", "Parameters")}}
        ),
    }


def _responses() -> dict:
    tag = {"description": 'the version: `W/"3"`', "schema": _TEXT}
    version = {"ETag": tag, "Last-Modified": {"schema": _TEXT}}
    location = {"Location": {"schema": _TEXT}}

    def answer(text: str, content: dict | None = None, headers: dict | None = None) -> dict:
        made: dict = {"description": text}
        return made | ({"headers": headers} if headers else {}) | ({"content": content} if content else {})

    outcome, resource = _in_fhir("OperationOutcome"), _in_fhir("Resource")
    refusals = "; ".join(f"{kind.status} {_why(kind)}" for kind in _REFUSALS)
    return {
        "Bundle": answer("A Bundle; follow its links for other pages.", _in_fhir("Bundle")),
        "CapabilityStatement": answer("The CapabilityStatement.", _in_fhir("CapabilityStatement")),
        "Read": answer("The resource; a Binary as the bytes it is, when Accept asks for them.", resource, version),
        "Written": answer("Stored, or already as it was sent; content as Prefer asks.", resource, version | location),
        "Created": answer("Stored as a new resource; content as Prefer asks.", resource, version | location),
        "Deleted": answer("Deleted, or not there.", headers={"ETag": tag}),
        "Told": answer("Done, as Prefer: return=OperationOutcome asks to be told.", outcome, {"ETag": tag}),
        "NotModified": answer("The client has this version.", headers=version),
        "Answer": answer("What the operation answers.", resource),
        "Accepted": answer(
            "Begun; ask at Content-Location how far it is.", outcome, {"Content-Location": {"schema": _TEXT}}
        ),
        "Working": answer("Not done yet, or cancelled.", headers={"X-Progress": {"schema": _TEXT}}),
        "Manifest": answer("The files.", {"application/json": {"schema": {"type": "object"}}}),
        "Lines": answer("A resource in each line.", {"application/fhir+ndjson": {"schema": _TEXT}}),
        "Refused": answer(f"Nothing was changed. {refusals}; 503: try again after Retry-After.", outcome),
    }


def _why(kind: type[FhirError]) -> str:
    """`precondition failed`, of PreconditionFailed."""
    return "".join(f" {sign.lower()}" if sign.isupper() else sign for sign in kind.__name__).strip()
