"""
What server and client contexts share: options, raw public keys, the HelloRetryRequest transcript.

aioquic's TLS context knows elliptic-curve groups and X.509 only, its enums are closed, and its handshake functions
are long; so ours replace the four that deal with key exchange and authentication, and keep the key schedule, the
state machine and all message codecs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from aioquic import tls
from aioquic.buffer import Buffer
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes

from antquic_server.errors import KeyShareDecodeError, PqcError, PublicKeyDecodeError
from antquic_server.protocol.codepoints import CertificateType, SignatureScheme
from antquic_server.protocol.key_exchange import Kem
from antquic_server.protocol.profiles import HandshakeProfile
from antquic_server.protocol.raw_public_key import (
    decode_subject_public_key_info_untrusted,
    encode_subject_public_key_info,
)

HELLO_RETRY_REQUEST_RANDOM = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")
"""RFC 8446, section 4.1.3: SHA-256 of "HelloRetryRequest"."""


class AlertCertificateRequired(tls.Alert):
    """The client must authenticate and sent no certificate (RFC 8446, section 6.2)."""

    description = tls.AlertDescription.certificate_required


class AlertUnsupportedExtension(tls.Alert):
    """The peer answered with an extension we did not offer."""

    description = tls.AlertDescription.unsupported_extension


class SigningKey(Protocol):
    """The node key: an ML-DSA-65 private key."""

    @property
    def public_key(self) -> bytes:
        """Raw public key, 1952 bytes."""

    def sign(self, message: bytes) -> bytes:
        """Return a 3309-byte signature, pure mode, empty context."""


class Pqc(Kem, Protocol):
    """What the TLS layer needs of a PQC provider or pool."""

    def verify(self, public_key: bytes, message: bytes, signature: bytes) -> bool:
        """Return whether an ML-DSA-65 signature verifies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsOptions:
    """
    Post-quantum TLS settings, shared by all connections of a process.

    ``client_*`` act on the client side only: ``client_profile`` is the server's profile to expect, and
    ``client_share_group`` the group to send a share for when it is not the first of ``client_groups``.
    """

    pqc: Pqc
    node_key: SigningKey | None = None
    allow_classical: bool = False
    client_profile: HandshakeProfile = HandshakeProfile.ANT_QUIC
    client_groups: tuple[int, ...] = ()
    client_share_group: int | None = None
    client_expected_public_key: bytes | None = None


