"""
The server's side of a post-quantum TLS 1.3 handshake over aioquic's key schedule.

Order of messages, with what this module adds to aioquic in brackets::

    ClientHello            →   group and profile are chosen           [profiles]
                           ←   [HelloRetryRequest, when the share for the chosen group is missing]
    [second ClientHello]   →
                           ←   ServerHello [ML-KEM ciphertext], EncryptedExtensions [certificate types],
                               [CertificateRequest], Certificate [raw key or X.509], CertificateVerify, Finished
    [Certificate, CertificateVerify], Finished  →

Sessions are never resumed: ant-quic peers present tickets of other nodes under a shared server name, so a
``pre_shared_key`` is ignored and no NewSessionTicket is sent.
"""

import os

from aioquic import tls
from aioquic.buffer import Buffer
from cryptography.hazmat.primitives.serialization import Encoding

from antquic_server.errors import KeyShareDecodeError
from antquic_server.protocol.codepoints import SignatureScheme, TlsExtensionType
from antquic_server.protocol.key_exchange import answer_key_share_untrusted
from antquic_server.protocol.profiles import (
    Authentication,
    ClientOffer,
    GroupChoice,
    HandshakeProfile,
    choose_authentication,
    choose_group,
)
from antquic_server.protocol.seam.tls_context import (
    HELLO_RETRY_REQUEST_RANDOM,
    RAW_PUBLIC_KEY_ONLY,
    AlertCertificateRequired,
    RawPublicKeyMixin,
    as_alert,
    certificate_types_untrusted,
    restart_transcript,
)


