"""Introspection (RFC 7662) of access tokens, revocation (RFC 7009) of access and refresh tokens."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from authlib.oauth2.rfc7009 import RevocationEndpoint
from authlib.oauth2.rfc7662 import IntrospectionEndpoint

from fhir_server.access import Access
from fhir_server.errors import NotAuthenticated
from smart_auth.answer import context_members
from smart_auth.models import Client, RefreshToken, digest

if TYPE_CHECKING:
    from smart_auth.server import Request, Server


@dataclass(frozen=True, slots=True)
class ActiveToken:
    """A token that is good right now, in the shape authlib asks."""

    claims: dict
    access: Access

    @property
    def grant(self) -> str:
        return self.claims["grant"]

    @property
    def until(self) -> datetime:
        return datetime.fromtimestamp(self.claims["exp"], UTC)

    def check_client(self, client: Client) -> bool:
        return self.claims.get("client_id") == client.client_id

    def is_expired(self) -> bool:
        return False

    def is_revoked(self) -> bool:
        return False


@dataclass(frozen=True, slots=True)
class OwnRefreshToken:
    """A refresh token, in the shape authlib asks."""

    stored: RefreshToken

    @property
    def grant(self) -> str:
        return self.stored.grant

    @property
    def until(self) -> datetime:
        return self.stored.expires

    def check_client(self, client: Client) -> bool:
        return self.stored.client_id == client.client_id


OwnToken = ActiveToken | OwnRefreshToken


class _Lookup:
    server: "Server"

    def check_params(self, request: "Request", client: Client) -> None:
        """Nothing: the server has seen the token, and token_type_hint is only a hint (RFC 7009 section 2.1)."""

    def query_token(self, token_string: str, token_type_hint: str | None) -> OwnToken | None:  # noqa: ARG002
        verifier = self.server.service.verifier
        try:
            return ActiveToken(verifier.claims(token_string), verifier.access(token_string))
        except NotAuthenticated:
            return None


class Introspection(_Lookup, IntrospectionEndpoint):
    """Tells a client about its own tokens, and the practice's systems about all."""

    CLIENT_AUTH_METHODS = ("private_key_jwt", "client_secret_basic")

    def check_permission(self, token: ActiveToken, client: Client, request: "Request") -> bool:  # noqa: ARG002
        return client.practice or token.check_client(client)

    def introspect_token(self, token: ActiveToken) -> dict:
        service = self.server.service
        wanted = ("scope", "client_id", "sub", "iss", "aud", "exp", "iat", "jti")
        body = {"active": True, "token_type": "Bearer"}
        body |= {name: token.claims[name] for name in wanted if name in token.claims}
        grant = service.store.grant(token.claims["grant"])
        if grant is not None:
            body |= context_members(service, grant.context)
        if token.access.fhir_user is not None:
            body["fhirUser"] = f"{service.fhir_base}/{token.access.fhir_user}"
        return body


class Revocation(_Lookup, RevocationEndpoint):
    """Ends the grant of a token, so all tokens of that grant. 200 also for a token that is none."""

    CLIENT_AUTH_METHODS = ("private_key_jwt", "client_secret_basic", "none")

    def query_token(self, token_string: str, token_type_hint: str | None) -> OwnToken | None:
        stored = self.server.service.store.refresh_token(digest(token_string))
        return super().query_token(token_string, token_type_hint) if stored is None else OwnRefreshToken(stored)

    def revoke_token(self, token: OwnToken, request: "Request") -> None:  # noqa: ARG002
        self.server.service.store.revoke_grant(token.grant, token.until)
