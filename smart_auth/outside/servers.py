"""The other servers we may be a client of, from the file that RADLOOP_OUTSIDE_SERVERS names."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import marshmallow
from joserfc.errors import JoseError
from joserfc.jwk import Key, import_key
from marshmallow import fields, validate

from fhir_server import fhir_json
from fhir_server.errors import BadRequest
from smart_auth.models import digest

EHR, OPENID = "ehr", "openid"
_READ = ("Patient", "Condition", "Coverage", "ServiceRequest")  # what a referral is filled from
_EHR_SCOPE = " ".join(["launch", "openid", "fhirUser", *(f"patient/{name}.rs" for name in _READ)])


@dataclass(frozen=True, slots=True)
class Server:
    """One of them. issuer: of an EHR its FHIR base (`iss`), of an OpenID provider its issuer.

    organization, roles: what users who come from there for the first time become here; without roles only those come
    whom we know, by their confirmed e-mail address. key: our private key for it (private_key_jwt); secret: ours for
    HTTP Basic; with neither we are a public client.
    """

    name: str
    kind: str
    title: str
    issuer: str
    client_id: str
    scope: str
    organization: str | None = None
    roles: frozenset[str] = frozenset()
    secret: str | None = field(default=None, repr=False)
    key: Key | None = field(default=None, repr=False)

    def user_name(self, subject: str) -> str:
        """The name here of who has that `sub` there."""
        return f"{self.name}.{digest(subject)[:24]}"


Servers = Mapping[str, Server]


class BadServers(ValueError):
    """The file cannot be used; the text says why."""


class _Schema(marshmallow.Schema):
    name = fields.String(required=True, validate=validate.Regexp(r"[a-z][a-z0-9-]{0,30}$"))
    kind = fields.String(required=True, validate=validate.OneOf((EHR, OPENID)))
    title = fields.String(required=True, validate=validate.Length(1, 100))
    issuer = fields.Url(required=True, schemes={"http", "https"}, require_tld=False)
    client_id = fields.String(required=True, validate=validate.Length(1, 200))
    scope = fields.String(validate=validate.Length(1, 2000))
    organization = fields.String(validate=validate.Regexp(r"Organization/[A-Za-z0-9\-.]{1,64}$"))
    roles = fields.List(fields.String(validate=validate.OneOf(("front-desk", "radiologist", "manager", "referrer"))))
    secret_file = fields.String()
    key_file = fields.String()


def read_servers(path: Path | None) -> Servers:
    """By name; none without a file. Raises BadServers.

    The file is a JSON list. secret_file holds a secret, key_file a private JWK with a kid; relative to the file.
    """
    if path is None:
        return MappingProxyType({})
    try:
        entries = fhir_json.loads(path.read_bytes())
        loaded: list[dict[str, Any]] = _Schema(many=True).load(entries)
    except OSError as error:
        raise BadServers(f"{path} cannot be read: {error.strerror}") from None
    except BadRequest as error:
        raise BadServers(f"{path} is no JSON: {error.diagnostics}") from None
    except marshmallow.ValidationError as error:
        raise BadServers(f"{path}: {error.normalized_messages()}") from None
    servers = {entry["name"]: _server(entry, path.parent) for entry in loaded}
    if len(servers) != len(loaded) or len({server.issuer for server in servers.values()}) != len(loaded):
        raise BadServers(f"{path}: a name or an issuer is there twice")
    return MappingProxyType(servers)


def by_issuer(servers: Servers, issuer: str) -> Server | None:
    """The EHR with that FHIR base, a slash at its end or not."""
    wanted = issuer.rstrip("/")
    return next((one for one in servers.values() if one.kind == EHR and one.issuer.rstrip("/") == wanted), None)


def _server(entry: dict[str, Any], folder: Path) -> Server:
    name = entry["name"]
    if entry["kind"] == EHR and "organization" not in entry:
        raise BadServers(f"{name}: an EHR belongs to an organization, Organization/<id>")
    if "secret_file" in entry and "key_file" in entry:
        raise BadServers(f"{name}: give a secret or a key")
    return Server(
        name,
        entry["kind"],
        entry["title"],
        entry["issuer"].rstrip("/") if entry["kind"] == EHR else entry["issuer"],
        entry["client_id"],
        entry.get("scope") or (_EHR_SCOPE if entry["kind"] == EHR else "openid"),
        entry.get("organization"),
        frozenset(entry.get("roles", ("referrer",) if entry["kind"] == EHR else ())),
        _read(folder / entry["secret_file"]).decode().strip() if "secret_file" in entry else None,
        _key(folder / entry["key_file"]) if "key_file" in entry else None,
    )


def _key(path: Path) -> Key:
    try:
        key = import_key(fhir_json.loads(_read(path)))
    except (JoseError, BadRequest, ValueError, TypeError) as error:
        raise BadServers(f"{path} holds no private JWK: {type(error).__name__}") from None
    if not key.is_private or key.kid is None or key.key_type not in ("RSA", "EC"):
        raise BadServers(f"{path} holds no private RSA or EC key with a kid")
    return key


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadServers(f"{path} cannot be read: {error.strerror}") from None
