"""A security key in software, and the browser that speaks to it. https://www.w3.org/TR/webauthn-3/#sctn-authenticator-data"""

import hashlib
import json
from dataclasses import dataclass, field
from secrets import token_bytes
from typing import Any

import cbor2
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from webauthn.helpers import base64url_to_bytes, bytes_to_base64url

_USER_PRESENT, _ATTESTED = 0x01, 0x40


@dataclass
class SecurityKey:
    """One key with one credential. origin: of the page it is used on, which the browser says."""

    origin: str
    id: bytes = field(default_factory=lambda: token_bytes(32))
    private: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    uses: int = 0

    def create(self, options: dict[str, Any]) -> str:
        """What navigator.credentials.create() gives, as the page sends it."""
        numbers = self.private.public_key().public_numbers()
        public = {1: 2, 3: -7, -1: 1, -2: numbers.x.to_bytes(32, "big"), -3: numbers.y.to_bytes(32, "big")}
        attested = bytes(16) + len(self.id).to_bytes(2, "big") + self.id + cbor2.dumps(public)
        data = self._data(options["rp"]["id"], _USER_PRESENT | _ATTESTED) + attested
        attestation = cbor2.dumps({"fmt": "none", "attStmt": {}, "authData": data})
        return self._credential(
            clientDataJSON=self._client_data("webauthn.create", options), attestationObject=attestation
        )

    def get(self, options: dict[str, Any], flags: int = _USER_PRESENT) -> str:
        """What navigator.credentials.get() gives."""
        self.uses += 1
        data, client_data = self._data(options["rpId"], flags), self._client_data("webauthn.get", options)
        signed = self.private.sign(data + hashlib.sha256(client_data).digest(), ec.ECDSA(hashes.SHA256()))
        return self._credential(clientDataJSON=client_data, authenticatorData=data, signature=signed)

    def _data(self, host: str, flags: int) -> bytes:
        return hashlib.sha256(host.encode()).digest() + bytes([flags]) + self.uses.to_bytes(4, "big")

    def _client_data(self, kind: str, options: dict[str, Any]) -> bytes:
        said = {"type": kind, "challenge": options["challenge"], "origin": self.origin, "crossOrigin": False}
        return json.dumps(said).encode()

    def _credential(self, **response: bytes) -> str:
        id = bytes_to_base64url(self.id)
        told = {name: bytes_to_base64url(value) for name, value in response.items()}
        return json.dumps({"id": id, "rawId": id, "type": "public-key", "response": told})


def ids_of(options: dict[str, Any], name: str) -> list[bytes]:
    """The credential ids in `allowCredentials` or `excludeCredentials`."""
    return [base64url_to_bytes(one["id"]) for one in options.get(name, [])]