class RawPublicKeyMixin(tls.Context):
    """Authentication by ML-DSA-65 raw public keys, in either role."""

    options: TlsOptions
    peer_public_key: bytes | None
    negotiated_group: int | None
    hello_retry_request: bool
    _exporter_secret: bytes | None

    @classmethod
    def adopt(cls, stock: tls.Context, options: TlsOptions) -> "RawPublicKeyMixin":
        """Take over a context that ``QuicConnection._initialize`` has just set up, callbacks and all."""
        context = cls.__new__(cls)
        context.__dict__.update(stock.__dict__)
        context.options = options
        context.peer_public_key = None
        context.negotiated_group = None
        context.hello_retry_request = False
        context._exporter_secret = None
        context._adopted()
        return context

    def _adopted(self) -> None:
        """Set up what a subclass adds."""

    def export_keying_material(self, label: bytes, context: bytes, length: int) -> bytes:
        """
        Derive bytes that only the two ends of this connection know, the same at both (RFC 8446, section 7.5).

        PqcError before the server's Finished.
        """
        if self._exporter_secret is None:
            raise PqcError("keying material is exported once the handshake keys are known")
        algorithm = self._schedule.algorithm
        empty, digest = hashes.Hash(algorithm), hashes.Hash(algorithm)
        digest.update(context)
        secret = tls.hkdf_expand_label(algorithm, self._exporter_secret, label, empty.finalize(), algorithm.digest_size)
        return tls.hkdf_expand_label(algorithm, secret, b"exporter", digest.finalize(), length)

    def _push_node_certificate(self, buf: Buffer, request_context: bytes = b"") -> None:
        key = self.options.node_key
        entries = [] if key is None else [(encode_subject_public_key_info(key.public_key), b"")]
        with tls.push_message(self._schedule, buf):
            tls.push_certificate(buf, tls.Certificate(request_context=request_context, certificates=entries))

    def _push_node_certificate_verify(self, buf: Buffer, context_string: bytes) -> None:
        if self.options.node_key is None:
            raise tls.AlertInternalError("no node key")
        signature = self.options.node_key.sign(self._schedule.certificate_verify_data(context_string))
        self._push_certificate_verify(buf, SignatureScheme.ML_DSA_65, signature)

    def _push_certificate_verify(self, buf: Buffer, algorithm: int, signature: bytes) -> None:
        with tls.push_message(self._schedule, buf):
            tls.push_certificate_verify(buf, tls.CertificateVerify(algorithm=algorithm, signature=signature))

    def _push_finished(self, buf: Buffer) -> None:
        with tls.push_message(self._schedule, buf):
            tls.push_finished(buf, tls.Finished(verify_data=self._schedule.finished_verify_data(self._enc_key or b"")))

    def _set_peer_raw_public_key(self, certificate: tls.Certificate) -> None:
        # Further entries are ignored, as RFC 7250, section 4.2 has exactly one.
        try:
            self.peer_public_key = decode_subject_public_key_info_untrusted(certificate.certificates[0][0])
        except PublicKeyDecodeError as exc:
            raise tls.AlertBadCertificate(str(exc)) from exc

    def _check_raw_public_key_signature(self, verify: tls.CertificateVerify, context_string: bytes) -> None:
        if verify.algorithm != SignatureScheme.ML_DSA_65:
            raise tls.AlertIllegalParameter("CertificateVerify is not ML-DSA-65")
        data = self._schedule.certificate_verify_data(context_string)
        if self.peer_public_key is None or not self.options.pqc.verify(self.peer_public_key, data, verify.signature):
            raise tls.AlertDecryptError("CertificateVerify does not verify")

    def _sign_x509(self, algorithm: int, context_string: bytes) -> bytes:
        signer: Any = self.certificate_private_key
        try:
            signature: bytes = signer.sign(
                self._schedule.certificate_verify_data(context_string),
                *tls.signature_algorithm_params(algorithm),
            )
        except UnsupportedAlgorithm as exc:
            raise tls.AlertInternalError(str(exc)) from exc
        return signature

    @property
    def _schedule(self) -> tls.KeySchedule:
        if self.key_schedule is None:
            raise tls.AlertInternalError("no cipher suite is selected yet")
        return self.key_schedule


def restart_transcript(schedule: tls.KeySchedule) -> None:
    """Replace the first ClientHello by its ``message_hash`` (RFC 8446, section 4.4.1)."""
    digest = schedule.hash.finalize()
    schedule.hash = hashes.Hash(schedule.algorithm)
    schedule.update_hash(bytes([tls.HandshakeType.MESSAGE_HASH, 0, 0, len(digest)]) + digest)


def certificate_types_untrusted(extensions: Sequence[tuple[int, bytes]], kind: int) -> tuple[int, ...] | None:
    """Return the certificate types a ClientHello lists in one extension, None if it is absent (RFC 7250)."""
    for extension_type, value in extensions:
        if extension_type == kind:
            if len(value) < 2 or value[0] != len(value) - 1:
                raise tls.AlertDecodeError("certificate type list is malformed")
            return tuple(value[1:])
    return None


def as_alert(error: KeyShareDecodeError) -> tls.Alert:
    """A malformed share is an ``illegal_parameter`` alert (RFC 8446, section 4.2.8)."""
    return tls.AlertIllegalParameter(str(error))


RAW_PUBLIC_KEY_ONLY = bytes([CertificateType.RAW_PUBLIC_KEY])
"""A server's answer in either certificate-type extension."""
