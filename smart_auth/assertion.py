"""Client authentication by a signed assertion. RFC 7523; SMART 2.2, client-confidential-asymmetric."""

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from authlib.oauth2.rfc6749 import InvalidClientError
from authlib.oauth2.rfc7523 import JWTBearerClientAssertion
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import Key
from joserfc.jws import JWSRegistry

from smart_auth.jwks import JwksUnavailable
from smart_auth.models import Client, digest

if TYPE_CHECKING:
    from smart_auth.service import AuthService

ALGORITHMS = ("RS384", "ES384")
_LIFETIME_S = 300
_SKEW_S = 30  # a client's clock may run ahead of ours by so much
_REGISTRY = JWSRegistry(algorithms=ALGORITHMS, strict_check_header=False)  # EHRs send headers of their own


class PrivateKeyJwt(JWTBearerClientAssertion):
    """Client authentication by a signed assertion (RFC 7523, SMART client-confidential-asymmetric)."""

    CLIENT_AUTH_METHOD = "private_key_jwt"

    def __init__(self, service: "AuthService") -> None:
        super().__init__()
        self._service = service

    def get_audiences(self) -> list[str]:
        return [self._service.token_endpoint]

    def extract_assertion(self, assertion: str) -> tuple[dict, dict]:
        try:
            header, claims = super().extract_assertion(assertion)
        except (InvalidClientError, JoseError, ValueError, TypeError, RecursionError):
            raise InvalidClientError("The client_assertion is no JWT.") from None
        return header, claims

    def resolve_client_public_key(self, client: Client) -> Any:
        """A function from the assertion's header to the key, so that an unknown kid can be looked for once more."""

        def find(assertion: Any) -> Key:
            header = assertion.headers()
            if header.get("jku") is not None and header["jku"] != client.jwks_uri:
                raise InvalidClientError("The jku is not the registered JWKS address.")
            try:
                key = self._service.client_keys.find(client, header.get("kid"))
            except JwksUnavailable as trouble:
                raise InvalidClientError(str(trouble).replace('"', "'")) from None
            if key is None:
                raise InvalidClientError("The client has no key of this kid.")
            return key

        return find

    def process_assertion_claims(self, assertion: str, resolve_key: Any) -> dict:
        try:
            token = jwt.decode(assertion, resolve_key, registry=_REGISTRY)
        except (JoseError, ValueError, TypeError, RecursionError):
            # TypeError: a key of the wrong kind for the algorithm that the header names
            raise InvalidClientError("The client_assertion is not signed with a key of this client.") from None
        self.verify_claims(token.claims)
        return token.claims

    def verify_claims(self, claims: dict) -> None:
        now = int(self._service.clock().timestamp())
        registry = jwt.JWTClaimsRegistry(
            now=now,
            iss={"essential": True},
            sub={"essential": True},
            aud={"essential": True, "values": self.get_audiences()},
            exp={"essential": True},
            jti={"essential": True},
        )
        try:
            registry.validate({name: value for name, value in claims.items() if name not in ("iat", "nbf")})
            jwt.JWTClaimsRegistry(now=now, leeway=_SKEW_S).validate(claims)
        except JoseError as error:
            raise InvalidClientError(_REFUSALS.get(type(error).__name__, _REFUSALS[""])) from None
        if claims["iss"] != claims["sub"]:
            raise InvalidClientError("The iss and sub of the client_assertion differ.")
        if not claims["exp"] <= now + _LIFETIME_S + _SKEW_S:
            raise InvalidClientError("The client_assertion lives longer than five minutes.")
        if not self.validate_jti(claims, claims["jti"]):
            raise InvalidClientError("The client_assertion was used before.")

    def validate_jti(self, claims: dict, jti: str) -> bool:
        # Kept past exp by more than clocks in a cluster differ, as the assertion itself is good until exp.
        forget = self._service.clock() + timedelta(seconds=_LIFETIME_S + 2 * _SKEW_S)
        return self._service.store.use_jti(claims["iss"], digest(jti), forget)


_REFUSALS = {
    "ExpiredTokenError": "The client_assertion has expired.",
    "MissingClaimError": "The client_assertion lacks one of iss, sub, aud, exp, jti.",
    "": "A claim of the client_assertion is not as it must be: aud is the token endpoint, exp a number.",
}
