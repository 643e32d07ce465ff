"""Refresh tokens: each works once and is followed by another; who uses an old one ends the whole grant.

https://www.rfc-editor.org/rfc/rfc6749#section-6, https://hl7.org/fhir/smart-app-launch/app-launch.html#refresh-access-token
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from authlib.oauth2.rfc6749 import InvalidGrantError, InvalidRequestError, InvalidScopeError
from authlib.oauth2.rfc6749.grants import RefreshTokenGrant as _RefreshTokenGrant

from smart_auth import scopes
from smart_auth.answer import end_of_grant, token_answer
from smart_auth.models import Client, Grant, RefreshToken, User, digest
from smart_auth.service import AuthService

if TYPE_CHECKING:
    from smart_auth.server import Server

# A client whose answer was lost, or that asks from two tabs at once, is no thief.
GRACE = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class Credential:
    """A refresh token that is ours, with the grant it belongs to."""

    token: RefreshToken
    grant: Grant

    def check_client(self, client: Client) -> bool:
        return self.token.client_id == client.client_id

    def get_scope(self) -> str:
        return self.grant.scope


class RefreshTokenGrant(_RefreshTokenGrant):
    """`grant_type=refresh_token`: a new access token, with the same patient and no more scopes than before."""

    TOKEN_ENDPOINT_AUTH_METHODS = ("private_key_jwt", "client_secret_basic", "none")
    server: "Server"

    def authenticate_token_endpoint_client(self) -> Client:
        """As at first. A public client may leave its id out, since the token is bound to it anyway."""
        form = self.request.form
        if not (form.get("client_id") or form.get("client_assertion") or self.request.headers.get("Authorization")):
            stored = self._service.store.refresh_token(digest(form.get("refresh_token") or ""))
            client = self.server.query_client(stored.client_id) if stored is not None else None
            if client is not None and client.check_endpoint_auth_method("none", "token"):
                return client
            raise InvalidGrantError("The refresh token is none of ours.")
        return super().authenticate_token_endpoint_client()

    def authenticate_refresh_token(self, refresh_token: str) -> Credential | None:
        service = self._service
        stored = service.store.refresh_token(digest(refresh_token))
        now = service.clock()
        if stored is None or stored.expires <= now:
            return None
        grant = service.store.grant(stored.grant)
        if grant is None or grant.revoked or grant.expires <= now:
            return None
        return Credential(stored, grant)

    def _validate_token_scope(self, token: Credential) -> None:
        """Less may be asked than was granted, more may not. authlib compares words; SMART's scopes have parts."""
        asked = self.request.payload.scope or ""
        if not asked:
            return
        parsed = scopes.parse(asked)
        kept = {str(item) for item in scopes.restrict(parsed, scopes.parse(token.grant.scope))}
        if len(parsed) != len(set(asked.split())) or {str(item) for item in parsed} != kept:
            raise InvalidScopeError("The scope is more than was granted.")

    def authenticate_user(self, refresh_token: Credential) -> User:
        service, grant = self._service, refresh_token.grant
        user = service.store.user(grant.subject.partition(":")[2])
        if user is None or not user.active:
            raise InvalidGrantError("The user of this grant is not active.")
        offline = "offline_access" in scopes.words(grant.scope)
        if not offline and not service.sessions.stands(grant.session or ""):
            raise InvalidGrantError("The user has logged out.")
        return user

    def issue_token(self, user: User, refresh_token: Credential) -> dict[str, Any]:  # noqa: ARG002 (authlib's signature)
        service, grant = self._service, refresh_token.grant
        self._use(refresh_token.token)
        expires = end_of_grant(service, grant.scope, grant.auth_time or grant.created)
        if not service.store.extend_grant(grant.id, expires):
            raise InvalidGrantError("The grant was revoked.")
        standing = service.store.grant(grant.id)
        if standing is None:
            raise InvalidGrantError("The grant was revoked.")
        return token_answer(service, standing, self.request.payload.scope or grant.scope)

    def _use(self, token: RefreshToken) -> None:
        service = self._service
        now = service.clock()
        if service.store.use_refresh_token(token.digest, now):
            return
        used = service.store.refresh_token(token.digest)
        if used is None or used.used is None or now - used.used > GRACE:
            service.store.revoke_grant(token.grant, token.expires)
            raise InvalidGrantError("The refresh token was used before.")

    def save_token(self, token: dict) -> None:
        """Nothing: a token is recorded, by its grant, where it is made."""

    def revoke_old_credential(self, refresh_token: Credential) -> None:
        """Nothing: it is marked as used, and kept so that its second use is noticed."""

    @property
    def _service(self) -> AuthService:
        if len(self.request.form.get("refresh_token") or "") > 200:
            raise InvalidRequestError("The refresh token is none of ours.")
        return self.server.service
