"""Every setting of a Radloop server, read once from `RADLOOP_*`, as one typed value. Each has its paragraph in
docs/operations.md."""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import marshmallow
from marshmallow import validate
from marshmallow.fields import Boolean, Field, Float, Integer, String

from smart_auth.registration import MODES, OFF
from subscriptions.smtp import SECURITIES

PREFIX = "RADLOOP_"
NOT_SETTINGS = {"RADLOOP_TEST_MONGODB_URI", "RADLOOP_LOG_LEVEL"}  # read by the tests alone; before the settings


class BadSettings(ValueError):
    """Settings that a server cannot start with; the message names each."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of one server; the defaults are those of one machine."""

    host: str = "127.0.0.1"
    port: int = 8080
    live_port: int = 8081
    data_dir: str = ".data"
    blobs: str = ""  # s3://bucket/prefix; empty: the folder `blobs` below data_dir
    disk_reserve_mb: int = 1024  # of the disk of data_dir, which no image takes
    quota_mb: int = 0  # that all images together may take; 0: what the disk has
    public_url: str = ""  # empty: http://host:port
    public_live_url: str = ""  # empty: ws://host:live_port
    proxies: int = 0  # of ours before the web server; each adds the address it was called from to X-Forwarded-For
    mongodb_uri: str = ""  # empty: an embedded mongod below data_dir
    mongodb_database: str = "radloop"
    mongodb_port: int = 0  # of the embedded mongod; 0: a free one
    mongodb_cache_gb: float = 0.5
    web_workers: int = 2
    web_threads: int = 16
    pixel_processes: int = 1  # in each web worker
    outgoing_allow: tuple[str, ...] = ()
    max_body_mb: int = 2048
    max_file_mb: int = 256  # of a photo, PDF or film that people add to a referral
    conditional_delete_limit: int = 1
    practice_organization: str = "Organization/practice"
    practice_phone: str = ""
    practice_time_zone: str = "UTC"
    noshow_grace_minutes: int = 15
    noshow_correction_minutes: int = 30
    hold_minutes: int = 10
    outside_servers: str = ""  # file that lists the EHRs and OpenID providers we are a client of
    second_factor_required: bool = False  # of the practice's staff, at their log-in
    client_registration: str = OFF  # of programs by themselves (RFC 7591)
    smart_imaging_access: bool = False  # tell apps of this draft
    event_retention_days: int = 30
    smtp_host: str = ""  # empty: mail stays in the outbox
    smtp_port: int = 587
    smtp_security: str = "starttls"
    smtp_user: str = ""
    smtp_password_file: str = ""
    smtp_from: str = ""
    fax_gateway_url: str = ""  # empty: faxes stay in the outbox
    fax_gateway_token_file: str = ""
    demo: bool = False
    open: bool = False

    @property
    def origin(self) -> str:
        """The public address, without a slash at its end."""
        return self.public_url.rstrip("/") or f"http://{self.host}:{self.port}"

    @property
    def fhir_base(self) -> str:
        """FHIR base, OAuth issuer and audience: one string."""
        return f"{self.origin}/fhir"

    @property
    def dicomweb_base(self) -> str:
        return f"{self.origin}/dicomweb"

    @property
    def live_url(self) -> str:
        """The public address of the live process, without a slash at its end."""
        return self.public_live_url.rstrip("/") or f"ws://{self.host}:{self.live_port}"

    @property
    def allowed_outgoing(self) -> tuple[str, ...]:
        """Private hosts that outgoing calls may reach; the demonstration listens on this machine."""
        return self.outgoing_allow or (("127.0.0.1",) if self.demo else ())

    @property
    def time_zone(self) -> ZoneInfo:
        return ZoneInfo(self.practice_time_zone)

    @property
    def data_path(self) -> Path:
        return Path(self.data_dir).expanduser().resolve()

    @classmethod
    def from_env(cls, environ: Mapping[str, str], **overrides: Any) -> "Settings":
        """Parse `RADLOOP_*`; `overrides` (command-line flags that are not None) win. Raises BadSettings."""
        known = {variable(field.name) for field in fields(cls)}
        unknown = [name for name in environ if name.startswith(PREFIX) and name not in known | NOT_SETTINGS]
        if unknown:
            raise BadSettings("; ".join(f"{name}: there is no such setting" for name in sorted(unknown)))
        given: dict[str, Any] = {
            field.name: environ[name] for field in fields(cls) if environ.get(name := variable(field.name))
        }
        given |= {name: value for name, value in overrides.items() if value is not None}
        try:
            values = _Schema().load(given)
        except marshmallow.ValidationError as error:
            faults = [
                f"{variable(name)}: {' '.join(map(str, said))}" for name, said in error.normalized_messages().items()
            ]
            raise BadSettings("; ".join(faults)) from None
        return cls(**values)

    def to_env(self) -> dict[str, str]:
        """The variables that give these settings to another process of this server."""
        return {variable(field.name): _text(getattr(self, field.name)) for field in fields(self)}


def variable(name: str) -> str:
    """`port` -> `RADLOOP_PORT`"""
    return PREFIX + name.upper()


def _text(value: object) -> str:
    return (
        ",".join(value) if isinstance(value, tuple) else str(value).lower() if isinstance(value, bool) else str(value)
    )


class _List(Field):
    """Items separated by commas or spaces, as a tuple."""

    def _deserialize(self, value: Any, *_args: Any, **_kwargs: Any) -> tuple[str, ...]:
        return tuple(value.replace(",", " ").split()) if isinstance(value, str) else tuple(value)


