"""
The one form in which an ML-DSA-65 public key travels, with the peer id made from it.

A raw public key (RFC 7250) is a DER ``SubjectPublicKeyInfo`` (RFC 5280, section 4.1.2.7). For one algorithm
with keys of one length there is exactly one such encoding, so both directions compare or prepend a constant::

    30 82 07b2                       SEQUENCE, 1970 bytes
       30 0b                         SEQUENCE, 11 bytes: AlgorithmIdentifier without parameters
          06 09 608648016503040312   OBJECT IDENTIFIER 2.16.840.1.101.3.4.3.18, id-ml-dsa-65 (RFC 9881)
       03 82 07a1 00                 BIT STRING, 1953 bytes, no unused bits
          ...                        1952 bytes of public key (FIPS 204, algorithm 22)
"""

from hashlib import sha256

from antquic_server.errors import PublicKeyDecodeError

__all__ = [
    "ML_DSA_65_PUBLIC_KEY_BYTES",
    "ML_DSA_65_SIGNATURE_BYTES",
    "PEER_ID_BYTES",
    "SUBJECT_PUBLIC_KEY_INFO_BYTES",
    "decode_subject_public_key_info_untrusted",
    "encode_subject_public_key_info",
    "peer_id",
]

ML_DSA_65_PUBLIC_KEY_BYTES = 1952
"""FIPS 204, table 2."""

ML_DSA_65_SIGNATURE_BYTES = 3309
"""FIPS 204, table 2."""

PEER_ID_BYTES = 32

_HEADER = bytes.fromhex("308207b2 300b0609608648016503040312 038207a100")
_PEER_ID_DOMAIN = b"AUTONOMI_PEER_ID_V2:"

SUBJECT_PUBLIC_KEY_INFO_BYTES = len(_HEADER) + ML_DSA_65_PUBLIC_KEY_BYTES


def encode_subject_public_key_info(public_key: bytes) -> bytes:
    """Wrap a raw ML-DSA-65 public key of 1952 bytes into its 1974-byte DER form."""
    _require_public_key_length(public_key)
    return _HEADER + public_key


def decode_subject_public_key_info_untrusted(der: bytes) -> bytes:
    """
    Take the raw ML-DSA-65 public key out of a ``SubjectPublicKeyInfo``.

    Only the exact form above passes: other length forms, NULL parameters, other algorithms and trailing bytes
    are refused, as ant-quic does, so that one key never has two encodings. Raises ``PublicKeyDecodeError``.
    """
    if len(der) != SUBJECT_PUBLIC_KEY_INFO_BYTES:
        raise PublicKeyDecodeError(
            f"SubjectPublicKeyInfo has {len(der)} bytes, ML-DSA-65 has {SUBJECT_PUBLIC_KEY_INFO_BYTES}"
        )
    if not der.startswith(_HEADER):
        raise PublicKeyDecodeError("SubjectPublicKeyInfo is not the DER form of an ML-DSA-65 key")
    return der[len(_HEADER) :]


def peer_id(public_key: bytes) -> bytes:
    """
    Derive the 32-byte peer id from a raw ML-DSA-65 public key.

    SHA-256 over a domain separation prefix, then the 1952 key bytes; the DER header is not hashed.
    """
    _require_public_key_length(public_key)
    return sha256(_PEER_ID_DOMAIN + public_key).digest()


def _require_public_key_length(public_key: bytes) -> None:
    if len(public_key) != ML_DSA_65_PUBLIC_KEY_BYTES:
        raise ValueError(f"public key has {len(public_key)} bytes, expected {ML_DSA_65_PUBLIC_KEY_BYTES}")
