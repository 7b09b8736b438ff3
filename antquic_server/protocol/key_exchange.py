"""
TLS 1.3 key shares of the groups we speak: bytes in, shares and secrets out.

=====================  ==================================  =====================================  ===============
group                  client share                        server share                           secret
=====================  ==================================  =====================================  ===============
ML-KEM-768 (0x0201)    encapsulation key, 1184 bytes       ciphertext, 1088 bytes                 32 bytes
X25519MLKEM768         encapsulation key, then X25519      ciphertext, then X25519 key: 1120      ML-KEM secret,
(0x11EC)               key: 1216 bytes                     bytes                                  then X25519's
X25519, P-256, P-384   as RFC 8446, section 4.2.8.2        likewise                               ECDH output
=====================  ==================================  =====================================  ===============

Source: draft-ietf-tls-mlkem and draft-ietf-tls-ecdhe-mlkem; both say that a share of the wrong length, an
encapsulation key that fails FIPS 203's modulus check, or an all-zero X25519 result is answered with
``illegal_parameter``, which is what the caller makes of :class:`KeyShareDecodeError`.
"""

from typing import Protocol

from cryptography.hazmat.primitives.asymmetric import ec, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from antquic_server.errors import KeyShareDecodeError
from antquic_server.protocol.codepoints import NamedGroup

ENCAPSULATION_KEY_BYTES = 1184
CIPHERTEXT_BYTES = 1088
X25519_KEY_BYTES = 32

_CURVES: dict[int, ec.EllipticCurve] = {
    NamedGroup.SECP256R1: ec.SECP256R1(),
    NamedGroup.SECP384R1: ec.SECP384R1(),
}


class KemKeyPair(Protocol):
    """An ML-KEM-768 key pair; ``close`` wipes the decapsulation key."""

    @property
    def public_key(self) -> bytes:
        """The encapsulation key, 1184 bytes."""

    def decapsulate(self, ciphertext: bytes) -> bytes:
        """Return the 32-byte secret (FIPS 203: never fails, a bad ciphertext yields an unrelated one)."""

    def close(self) -> None:
        """Wipe and give back the decapsulation key."""


class Kem(Protocol):
    """The part of a PQC provider that key exchange needs."""

    def encapsulate(self, encapsulation_key: bytes) -> tuple[bytes, bytes]:
        """Return ciphertext and secret; KeyShareDecodeError if the key is malformed."""

    def generate_kem_key_pair(self) -> KemKeyPair:
        """Return a fresh key pair."""


def answer_key_share_untrusted(kem: Kem, group: int, share: bytes) -> tuple[bytes, bytes]:
    """
    Complete a key exchange on the server.

    Args:
        kem: Provider or pool that does ML-KEM-768.
        group: Named group, one we chose and therefore know.
        share: The client's ``key_exchange`` bytes for it.

    Returns:
        Our ``key_exchange`` bytes and the input to the TLS key schedule.

    Raises:
        KeyShareDecodeError: The share is malformed.
    """
    if group == NamedGroup.ML_KEM_768:
        return kem.encapsulate(_sized(share, ENCAPSULATION_KEY_BYTES))
    if group == NamedGroup.X25519_ML_KEM_768:
        _sized(share, ENCAPSULATION_KEY_BYTES + X25519_KEY_BYTES)
        # X25519 first: its all-zero check is the cheaper one to fail.
        our_key, classical_secret = _answer_x25519(share[ENCAPSULATION_KEY_BYTES:])
        ciphertext, kem_secret = kem.encapsulate(share[:ENCAPSULATION_KEY_BYTES])
        return ciphertext + our_key, kem_secret + classical_secret
    if group == NamedGroup.X25519:
        return _answer_x25519(share)
    return _answer_curve(_CURVES[group], share)


class ClientKeyShare:
    """The client's half of a key exchange: owns the private keys from ClientHello to ServerHello."""

    def __init__(self, kem: Kem, group: int) -> None:
        self.group = group
        self._kem_key: KemKeyPair | None = None
        self._x25519_key: x25519.X25519PrivateKey | None = None
        self._curve_key: ec.EllipticCurvePrivateKey | None = None
        share = b""
        if group in (NamedGroup.ML_KEM_768, NamedGroup.X25519_ML_KEM_768):
            self._kem_key = kem.generate_kem_key_pair()
            share = self._kem_key.public_key
        if group in (NamedGroup.X25519, NamedGroup.X25519_ML_KEM_768):
            self._x25519_key = x25519.X25519PrivateKey.generate()
            share += self._x25519_key.public_key().public_bytes_raw()
        if group in _CURVES:
            self._curve_key = ec.generate_private_key(_CURVES[group])
            share = _encode_point(self._curve_key.public_key())
        self.share = share
        """``key_exchange`` bytes for the ClientHello."""

    def finish_untrusted(self, share: bytes) -> bytes:
        """
        Complete the exchange with the server's ``key_exchange`` bytes; the private keys are gone afterwards.

        Raises:
            KeyShareDecodeError: The share is malformed.
        """
        try:
            if self._curve_key is not None:
                return _exchange_curve(self._curve_key, share)
            if self._kem_key is None:
                return self._exchange_x25519(share)
            if self._x25519_key is None:
                return self._kem_key.decapsulate(_sized(share, CIPHERTEXT_BYTES))
            _sized(share, CIPHERTEXT_BYTES + X25519_KEY_BYTES)
            kem_secret = self._kem_key.decapsulate(share[:CIPHERTEXT_BYTES])
            return kem_secret + self._exchange_x25519(share[CIPHERTEXT_BYTES:])
        finally:
            self.close()

    def close(self) -> None:
        """Wipe the private keys; also for a handshake that is given up."""
        if self._kem_key is not None:
            self._kem_key.close()
            self._kem_key = None
        self._x25519_key = None
        self._curve_key = None

    def _exchange_x25519(self, share: bytes) -> bytes:
        if self._x25519_key is None:
            raise KeyShareDecodeError("key exchange is already finished")
        return _exchange_x25519(self._x25519_key, share)


def _sized(share: bytes, expected_bytes: int) -> bytes:
    if len(share) != expected_bytes:
        raise KeyShareDecodeError(f"key share has {len(share)} bytes instead of {expected_bytes}")
    return share


def _answer_x25519(share: bytes) -> tuple[bytes, bytes]:
    key = x25519.X25519PrivateKey.generate()
    return key.public_key().public_bytes_raw(), _exchange_x25519(key, share)


def _exchange_x25519(key: x25519.X25519PrivateKey, share: bytes) -> bytes:
    try:
        return key.exchange(x25519.X25519PublicKey.from_public_bytes(_sized(share, X25519_KEY_BYTES)))
    except ValueError as exc:
        # OpenSSL refuses an all-zero result (RFC 7748, section 6.1; RFC 8446, section 7.4.2).
        raise KeyShareDecodeError("X25519 share is of small order") from exc


def _answer_curve(curve: ec.EllipticCurve, share: bytes) -> tuple[bytes, bytes]:
    key = ec.generate_private_key(curve)
    return _encode_point(key.public_key()), _exchange_curve(key, share)


def _exchange_curve(key: ec.EllipticCurvePrivateKey, share: bytes) -> bytes:
    try:
        return key.exchange(ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(key.curve, share))
    except ValueError as exc:
        raise KeyShareDecodeError("share is not a point on the curve") from exc


def _encode_point(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
