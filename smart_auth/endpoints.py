"""Introspection (RFC 7662) and revocation (RFC 7009) of access tokens."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from authlib.oauth2.rfc7009 import RevocationEndpoint
from authlib.oauth2.rfc7662 import IntrospectionEndpoint

from fhir_server.access import Access
from fhir_server.errors import NotAuthenticated
from smart_auth.models import Client

if TYPE_CHECKING:
    from smart_auth.server import Request, Server


@dataclass(frozen=True, slots=True)
class ActiveToken:
    """A token that is good right now, in the shape authlib asks."""

    claims: dict
    access: Access

    def check_client(self, client: Client) -> bool:
        return self.claims.get("client_id") == client.client_id

    def is_expired(self) -> bool:
        return False

    def is_revoked(self) -> bool:
        return False


class _Lookup:
    server: "Server"

    def check_params(self, request: "Request", client: Client) -> None:
        """Nothing: the server has seen the token, and token_type_hint is only a hint (RFC 7009 section 2.1)."""

    def query_token(self, token_string: str, token_type_hint: str | None) -> ActiveToken | None:  # noqa: ARG002
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
        wanted = ("scope", "client_id", "sub", "iss", "aud", "exp", "iat", "jti", "patient")
        body = {"active": True, "token_type": "Bearer"}
        body |= {name: token.claims[name] for name in wanted if name in token.claims}
        if token.access.fhir_user is not None:
            body["fhirUser"] = f"{self.server.service.fhir_base}/{token.access.fhir_user}"
        return body


class Revocation(_Lookup, RevocationEndpoint):
    """Ends the grant of a token, so all tokens of that grant. 200 also for a token that is none."""

    CLIENT_AUTH_METHODS = ("private_key_jwt", "client_secret_basic", "none")

    def revoke_token(self, token: ActiveToken, request: "Request") -> None:  # noqa: ARG002
        until = datetime.fromtimestamp(token.claims["exp"], UTC)
        self.server.service.store.revoke_grant(token.claims["grant"], until)
