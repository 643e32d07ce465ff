"""The values this package passes around. Times are aware UTC; references are relative (`Organization/o1`)."""

import hmac
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256

from authlib.oauth2.rfc6749 import AuthorizationCodeMixin, ClientMixin

from smart_auth import scopes

ROLES = frozenset({"front-desk", "radiologist", "manager", "referrer", "admin", "auditor"})
_APP_GRANTS = ("authorization_code", "refresh_token")
NO_PASSWORD = "-"  # noqa: S105 - no hash of any password: who comes from elsewhere logs in there
STAFF = ROLES - {"referrer"}
CLIENT_TYPES = {  # type -> how it authenticates at the token endpoint, and the grants it may use
    "public": ("none", _APP_GRANTS),
    "confidential-symmetric": ("client_secret_basic", _APP_GRANTS),
    "confidential-asymmetric": ("private_key_jwt", _APP_GRANTS),
    "backend": ("private_key_jwt", ("client_credentials",)),
}


def digest(secret: str) -> str:
    """What we store of a random secret. SHA-256 suffices: ours hold 256 random bits, nobody guesses them."""
    return sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True)
class User:
    """A person who logs in. `fhir_user` is the Practitioner, PractitionerRole, Patient ... they are."""

    name: str
    password_hash: str = field(repr=False)
    roles: frozenset[str] = frozenset()
    organization: str | None = None
    fhir_user: str | None = None
    email: str | None = None
    active: bool = True

    @property
    def subject(self) -> str:
        return f"user:{self.name}"

    @property
    def is_staff(self) -> bool:
        """Whether they work for the practice, and so see more than an office or a patient."""
        return bool(self.roles & STAFF)


@dataclass(frozen=True, slots=True)
class Client(ClientMixin):
    """A registered program. `practice`: it sees all, as the practice's own staff do. `self_registered`: no person of
    the practice registered it."""

    client_id: str
    type: str
    name: str
    scope: str = ""
    redirect_uris: tuple[str, ...] = ()
    launch_uris: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    jwks: dict | None = None
    jwks_uri: str | None = None
    organization: str | None = None
    practice: bool = False
    secret_digest: str | None = field(default=None, repr=False)
    active: bool = True
    self_registered: bool = False

    @property
    def subject(self) -> str:
        return f"client:{self.client_id}"

    # What authlib asks of a client (authlib.oauth2.rfc6749.ClientMixin)

    def get_client_id(self) -> str:
        return self.client_id

    def get_default_redirect_uri(self) -> str | None:
        return None  # SMART: redirect_uri is always sent, so there is nothing to fall back to

    def get_allowed_scope(self, scope: str | None) -> str | None:
        """The part of the request this client is registered for; None when nothing is left (invalid_scope)."""
        granted = scopes.restrict(scopes.parse(scope or ""), scopes.parse(self.scope))
        return scopes.text(granted) or None

    def check_redirect_uri(self, redirect_uri: str) -> bool:
        return redirect_uri in self.redirect_uris

    def check_client_secret(self, client_secret: str) -> bool:
        return self.secret_digest is not None and hmac.compare_digest(self.secret_digest, digest(client_secret))

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:  # noqa: ARG002 (authlib's signature)
        return CLIENT_TYPES[self.type][0] == method

    def check_response_type(self, response_type: str) -> bool:
        return response_type == "code" and self.check_grant_type("authorization_code")

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type in CLIENT_TYPES[self.type][1]


@dataclass(frozen=True, slots=True)
class Context:
    """What an app was launched with. https://hl7.org/fhir/smart-app-launch/scopes-and-launch-context.html

    fhir_context: references such as `ServiceRequest/12`, in the order they matter. intent: of `launch.INTENTS`.
    banner: whether the app must show who the patient is; None when nothing is said of it. tenant: the id of the
    office whose user launches it.
    """

    patient: str | None = None
    encounter: str | None = None
    fhir_context: tuple[str, ...] = ()
    intent: str | None = None
    banner: bool | None = None
    tenant: str | None = None


NO_CONTEXT = Context()


