"""authlib's grant types with our rules: what SMART App Launch 2.2 demands beyond OAuth 2. No Flask here.

Descriptions of errors are fixed texts: authlib raises ValueError on characters that OAuth forbids in them, so nothing
a client sent may be quoted.
"""

from datetime import timedelta
from secrets import token_urlsafe
from typing import TYPE_CHECKING, Any

from authlib.oauth2.rfc6749 import (
    InvalidGrantError,
    InvalidRequestError,
    InvalidScopeError,
    OAuth2Request,
)
from authlib.oauth2.rfc6749.grants import AuthorizationCodeGrant as _AuthorizationCodeGrant
from authlib.oauth2.rfc6749.grants import ClientCredentialsGrant as _ClientCredentialsGrant
from authlib.oauth2.rfc7636 import CodeChallenge
from authlib.oidc.core.grants import OpenIDCode
from joserfc.jwk import Key

from smart_auth import launch, scopes, tokens
from smart_auth.answer import end_of_grant, token_answer
from smart_auth.keys import ALGORITHM
from smart_auth.models import AuthorizationCode, Client, Grant, User, digest
from smart_auth.service import AuthService

if TYPE_CHECKING:
    from smart_auth.server import Server

CODE_LIFETIME = timedelta(seconds=60)
_REPLAY_MEMORY = timedelta(hours=2)  # beyond the life of any token that the code produced


class AuthorizationCodeGrant(_AuthorizationCodeGrant):
    """RFC 6749 section 4.1 with PKCE, an exact redirect URI and one-time codes."""

    TOKEN_ENDPOINT_AUTH_METHODS = ("private_key_jwt", "client_secret_basic", "none")
    server: "Server"

    @staticmethod
    def validate_authorization_redirect_uri(request: OAuth2Request, client: Client) -> str:
        redirect_uri = request.payload.redirect_uri
        if not redirect_uri or not client.check_redirect_uri(redirect_uri):
            raise InvalidRequestError("The redirect_uri is not one that this client registered.")
        return redirect_uri

    def generate_authorization_code(self) -> str:
        return token_urlsafe(32)

    def save_authorization_code(self, code: str, request: OAuth2Request) -> None:
        if request.launch is not None and not self.server.service.store.use_launch(request.launch.digest):
            raise InvalidRequestError("The launch was used before.", redirect_uri=request.payload.redirect_uri)
        consent = request.consent  # set by Server.grant_authorization
        now = self.server.service.clock()
        data = request.payload.data
        self.server.service.store.add_code(
            AuthorizationCode(
                digest=digest(code),
                grant=tokens.new_id(),
                client_id=request.client.client_id,
                user=request.user.name,
                redirect_uri=request.payload.redirect_uri,
                scope=consent.scope,
                code_challenge=data["code_challenge"],
                expires=now + CODE_LIFETIME,
                auth_time=consent.auth_time,
                session=consent.session,
                context=consent.context,
                nonce=data.get("nonce"),
            ),
            keep_until=now + _REPLAY_MEMORY,
        )

    def query_authorization_code(self, code: str, client: Client) -> AuthorizationCode | None:
        found = self.server.service.store.code(digest(code))
        if found is None or found.client_id != client.client_id:
            return None
        if found.used:
            self._revoke(found)  # somebody else has a copy of the code (RFC 6749 section 4.1.2)
            return None
        return found if self.server.service.clock() < found.expires else None

    def authenticate_user(self, authorization_code: AuthorizationCode) -> User | None:
        user = self.server.service.store.user(authorization_code.user)
        return user if user is not None and user.active else None

    def create_token_response(self) -> tuple[int, dict, list]:
        code = self.request.authorization_code
        if not self.server.service.store.use_code(code.digest):
            self._revoke(code)
            raise InvalidGrantError("The code was used before.")
        return super().create_token_response()

    def generate_token(self, user: User | None = None, scope: str | None = None, **_: Any) -> dict:
        code, service = self.request.authorization_code, self.server.service
        assert user is not None  # noqa: S101 (authlib has looked it up)
        granted = scope or ""
        grant = Grant(
            id=code.grant,
            subject=user.subject,
            client_id=self.request.client.client_id,
            scope=granted,
            created=service.clock().replace(microsecond=0),
            expires=end_of_grant(service, granted, code.auth_time),
            context=code.context,
            session=code.session,
            auth_time=code.auth_time,
        )
        if not service.store.add_grant(grant):
            raise InvalidGrantError("The code was used before.")
        return token_answer(service, grant, granted)

    def save_token(self, token: dict) -> None:
        """Nothing: a token is recorded, by its grant, where it is made."""

    def delete_authorization_code(self, authorization_code: AuthorizationCode) -> None:
        """Nothing: a used code is kept a while, so that its second use is noticed."""

    def _revoke(self, code: AuthorizationCode) -> None:
        service = self.server.service
        service.store.revoke_grant(code.grant, service.clock() + _REPLAY_MEMORY)


