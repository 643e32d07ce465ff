"""authlib's authorization server, configured: which grants, which client authentication, which errors."""

import base64
import binascii
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import unquote

from authlib.integrations.flask_oauth2 import AuthorizationServer
from authlib.oauth2 import OAuth2Error
from authlib.oauth2.rfc6749 import (
    InvalidClientError,
    InvalidRequestError,
    OAuth2Payload,
    OAuth2Request,
    UnsupportedResponseTypeError,
)
from flask import Response
from flask import g as flask_context
from flask import request as flask_request
from werkzeug.datastructures import Headers, MultiDict

from smart_auth.assertion import PrivateKeyJwt
from smart_auth.clients import CLIENT_ID
from smart_auth.endpoints import Introspection, Revocation
from smart_auth.grants import (
    AuthorizationCodeGrant,
    ClientCredentialsGrant,
    IdToken,
    S256CodeChallenge,
    SmartAuthorizationRequest,
)
from smart_auth.models import Client, Context, Launch, User
from smart_auth.refresh import RefreshTokenGrant
from smart_auth.service import AuthService

# authlib's grants write the tokens they issue to their logs at DEBUG.
logging.getLogger("authlib").setLevel(logging.INFO)


@dataclass(frozen=True, slots=True)
class Consent:
    """What a user agreed to: the scopes, the context they are about, and the log-in it was done in (its digest)."""

    scope: str
    context: Context
    auth_time: datetime
    session: str


class _Payload(OAuth2Payload):
    def __init__(self, values: MultiDict[str, str]) -> None:
        self._values = values

    @property
    def data(self) -> MultiDict[str, str]:
        return self._values

    @property
    def datalist(self) -> dict[str, list[str]]:
        return {name: self.data.getlist(name) for name in self.data}


class Request(OAuth2Request):
    """An OAuth request as the Flask request carries it: parameters from the query of a GET, the form of a POST."""

    consent: Consent | None = None
    launch: Launch | None = None  # of an EHR launch, once the request is validated
    grant: AuthorizationCodeGrant | None = None  # that a form of ours goes on with

    def __init__(self, method: str, headers: Headers, values: MultiDict[str, str]) -> None:
        # authlib would refuse the address of a plain http request off loopback. Behind a proxy that ends TLS each
        # request is one; which addresses are served in the clear is decided where the server is set up.
        super().__init__(method, "https://localhost/", headers=headers)
        self.payload = _Payload(values)

    @property
    def form(self) -> MultiDict[str, str]:
        return self.payload.data


class Server(AuthorizationServer):
    """One object an app."""

    def __init__(self, service: AuthService) -> None:
        super().__init__()
        self.service = service
        self.register_client_auth_method("private_key_jwt", PrivateKeyJwt(service))
        self.register_client_auth_method("client_secret_basic", authenticate_client_secret_basic)
        self.register_grant(
            AuthorizationCodeGrant,
            [SmartAuthorizationRequest(service), S256CodeChallenge(required=True), IdToken(self)],
        )
        self.register_grant(RefreshTokenGrant, [IdToken(self)])
        self.register_grant(ClientCredentialsGrant)
        self.register_endpoint(Introspection)
        self.register_endpoint(Revocation)

    def query_client(self, client_id: object) -> Client | None:
        """The active client of that id."""
        if not isinstance(client_id, str) or not CLIENT_ID.fullmatch(client_id):
            return None
        client = self.service.store.client(client_id)
        return client if client is not None and client.active else None

    def create_oauth2_request(self, request: Request | None) -> Request:
        if request is not None:
            return request
        values = flask_request.args if flask_request.method == "GET" else flask_request.form
        return Request(flask_request.method, flask_request.headers, values)

    def get_authorization_grant(self, request: Request) -> AuthorizationCodeGrant:
        # authlib quotes the response type in its error, and fails on characters that OAuth forbids there.
        if request.payload.response_type != "code":
            client = self.query_client(request.payload.client_id)
            known = client is not None and client.check_redirect_uri(request.payload.redirect_uri)
            raise UnsupportedResponseTypeError(
                None,
                description="The response_type is code.",
                redirect_uri=request.payload.redirect_uri if known else None,
            )
        return super().get_authorization_grant(request)

    def grant_authorization(self, request: Request, grant: Any, user: User | None, consent: Consent) -> Response:
        """The redirect that takes a code to the client, or access_denied when there is no user who agreed."""
        request.consent = consent
        return self.create_authorization_response(request, grant_user=user, grant=grant)

    def token_response(self) -> Response:
        """Answer a token request. https://www.rfc-editor.org/rfc/rfc6749#section-5"""
        return self._answer(self.create_token_response, needed="grant_type")

    def endpoint_response(self, name: str) -> Response:
        """Answer a request to the `introspection` or `revocation` endpoint."""
        return self._answer(lambda request: self.create_endpoint_response(name, request), needed="token")

    def _answer(self, respond: Callable[[Request], Response], needed: str) -> Response:
        request = self.create_oauth2_request(None)
        try:
            _check_parameters(request, needed)
        except OAuth2Error as error:
            return self.handle_error_response(request, error)
        response = respond(request)
        flask_context.client_id = request.client.client_id if request.client is not None else None
        return response

    def handle_error_response(self, request: Request, error: OAuth2Error) -> Response:
        status, body, headers = error()
        if isinstance(error, InvalidClientError) and not error.redirect_uri:
            status, headers = 401, [header for header in headers if header[0] != "WWW-Authenticate"]
            if request.headers.get("Authorization", "").lower().startswith("basic"):
                headers.append(("WWW-Authenticate", 'Basic realm="radloop"'))
        return self.handle_response(status, body, headers)


def _check_parameters(request: Request, needed: str) -> None:
    """RFC 6749 section 3.2: no parameter twice; section 2.3: one way of authentication a request."""
    if any(len(values) > 1 for values in request.payload.datalist.values()):
        raise InvalidRequestError("A parameter is given twice.")
    if request.headers.get("Authorization") and request.form.get("client_assertion"):
        raise InvalidRequestError("A client authenticates in one way at a time.")
    if not request.form.get(needed):
        raise InvalidRequestError(f"The {needed} is missing.")


def authenticate_client_secret_basic(
    query_client: Callable[[object], Client | None], request: Request
) -> Client | None:
    """The client of an HTTP Basic header; None when there is none or it is wrong."""
    for client_id, secret in _basic_credentials(request.headers.get("Authorization", "")):
        client = query_client(client_id)
        if client is not None and client.check_client_secret(secret):
            return client
    return None


def _basic_credentials(header: str) -> Iterator[tuple[str, str]]:
    """Id and secret as sent, then percent-decoded: RFC 6749 section 2.3.1 says encode, many clients do not."""
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return
    try:
        client_id, found, secret = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return
    if found:
        yield client_id, secret
        yield unquote(client_id), unquote(secret)
