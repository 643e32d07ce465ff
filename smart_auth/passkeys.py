"""Security keys and passkeys as second factor, beside codes. https://www.w3.org/TR/webauthn-3/

The library speaks WebAuthn; here is what a challenge is bound to, and which keys are whose. A challenge is good once,
for its user and purpose, for as long as a log-in waits.
"""

import ipaddress
import logging
from datetime import timedelta
from urllib.parse import urlsplit

import webauthn
from webauthn.helpers import base64url_to_bytes, bytes_to_base64url
from webauthn.helpers.structs import (
    AuthenticatorSelectionCriteria,
    PublicKeyCredentialDescriptor,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

from fhir_server import fhir_json
from smart_auth.models import Challenge, Passkey, User, digest
from smart_auth.service import AuthService

log = logging.getLogger(__name__)

ADD, LOG_IN = "add", "log-in"
MAX_KEYS = 10  # of a user
MAX_NAME = 50
MAX_PROOF = 20_000  # characters of what a browser sends
_LIFE = timedelta(minutes=5)
_TIMEOUT_MS = int(_LIFE.total_seconds() * 1000)


class NotTaken(Exception):
    """The key was not added; the text says why, for the user."""


def host(service: AuthService) -> str | None:
    """The host name that keys are bound to; None where there is none, as an IP address cannot be one."""
    name = urlsplit(service.origin).hostname or ""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name or None
    return None


def options_to_add(service: AuthService, user: User) -> str:
    """What the browser is asked to make a key by (JSON)."""
    challenge = _challenge(service, user.name, ADD)
    options = webauthn.generate_registration_options(
        rp_id=host(service) or "",
        rp_name="Radloop",
        user_name=user.name,
        user_id=digest(user.subject).encode()[:64],
        challenge=challenge,
        timeout=_TIMEOUT_MS,
        authenticator_selection=AuthenticatorSelectionCriteria(
            resident_key=ResidentKeyRequirement.DISCOURAGED,  # the user is known by name and password before
            user_verification=UserVerificationRequirement.DISCOURAGED,  # as is that it is them
        ),
        exclude_credentials=_descriptors(service, user),
    )
    return webauthn.options_to_json(options)


def add(service: AuthService, user: User, name: str, proof: str) -> Passkey:
    """Keep the key that the browser made. name: by which the user knows it. Raises NotTaken."""
    own = service.credentials.passkeys_of(user.name)
    if len(own) >= MAX_KEYS:
        raise NotTaken(f"You have {MAX_KEYS} keys already. Remove one first.")
    challenge = _answered(service, user.name, ADD, proof)
    try:
        if challenge is None:
            raise ValueError("the challenge is none of ours")
        found = webauthn.verify_registration_response(
            credential=proof,
            expected_challenge=challenge,
            expected_rp_id=host(service) or "",
            expected_origin=service.origin,
        )
    except Exception as fault:  # whatever way a stranger's bytes fail the library, they are no key
        log.info("a security key was refused: %s", type(fault).__name__)
        raise NotTaken("The key was not added. Try again.") from None
    shown = " ".join(name.split())[:MAX_NAME] or f"Key {len(own) + 1}"
    now = service.clock()
    key = Passkey(
        bytes_to_base64url(found.credential_id), user.name, found.credential_public_key, found.sign_count, shown, now
    )
    if not service.credentials.add_passkey(key):
        raise NotTaken("This key is in use already.")
    service.credentials.end_pendings(user.name)
    return key


def options_to_log_in(service: AuthService, user: User) -> str:
    """What the browser is asked to prove by one of the user's keys (JSON)."""
    options = webauthn.generate_authentication_options(
        rp_id=host(service) or "",
        challenge=_challenge(service, user.name, LOG_IN),
        timeout=_TIMEOUT_MS,
        allow_credentials=_descriptors(service, user),
        user_verification=UserVerificationRequirement.DISCOURAGED,
    )
    return webauthn.options_to_json(options)


def verify(service: AuthService, user: User, proof: str) -> bool:
    """Whether the browser proved that it has one of the user's keys, for a challenge that was not answered before."""
    challenge = _answered(service, user.name, LOG_IN, proof)
    if challenge is None:
        return False
    try:
        id = webauthn.helpers.parse_authentication_credential_json(proof).raw_id
        key = service.credentials.passkey(user.name, bytes_to_base64url(id))
        if key is None:
            return False
        found = webauthn.verify_authentication_response(
            credential=proof,
            expected_challenge=challenge,
            expected_rp_id=host(service) or "",
            expected_origin=service.origin,
            credential_public_key=key.public_key,
            credential_current_sign_count=key.sign_count,
        )
    except Exception as fault:  # as above
        log.info("the proof of a security key was refused: %s", type(fault).__name__)
        return False
    return service.credentials.use_passkey(key, found.new_sign_count, service.clock())


def _challenge(service: AuthService, name: str, purpose: str) -> bytes:
    value = webauthn.helpers.generate_challenge()
    digested = digest(bytes_to_base64url(value))
    service.credentials.add_challenge(Challenge(digested, name, purpose, service.clock() + _LIFE))
    return value


def _answered(service: AuthService, name: str, purpose: str, proof: str) -> bytes | None:
    """The challenge that a proof says it answers, used up by that; None when it is not of this user and purpose."""
    if not 0 < len(proof) <= MAX_PROOF:
        return None
    try:
        data = base64url_to_bytes(fhir_json.loads(proof)["response"]["clientDataJSON"])
        said = webauthn.helpers.parse_client_data_json(data).challenge
    except Exception as fault:  # as above
        log.info("the proof of a security key cannot be read: %s", type(fault).__name__)
        return None
    taken = service.credentials.take_challenge(digest(bytes_to_base64url(said)))
    good = taken is not None and (taken.user, taken.purpose) == (name, purpose) and taken.expires > service.clock()
    return said if good else None


def _descriptors(service: AuthService, user: User) -> list[PublicKeyCredentialDescriptor]:
    keys = service.credentials.passkeys_of(user.name)
    return [PublicKeyCredentialDescriptor(id=base64url_to_bytes(key.id)) for key in keys]
