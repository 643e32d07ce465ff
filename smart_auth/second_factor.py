"""The second factor of a log-in: codes of an authenticator app (TOTP, RFC 6238) and recovery codes for its loss, or a
security key (`passkeys`)."""

import hmac
from datetime import datetime, timedelta
from secrets import choice, token_urlsafe

import pyotp
import segno

from smart_auth.models import Pending, SecondFactor, User, digest
from smart_auth.service import AuthService

PENDING = timedelta(minutes=5)  # between the password and the code
STEP_S = 30
_AROUND = (0, -1, 1)  # steps: clocks differ, and people type slowly
_FREE, _LONGEST_PAUSE, _MEMORY = 5, timedelta(minutes=15), timedelta(hours=24)
_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"  # none that looks like another
_RECOVERY_CODES = 8


def is_due(service: AuthService, user: User) -> bool:
    """Whether the password alone does not let this user in."""
    return has_one(service, user.name) or (service.second_factor_required and user.is_staff)


def has_one(service: AuthService, name: str) -> bool:
    """Whether the user has set one up, codes or a security key."""
    return service.credentials.second_factor(name) is not None or bool(service.credentials.passkeys_of(name))


def users_with_one(service: AuthService) -> frozenset[str]:
    return service.credentials.with_second_factor() | service.credentials.with_passkeys()


def forget(service: AuthService, name: str) -> bool:
    """Take all of them away, for who lost them; False when there was none."""
    keys = service.credentials.remove_passkeys(name)
    return service.credentials.end_second_factor(name) or keys > 0


def begin(service: AuthService, user: User, wanted: str, *, set_up: bool = False) -> str:
    """Remember that the password was right; the value of the cookie. wanted: where the user was going.

    Who has none sets codes up. set_up: a user who is logged in wants to, beside a security key.
    """
    value = token_urlsafe(32)
    has = service.credentials.second_factor(user.name) is not None if set_up else has_one(service, user.name)
    secret = None if has else pyotp.random_base32()
    service.credentials.add_pending(Pending(digest(value), user.name, wanted, secret, service.clock() + PENDING))
    return value


def find(service: AuthService, value: str) -> tuple[Pending, User] | None:
    """What waits for a code, with its active user; None when it has run out."""
    pending = service.credentials.pending(digest(value)) if 0 < len(value) <= 100 else None
    if pending is None or pending.expires <= service.clock():
        return None
    user = service.store.user(pending.user)
    return (pending, user) if user is not None and user.active else None


def picture(pending: Pending) -> str:
    """A QR code for the authenticator app, as SVG without scripts or references."""
    address = pyotp.TOTP(pending.secret or "").provisioning_uri(name=pending.user, issuer_name="Radloop")
    return segno.make(address, error="m").svg_inline(scale=5, border=4, light="#fff", dark="#000")


def enrol(service: AuthService, pending: Pending, code: str) -> tuple[str, ...] | None:
    """Make the secret the user's second factor, once a code proves that the app has it; the recovery codes.

    None when the code is wrong, or there were too many.
    """
    step = _step(pending.secret or "", code, service.clock()) if _may_try(service, pending.user) else None
    if step is None or pending.secret is None:
        return None
    codes = tuple(_recovery_code() for _ in range(_RECOVERY_CODES))
    service.credentials.set_second_factor(
        SecondFactor(pending.user, pending.secret, tuple(digest(code) for code in codes), step)
    )
    service.credentials.end_pendings(pending.user)
    service.store.forget_attempts(_key(pending.user))
    return codes


def verify(service: AuthService, user: User, code: str) -> bool:
    """Whether this is a code of the user's app that was not used yet, or one of the recovery codes, used up by it."""
    factor = service.credentials.second_factor(user.name)
    if factor is None or not _may_try(service, user.name):
        return False
    step = _step(factor.secret, code, service.clock())
    if step is not None:
        good = service.credentials.use_second_factor_step(user.name, step)
    else:
        good = service.credentials.use_recovery_code(user.name, digest(code.strip().upper()))
    if good:
        service.store.forget_attempts(_key(user.name))
    return good


def _step(secret: str, code: str, now: datetime) -> int | None:
    """The time step that the code is of; None when it is of none around now."""
    digits = "".join(code.split())
    if not (len(digits) == 6 and digits.isascii() and digits.isdecimal()):
        return None
    current = int(now.timestamp()) // STEP_S
    totp = pyotp.TOTP(secret)
    steps = [current + shift for shift in _AROUND]
    return next((step for step in steps if hmac.compare_digest(totp.generate_otp(step), digits)), None)


def _recovery_code() -> str:
    """Such as `K7XQ2-9MBTW`: 50 bits."""
    return "-".join("".join(choice(_LETTERS) for _ in range(5)) for _ in range(2))


def _may_try(service: AuthService, name: str) -> bool:
    return service.store.begin_attempt(_key(name), service.clock(), _FREE, _LONGEST_PAUSE, _MEMORY)


def _key(name: str) -> str:
    return f"second:{digest(name)}"