@dataclass(frozen=True, slots=True)
class Launch:
    """A launch of one app by one user, known by the digest of its opaque value; good once."""

    digest: str
    user: str
    client_id: str
    context: Context
    expires: datetime
    used: bool = False


@dataclass(frozen=True, slots=True)
class AuthorizationCode(AuthorizationCodeMixin):
    """One authorization code, known by its digest, and all it is bound to."""

    digest: str
    grant: str
    client_id: str
    user: str
    redirect_uri: str
    scope: str
    code_challenge: str
    expires: datetime
    auth_time: datetime
    session: str
    context: Context = NO_CONTEXT
    nonce: str | None = None
    used: bool = False
    code_challenge_method: str = "S256"

    # What authlib asks of a code (rfc6749 and OpenID Connect)

    def get_redirect_uri(self) -> str:
        return self.redirect_uri

    def get_scope(self) -> str:
        return self.scope

    def get_nonce(self) -> str | None:
        return self.nonce

    def get_auth_time(self) -> int:
        return int(self.auth_time.timestamp())

    def get_acr(self) -> None:
        return None

    def get_amr(self) -> None:
        return None


@dataclass(frozen=True, slots=True)
class Grant:
    """What was granted to a client, by a user or by registration. A token lives only while its grant does.

    session: the digest of the log-in that a grant with `online_access` ends with. auth_time: when the user logged in.
    """

    id: str
    subject: str
    client_id: str | None
    scope: str
    created: datetime
    expires: datetime
    context: Context = NO_CONTEXT
    session: str | None = None
    auth_time: datetime | None = None
    revoked: bool = False


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """One refresh token, known by its digest. Each is used once and followed by another of the same grant."""

    digest: str
    grant: str
    client_id: str
    expires: datetime
    used: datetime | None = None


@dataclass(frozen=True, slots=True)
class SecondFactor:
    """What proves that a user has their phone. recovery: digests of codes; last: the time step of the newest code."""

    user: str
    secret: str = field(repr=False)
    recovery: tuple[str, ...]
    last: int


@dataclass(frozen=True, slots=True)
class Passkey:
    """A security key or passkey of a user, known by its credential id. name: by which the user knows it."""

    id: str
    user: str
    public_key: bytes = field(repr=False)
    sign_count: int
    name: str
    added: datetime
    used: datetime | None = None


@dataclass(frozen=True, slots=True)
class Challenge:
    """What a security key shall sign, known by its digest; good once. purpose: of passkeys.ADD and LOG_IN."""

    digest: str
    user: str
    purpose: str
    expires: datetime


@dataclass(frozen=True, slots=True)
class Pending:
    """A log-in whose password was right, and that waits for a code. secret: of an app that is being set up."""

    digest: str
    user: str
    wanted: str
    secret: str | None = field(repr=False)
    expires: datetime


@dataclass(frozen=True, slots=True)
class Reset:
    """A link by which a user chooses a new password, known by the digest of its value; good once."""

    digest: str
    user: str
    expires: datetime


@dataclass(frozen=True, slots=True)
class Ticket:
    """An initial access token of a program that registers itself, known by its digest; good once."""

    digest: str
    expires: datetime


@dataclass(frozen=True, slots=True)
class Journey:
    """A browser sent to another server, known by the digest of its `state`. browser: the digest of its cookie."""

    digest: str
    server: str
    browser: str
    verifier: str = field(repr=False)
    nonce: str
    redirect_uri: str
    wanted: str
    expires: datetime


@dataclass(frozen=True, slots=True)
class EhrVisit:
    """An app of ours opened inside an EHR, known by the grant of the token that its page has here.

    token: the EHR's own, which never leaves this server. patient, references: of its launch context, in its names.
    """

    grant: str
    server: str
    token: str = field(repr=False)
    scope: str
    patient: str | None
    references: tuple[str, ...]
    banner: bool
    style: str | None
    expires: datetime


@dataclass(frozen=True, slots=True)
class Session:
    """A browser's log-in. `digest` is that of the cookie; `csrf` is what its forms must carry."""

    digest: str
    user: str
    csrf: str = field(repr=False)
    created: datetime
    last_seen: datetime
    expires: datetime