class SmartAuthorizationRequest:
    """What SMART asks of an authorization request: an `aud` that is our FHIR base, and a `launch` we know."""

    def __init__(self, service: AuthService) -> None:
        self._service = service

    def __call__(self, grant: AuthorizationCodeGrant) -> None:
        grant.register_hook("after_validate_authorization_request_payload", self.validate)

    def validate(self, grant: AuthorizationCodeGrant, _redirect_uri: str) -> None:
        data = grant.request.payload.data
        aud = data.get("aud") or data.get("resource") or ""
        if aud.removesuffix("/") != self._service.fhir_base:
            raise InvalidRequestError("The aud is not the FHIR base URL of this server.")
        asked = "launch" in scopes.words(grant.request.payload.scope or "")
        value = data.get("launch")
        if asked != bool(value):
            raise InvalidRequestError("The scope launch and a launch go together.")
        if value:
            user = grant.request.user
            grant.request.launch = launch.find(self._service, value, grant.request.client.client_id, user)
            if grant.request.launch is None:
                raise InvalidRequestError("The launch is not known here, was used, or is another user's.")


class S256CodeChallenge(CodeChallenge):
    """PKCE (RFC 7636) as SMART wants it: always, and S256 only."""

    SUPPORTED_CODE_CHALLENGE_METHOD = ("S256",)

    def validate_code_challenge(self, grant: AuthorizationCodeGrant, redirect_uri: str) -> None:
        data = grant.request.payload.data
        if not data.get("code_challenge") or data.get("code_challenge_method") != "S256":
            raise InvalidRequestError("A code_challenge with code_challenge_method S256 is needed.")
        super().validate_code_challenge(grant, redirect_uri)


class IdToken(OpenIDCode):
    """OpenID Connect: an id_token for who asks `openid`, saying who the user is in FHIR for who asks `fhirUser`."""

    def __init__(self, server: "Server") -> None:
        super().__init__(require_nonce=False)
        self._service = server.service

    def exists_nonce(self, nonce: str, request: OAuth2Request) -> bool:  # noqa: ARG002 (authlib's signature)
        return False  # a nonce is for the client to check; a code works once here

    def resolve_client_private_key(self, client: Client) -> Key:  # noqa: ARG002
        return self._service.keys.signing_key()

    def get_client_algorithm(self, client: Client) -> str:  # noqa: ARG002
        return ALGORITHM

    def get_encode_header(self, client: Client) -> dict:  # noqa: ARG002
        return {"alg": ALGORITHM, "kid": self._service.keys.signing_key().kid}

    def get_client_claims(self, client: Client) -> dict:
        now = int(self._service.clock().timestamp())
        lifetime = int(tokens.LIFETIME.total_seconds())
        return {"iss": self._service.fhir_base, "aud": client.client_id, "iat": now, "exp": now + lifetime}

    def generate_user_info(self, user: User, scope: str) -> dict:
        info = {"sub": user.subject}
        if user.fhir_user is not None:
            members = {"fhirUser": "fhirUser", "profile": "profile"}  # SMART 1.0 called it profile
            address = f"{self._service.fhir_base}/{user.fhir_user}"
            info |= {name: address for word, name in members.items() if word in scope.split()}
        return info


class ClientCredentialsGrant(_ClientCredentialsGrant):
    """SMART backend services: `system/` scopes for a client that proves itself with its private key."""

    TOKEN_ENDPOINT_AUTH_METHODS = ("private_key_jwt",)
    server: "Server"

    def validate_token_request(self) -> None:
        super().validate_token_request()
        scope = self.request.client.get_allowed_scope(self.request.payload.scope)
        if scope is None:
            raise InvalidScopeError("None of these scopes is registered for this client.")
        self.request.scope = scope

    def generate_token(self, **_: Any) -> dict:
        client = self.request.client
        lifetime = tokens.LIFETIME_CLIENT_CREDENTIALS
        token = self.server.service.issuer.issue(client.subject, client.client_id, self.request.scope, lifetime)
        return {
            "access_token": token,
            "token_type": "Bearer",
            "expires_in": int(lifetime.total_seconds()),
            "scope": self.request.scope,
        }

    def save_token(self, token: dict) -> None:
        """Nothing: a token is recorded, by its grant, where it is made."""
