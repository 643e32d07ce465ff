"""Authorization code flow as a client: with state, nonce and PKCE, bound to the browser that began it.

SMART App Launch 2.2 section "app launch"; OpenID Connect Core section 3.1.
"""

import base64
import hmac
from dataclasses import dataclass
from datetime import timedelta
from secrets import token_urlsafe
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from authlib.oauth2.rfc7636 import create_s256_code_challenge
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from smart_auth.models import Journey, digest
from smart_auth.outside.calls import NoAnswer, post_form
from smart_auth.outside.discovery import Discovery, Endpoints
from smart_auth.outside.servers import Server, Servers
from smart_auth.service import AuthService

LASTS = timedelta(minutes=10)
_ASSERTION = timedelta(minutes=4)
_ALGORITHMS = ["RS256", "RS384", "ES256", "ES384"]
_LEEWAY_S = 60


class Refused(Exception):
    """The other server, or what it sent, lets nobody in. The text is for the person who sees it."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """Who came from another server. subject: their `sub` there; answer: of the token endpoint, as it came."""

    server: Server
    subject: str
    claims: dict[str, Any]
    answer: dict[str, Any]
    wanted: str


@dataclass(frozen=True, slots=True)
class Flow:
    """Begins and ends journeys to other servers and back."""

    service: AuthService
    servers: Servers
    discovery: Discovery

    def begin(
        self, server: Server, redirect_uri: str, *, launch: str | None = None, wanted: str = "/"
    ) -> tuple[str, str]:
        """The address to send the browser to, and the value of the cookie that binds it. Raises NoAnswer."""
        endpoints = self.discovery.endpoints(server)
        state, nonce, verifier, browser = (token_urlsafe(32) for _ in range(4))
        expires = self.service.clock() + LASTS
        journey = Journey(digest(state), server.name, digest(browser), verifier, nonce, redirect_uri, wanted, expires)
        self.service.store.add_journey(journey)
        asked = {
            "response_type": "code",
            "client_id": server.client_id,
            "redirect_uri": redirect_uri,
            "scope": server.scope,
            "state": state,
            "nonce": nonce,
            "code_challenge": create_s256_code_challenge(verifier),
            "code_challenge_method": "S256",
            "aud": server.issuer,  # SMART asks for it; to an OpenID provider it means nothing
        }
        if launch:
            asked["launch"] = launch
        joint = "&" if urlsplit(endpoints.authorization).query else "?"
        return f"{endpoints.authorization}{joint}{urlencode(asked)}", browser

    def finish(self, state: str, code: str, browser: str) -> Arrival:
        """Who it is that came back. Each state is good once. Raises Refused, NoAnswer."""
        journey = self.service.store.take_journey(digest(state)) if 0 < len(state) <= 200 else None
        if journey is None or journey.expires <= self.service.clock():
            raise Refused("This way in was used before or has run out.")
        if not hmac.compare_digest(journey.browser, digest(browser)):
            raise Refused("This way in was begun in another browser.")
        server = self.servers.get(journey.server)
        if server is None:
            raise Refused("The server you come from is not set up here any more.")
        endpoints = self.discovery.endpoints(server)
        answer = self._exchange(server, endpoints, journey, code)
        claims = self._claims(server, endpoints, answer, journey.nonce)
        return Arrival(server, claims["sub"], claims, answer, journey.wanted)

    def _exchange(self, server: Server, endpoints: Endpoints, journey: Journey, code: str) -> dict[str, Any]:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": journey.redirect_uri,
            "code_verifier": journey.verifier,
        }
        more, headers = self._authentication(server, endpoints.token)
        answer = post_form(endpoints.token, form | more, headers)
        if not isinstance(answer, dict) or not isinstance(answer.get("access_token"), str):
            raise NoAnswer("its answer has no access token")
        if str(answer.get("token_type", "")).lower() != "bearer":
            raise NoAnswer("its token is of an unknown type")
        return answer

    def _authentication(self, server: Server, token_endpoint: str) -> tuple[dict[str, str], dict[str, str]]:
        """As registered there: parameters of the form and headers."""
        if server.secret is not None:
            pair = f"{quote(server.client_id, safe='')}:{quote(server.secret, safe='')}"
            return {}, {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
        if server.key is None:
            return {"client_id": server.client_id}, {}
        now = int(self.service.clock().timestamp())
        claims = {
            "iss": server.client_id,
            "sub": server.client_id,
            "aud": token_endpoint,
            "iat": now,
            "exp": now + int(_ASSERTION.total_seconds()),
            "jti": token_urlsafe(24),
        }
        algorithm = "RS384" if server.key.key_type == "RSA" else "ES384"
        header = {"alg": algorithm, "kid": server.key.kid, "typ": "JWT"}
        return {
            "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            "client_assertion": jwt.encode(header, claims, server.key, algorithms=[algorithm]),
        }, {}

    def _claims(self, server: Server, endpoints: Endpoints, answer: dict[str, Any], nonce: str) -> dict[str, Any]:
        """Those of a good id_token. Raises Refused."""
        token = answer.get("id_token")
        if not isinstance(token, str) or not endpoints.issuer:
            raise Refused(f"{server.title} does not say who you are.")
        try:
            decoded = self._decode(server, token)
            claims = CodeIDToken(
                decoded.claims,
                decoded.header,
                options={"iss": {"values": [endpoints.issuer]}, "aud": {"values": [server.client_id]}},
                params={"nonce": nonce, "client_id": server.client_id},
            )
            claims.validate(now=int(self.service.clock().timestamp()), leeway=_LEEWAY_S)
        except (JoseError, ValueError, TypeError, KeyError) as error:
            raise Refused(f"What {server.title} says of you cannot be trusted ({type(error).__name__}).") from None
        subject = claims.get("sub")
        if not isinstance(subject, str) or not 0 < len(subject) <= 255:
            raise Refused(f"{server.title} does not say who you are.")
        return dict(claims)

    def _decode(self, server: Server, token: str) -> Any:
        keys = self.discovery.keys(server)
        try:
            return jwt.decode(token, keys, algorithms=_ALGORITHMS)
        except (JoseError, ValueError):
            return jwt.decode(token, self._renewed(server, keys), algorithms=_ALGORITHMS)

    def _renewed(self, server: Server, kept: KeySet) -> KeySet:
        """The keys as they are now; the other server may have a new one since."""
        renewed = self.discovery.keys(server, anew=True)
        return renewed if renewed.keys else kept
