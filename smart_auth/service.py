"""All parts of the authorization server, made once a process from a database, a clock and the public address."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from pathlib import Path

from smart_auth.credentials import Credentials
from smart_auth.jwks import ClientKeys
from smart_auth.keys import KeyRing
from smart_auth.new_password import Mail, Postman
from smart_auth.outside.servers import Servers
from smart_auth.passwords import Passwords
from smart_auth.sessions import Sessions
from smart_auth.store import AuthStore, Database
from smart_auth.tokens import Issuer, TokenVerifier

STYLE = (Path(__file__).parent / "static" / "smart-style.json").read_bytes()
STYLE_VERSION = sha256(STYLE).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class AuthService:
    """What routes, guard and command line share. No address is ever taken from a request's Host header."""

    store: AuthStore
    credentials: Credentials
    clock: Callable[[], datetime]
    origin: str
    fhir_base: str
    passwords: Passwords
    keys: KeyRing
    client_keys: ClientKeys
    issuer: Issuer
    verifier: TokenVerifier
    sessions: Sessions
    outside: Servers = field(default_factory=dict)  # that we may be a client of
    second_factor_required: bool = False  # of the practice's staff; who has one always needs it
    registration: str = "off"  # of programs by themselves; of registration.MODES
    postman: Postman = field(default_factory=Postman)
    imaging_access: bool = False  # tell of SMART Imaging Access, which is a draft

    @property
    def style_url(self) -> str:
        """How our pages look, for apps opened beside them; a new address whenever it changes."""
        return f"{self.origin}/auth/smart-style.json?v={STYLE_VERSION}"

    @property
    def token_endpoint(self) -> str:
        return f"{self.origin}/auth/token"


def create_service(
    database: Database,
    clock: Callable[[], datetime],
    public_url: str,
    passwords: Passwords | None = None,
    *,
    second_factor_required: bool = False,
    outside: Servers | None = None,
    mail: Mail | None = None,
    registration: str = "off",
    imaging_access: bool = False,
) -> AuthService:
    """Put the parts together and create the indexes.

    public_url: the origin clients use, e.g. `http://127.0.0.1:8080`; `<public_url>/fhir` is issuer and audience.
    mail: how links for a new password are sent; without it nobody is offered one.
    """
    origin = public_url.rstrip("/")
    fhir_base = f"{origin}/fhir"
    store = AuthStore(database)
    store.prepare()
    credentials = Credentials(database)
    credentials.prepare()
    keys = KeyRing(store, clock)
    return AuthService(
        store=store,
        credentials=credentials,
        clock=clock,
        origin=origin,
        fhir_base=fhir_base,
        passwords=passwords or Passwords(),
        keys=keys,
        client_keys=ClientKeys(clock),
        issuer=Issuer(store, keys, fhir_base, clock),
        verifier=TokenVerifier(store, keys, fhir_base, clock),
        sessions=Sessions(store, clock, secure=origin.startswith("https://")),
        outside=outside or {},
        second_factor_required=second_factor_required,
        registration=registration,
        postman=Postman(mail),
        imaging_access=imaging_access,
    )