def _url(*schemes: str) -> Any:
    def check(value: str) -> None:
        parts = urlsplit(value)
        if value and (parts.scheme not in schemes or not parts.hostname or parts.query or parts.fragment):
            raise marshmallow.ValidationError(f"{value!r} is no address that begins with {' or '.join(schemes)}://")

    return check


def _time_zone(value: str) -> None:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError):
        raise marshmallow.ValidationError(f"{value!r} is no time zone such as Europe/Zurich") from None


_PORT = validate.Range(1, 65535, error="{input} is no port (1 to 65535)")
_BUCKET = r"$|s3://[a-z0-9][a-z0-9.\-]{1,61}[a-z0-9](/[A-Za-z0-9._\-]{1,100}){0,8}/?$"
_MINUTES = validate.Range(1, 7 * 24 * 60)


class _Schema(marshmallow.Schema):
    host = String(validate=validate.Length(min=1))
    port = Integer(validate=_PORT)
    live_port = Integer(validate=_PORT)
    data_dir = String(validate=validate.Length(min=1))
    blobs = String(validate=validate.Regexp(_BUCKET, error="{input} is no address such as s3://bucket/prefix"))
    disk_reserve_mb = Integer(validate=validate.Range(0, 2**24))
    quota_mb = Integer(validate=validate.Range(0, 2**30))
    public_url = String(validate=_url("http", "https"))
    public_live_url = String(validate=_url("ws", "wss"))
    proxies = Integer(validate=validate.Range(0, 10))
    mongodb_uri = String(validate=validate.Regexp(r"mongodb(\+srv)?://", error="does not begin with mongodb://"))
    mongodb_database = String(validate=validate.Regexp(r"[A-Za-z0-9_-]{1,38}$"))
    mongodb_port = Integer(validate=validate.Range(0, 65535))
    mongodb_cache_gb = Float(validate=validate.Range(0.25, 1024))
    web_workers = Integer(validate=validate.Range(1, 64))
    web_threads = Integer(validate=validate.Range(1, 256))
    pixel_processes = Integer(validate=validate.Range(1, 64))
    outgoing_allow = _List()
    max_body_mb = Integer(validate=validate.Range(1, 65536))
    max_file_mb = Integer(validate=validate.Range(1, 4096))
    conditional_delete_limit = Integer(validate=validate.Range(1, 999))
    practice_organization = String(validate=validate.Regexp(r"Organization/[A-Za-z0-9\-.]{1,64}$"))
    practice_phone = String(validate=validate.Length(max=40))
    practice_time_zone = String(validate=_time_zone)
    noshow_grace_minutes = Integer(validate=_MINUTES)
    noshow_correction_minutes = Integer(validate=_MINUTES)
    hold_minutes = Integer(validate=_MINUTES)
    outside_servers = String()
    second_factor_required = Boolean()
    client_registration = String(validate=validate.OneOf(MODES))
    smart_imaging_access = Boolean()
    event_retention_days = Integer(validate=validate.Range(8, 3650))  # an endpoint is tried for seven days
    smtp_host = String(validate=validate.Regexp(r"[A-Za-z0-9.:\-]{0,253}$"))
    smtp_port = Integer(validate=_PORT)
    smtp_security = String(validate=validate.OneOf(SECURITIES))
    smtp_user = String(validate=validate.Length(max=200))
    smtp_password_file = String()
    smtp_from = String(validate=validate.Regexp(r"$|[A-Za-z0-9._+\-]{1,64}@[A-Za-z0-9.\-]{1,253}$"))
    fax_gateway_url = String(validate=_url("http", "https"))
    fax_gateway_token_file = String()
    demo = Boolean()
    open = Boolean()

    @marshmallow.validates_schema
    def _fit_together(self, data: dict, **_kwargs: Any) -> None:
        settings = Settings(**data)
        if settings.port == settings.live_port:
            raise marshmallow.ValidationError("is the port of the web server already", "live_port")
        if settings.blobs and find_spec("s3fs") is None:
            raise marshmallow.ValidationError("needs what `pip install radloop[s3]` installs", "blobs")
        if settings.smtp_host and not settings.smtp_from:
            raise marshmallow.ValidationError("is needed with a mail server: whom mail comes from", "smtp_from")
        if settings.fax_gateway_token_file and not Path(settings.fax_gateway_token_file).is_file():
            raise marshmallow.ValidationError("is no file", "fax_gateway_token_file")
        if settings.smtp_user and not Path(settings.smtp_password_file).is_file():
            raise marshmallow.ValidationError("is needed with a user, and is no file", "smtp_password_file")
        if settings.smtp_user and settings.smtp_security == "none" and not _is_loopback(settings.smtp_host):
            raise marshmallow.ValidationError("would send the password in the open", "smtp_security")
        if (settings.open or settings.demo) and not _is_loopback(settings.host):
            name = "open" if settings.open else "demo"
            raise marshmallow.ValidationError(f"is for loopback only, and the host is {settings.host}", name)
        public = urlsplit(settings.public_url)
        reached = not _is_loopback(settings.host) or (public.hostname and not _is_loopback(public.hostname))
        if reached and public.scheme != "https":
            # https://hl7.org/fhir/R4/security.html#http: tokens and patients' data never go in the clear.
            raise marshmallow.ValidationError(
                "begins with https:// where others than this machine reach it", "public_url"
            )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