class ServerTlsContext(RawPublicKeyMixin):
    """aioquic's server context with our profiles, groups and raw public keys."""

    authentication: Authentication | None
    client_server_name: str | None
    """The name in the client's SNI extension; a hint at what an ant-quic peer wants (wire notes, 1.8)."""

    def _adopted(self) -> None:
        self.authentication = None
        self.client_server_name = None
        self._retry_group: int | None = None

    @property
    def profile(self) -> HandshakeProfile | None:
        """The profile chosen, None before the ClientHello is complete."""
        return None if self.authentication is None else self.authentication.profile

    # The three methods below replace aioquic's of the same name.

    def _server_handle_hello(self, input_buf: Buffer, initial_buf: Buffer, handshake_buf: Buffer) -> None:
        hello = tls.pull_client_hello(input_buf)
        cipher_suite = tls.negotiate(
            self._cipher_suites, hello.cipher_suites, tls.AlertHandshakeFailure("No supported cipher suite")
        )
        tls.negotiate(
            self._supported_versions,
            hello.supported_versions,
            tls.AlertProtocolVersion("No supported protocol version"),
        )
        if tls.CompressionMethod.NULL not in hello.legacy_compression_methods:
            raise tls.AlertIllegalParameter("ClientHello does not offer null compression")
        if hello.key_share is None or hello.supported_groups is None:
            raise tls.AlertMissingExtension("ClientHello has no key share or no supported groups")
        offer = _offer(hello)
        choice = choose_group(offer, allow_classical=self.options.allow_classical)
        if choice is None:
            raise tls.AlertHandshakeFailure("No post-quantum group in common")
        self._start_transcript(hello, cipher_suite, input_buf)
        if choice.retry:
            self._send_hello_retry_request(choice.group, cipher_suite, hello, initial_buf)
            return
        self._check_second_hello(hello, choice)
        self.authentication = choose_authentication(offer, choice)
        self.negotiated_group = choice.group
        self.client_server_name = hello.server_name
        self._negotiate_alpn(hello)
        algorithm = self._signature_algorithm(hello)
        self.legacy_session_id = hello.legacy_session_id
        self.received_extensions = hello.other_extensions
        if self.alpn_cb:
            # Reads the transport parameters; may raise.
            self.alpn_cb(self.alpn_negotiated)  # type: ignore[arg-type]
        self._send_server_hello(hello, cipher_suite, choice.group, initial_buf)
        self._send_server_authentication(algorithm, handshake_buf)
        self._prepare_application_keys()

    def _server_handle_certificate(self, input_buf: Buffer) -> None:
        certificate = tls.pull_certificate(input_buf)
        self._schedule.update_hash(input_buf.data)
        if certificate.certificates:
            self._set_peer_raw_public_key(certificate)
            self._set_state(tls.State.SERVER_EXPECT_CERTIFICATE_VERIFY)
        elif self.authentication is not None and self.authentication.require_client_certificate:
            raise AlertCertificateRequired("this profile authenticates both sides")
        else:
            self._server_expect_finished()

    def _server_handle_certificate_verify(self, input_buf: Buffer) -> None:
        verify = tls.pull_certificate_verify(input_buf)
        self._check_raw_public_key_signature(verify, tls.CLIENT_CONTEXT_STRING)
        self._schedule.update_hash(input_buf.data)
        self._server_expect_finished()

    # Steps of the first flight, in order.

    def _start_transcript(self, hello: tls.ClientHello, cipher_suite: tls.CipherSuite, buf: Buffer) -> None:
        if self._retry_group is None:
            self.client_random = hello.random
            self.key_schedule = tls.KeySchedule(cipher_suite)
            self.key_schedule.extract(None)
        elif cipher_suite != self._schedule.cipher_suite:
            raise tls.AlertIllegalParameter("second ClientHello changes the cipher suite")
        self._schedule.update_hash(buf.data)

    def _send_hello_retry_request(
        self, group: int, cipher_suite: tls.CipherSuite, hello: tls.ClientHello, buf: Buffer
    ) -> None:
        if self._retry_group is not None:
            # RFC 8446, section 4.1.4: at most one, and the second hello must bring the share asked for.
            raise tls.AlertIllegalParameter("second ClientHello lacks the key share asked for")
        self._retry_group = group
        self.hello_retry_request = True
        restart_transcript(self._schedule)
        with tls.push_message(self._schedule, buf):
            tls.push_server_hello(
                buf,
                tls.ServerHello(
                    random=HELLO_RETRY_REQUEST_RANDOM,
                    legacy_session_id=hello.legacy_session_id,
                    cipher_suite=cipher_suite,
                    compression_method=tls.CompressionMethod.NULL,
                    supported_version=tls.TLS_VERSION_1_3,
                    other_extensions=[(tls.ExtensionType.KEY_SHARE, group.to_bytes(2, "big"))],
                ),
            )

    def _check_second_hello(self, hello: tls.ClientHello, choice: GroupChoice) -> None:
        if self._retry_group is None:
            return
        shares = hello.key_share or []
        if choice.group != self._retry_group or len(shares) != 1 or hello.random != self.client_random:
            raise tls.AlertIllegalParameter("second ClientHello does not answer the HelloRetryRequest")

    def _negotiate_alpn(self, hello: tls.ClientHello) -> None:
        # A client without ALPN is served as well: ant-quic peers never offer one.
        if not hello.alpn_protocols:
            return
        if self._alpn_protocols is None:
            # Nothing configured means any protocol: QUIC clients that offer one insist on an answer (RFC 9001, 8.1).
            self.alpn_negotiated = hello.alpn_protocols[0]
        else:
            self.alpn_negotiated = tls.negotiate(
                self._alpn_protocols,
                hello.alpn_protocols,
                tls.AlertNoApplicationProtocol("No common ALPN protocols"),
            )

    def _signature_algorithm(self, hello: tls.ClientHello) -> int:
        if self.authentication is not None and self.authentication.uses_raw_public_key:
            return SignatureScheme.ML_DSA_65
        algorithm: int = tls.negotiate(
            self._signature_algorithms_for_private_key(),
            hello.signature_algorithms,
            tls.AlertHandshakeFailure("No supported signature algorithm"),
        )
        return algorithm

    def _send_server_hello(
        self, hello: tls.ClientHello, cipher_suite: tls.CipherSuite, group: int, buf: Buffer
    ) -> None:
        share = next(share for share_group, share in hello.key_share or [] if share_group == group)
        try:
            our_share, secret = answer_key_share_untrusted(self.options.pqc, group, share)
        except KeyShareDecodeError as exc:
            raise as_alert(exc) from exc
        self.server_random = os.urandom(32)
        with tls.push_message(self._schedule, buf):
            tls.push_server_hello(
                buf,
                tls.ServerHello(
                    random=self.server_random,
                    legacy_session_id=hello.legacy_session_id,
                    cipher_suite=cipher_suite,
                    compression_method=tls.CompressionMethod.NULL,
                    key_share=(group, our_share),
                    supported_version=tls.TLS_VERSION_1_3,
                ),
            )
        self._schedule.extract(secret)
        self._setup_traffic_protection(tls.Direction.ENCRYPT, tls.Epoch.HANDSHAKE, b"s hs traffic")
        self._setup_traffic_protection(tls.Direction.DECRYPT, tls.Epoch.HANDSHAKE, b"c hs traffic")

    def _send_server_authentication(self, algorithm: int, buf: Buffer) -> None:
        authentication = self.authentication
        if authentication is None:
            raise tls.AlertInternalError("no profile is chosen yet")
        extensions = list(self.handshake_extensions)
        if authentication.answer_client_certificate_type:
            extensions.append((TlsExtensionType.CLIENT_CERTIFICATE_TYPE, RAW_PUBLIC_KEY_ONLY))
        if authentication.answer_server_certificate_type:
            extensions.append((TlsExtensionType.SERVER_CERTIFICATE_TYPE, RAW_PUBLIC_KEY_ONLY))
        with tls.push_message(self._schedule, buf):
            tls.push_encrypted_extensions(
                buf,
                tls.EncryptedExtensions(alpn_protocol=self.alpn_negotiated, other_extensions=extensions),
            )
        if authentication.request_client_certificate:
            with tls.push_message(self._schedule, buf):
                tls.push_certificate_request(
                    buf, tls.CertificateRequest(signature_algorithms=[SignatureScheme.ML_DSA_65])
                )
        if authentication.uses_raw_public_key:
            self._push_node_certificate(buf)
            self._push_node_certificate_verify(buf, tls.SERVER_CONTEXT_STRING)
        else:
            self._push_x509_certificate(buf)
            self._push_certificate_verify(buf, algorithm, self._sign_x509(algorithm, tls.SERVER_CONTEXT_STRING))
        self._push_finished(buf)

    def _push_x509_certificate(self, buf: Buffer) -> None:
        chain = [] if self.certificate is None else [self.certificate, *self.certificate_chain]
        with tls.push_message(self._schedule, buf):
            tls.push_certificate(
                buf,
                tls.Certificate(certificates=[(entry.public_bytes(Encoding.DER), b"") for entry in chain]),
            )

    def _prepare_application_keys(self) -> None:
        self._schedule.extract(None)
        self._setup_traffic_protection(tls.Direction.ENCRYPT, tls.Epoch.ONE_RTT, b"s ap traffic")
        self._next_dec_key = self._schedule.derive_secret(b"c ap traffic")
        self._exporter_secret = self._schedule.derive_secret(b"exp master")
        if self.authentication is not None and self.authentication.request_client_certificate:
            self._set_state(tls.State.SERVER_EXPECT_CERTIFICATE)
        else:
            self._server_expect_finished()


def _offer(hello: tls.ClientHello) -> ClientOffer:
    extensions = hello.other_extensions
    return ClientOffer(
        supported_groups=tuple(hello.supported_groups or ()),
        key_share_groups=tuple(group for group, _ in hello.key_share or ()),
        signature_algorithms=tuple(hello.signature_algorithms or ()),
        client_certificate_types=certificate_types_untrusted(extensions, TlsExtensionType.CLIENT_CERTIFICATE_TYPE),
        server_certificate_types=certificate_types_untrusted(extensions, TlsExtensionType.SERVER_CERTIFICATE_TYPE),
    )
