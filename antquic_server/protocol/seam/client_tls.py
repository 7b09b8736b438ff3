"""
The client's side of a post-quantum TLS 1.3 handshake over aioquic's key schedule.

Our peers, the load generator and the benchmarks dial with it; it can imitate each kind of client the server has a
profile for, and follows one HelloRetryRequest.
"""

import hmac
import ipaddress

from aioquic import tls
from aioquic.buffer import Buffer

from antquic_server.errors import KeyShareDecodeError
from antquic_server.protocol.codepoints import CertificateType, SignatureScheme, TlsExtensionType
from antquic_server.protocol.key_exchange import ClientKeyShare
from antquic_server.protocol.profiles import POST_QUANTUM_GROUPS, HandshakeProfile
from antquic_server.protocol.seam.tls_context import (
    HELLO_RETRY_REQUEST_RANDOM,
    RAW_PUBLIC_KEY_ONLY,
    AlertUnsupportedExtension,
    RawPublicKeyMixin,
    as_alert,
    restart_transcript,
)

_RAW_KEY_OFFER = bytes([1, CertificateType.RAW_PUBLIC_KEY])
_EXTENSIONS_BY_PROFILE: dict[HandshakeProfile, list[tuple[int, bytes]]] = {
    # Wire notes, 1.5: an ant-quic server refuses a list in server_certificate_type whatever it holds.
    HandshakeProfile.ANT_QUIC: [(TlsExtensionType.CLIENT_CERTIFICATE_TYPE, _RAW_KEY_OFFER)],
    HandshakeProfile.RAW_PUBLIC_KEY: [
        (TlsExtensionType.CLIENT_CERTIFICATE_TYPE, _RAW_KEY_OFFER),
        (TlsExtensionType.SERVER_CERTIFICATE_TYPE, _RAW_KEY_OFFER),
    ],
}


class ClientTlsContext(RawPublicKeyMixin):
    """aioquic's client context with our groups and raw public keys."""

    def _adopted(self) -> None:
        self._groups = self.options.client_groups or POST_QUANTUM_GROUPS
        self._share: ClientKeyShare | None = None
        self._hello: tls.ClientHello | None = None
        if self._expects_raw_key:
            self._signature_algorithms = [SignatureScheme.ML_DSA_65]

    @property
    def _expects_raw_key(self) -> bool:
        return self.options.client_profile in (HandshakeProfile.ANT_QUIC, HandshakeProfile.RAW_PUBLIC_KEY)

    # The methods below replace aioquic's of the same name.

    def _client_send_hello(self, output_buf: Buffer) -> None:
        self._share = ClientKeyShare(self.options.pqc, self.options.client_share_group or self._groups[0])
        extensions = _EXTENSIONS_BY_PROFILE.get(self.options.client_profile, [])
        self._hello = tls.ClientHello(
            random=self.client_random,
            legacy_session_id=self.legacy_session_id,
            cipher_suites=[int(suite) for suite in self._cipher_suites],
            legacy_compression_methods=self._legacy_compression_methods,
            alpn_protocols=self._alpn_protocols,
            key_share=[(self._share.group, self._share.share)],
            server_name=_server_name_indication(self._server_name),
            signature_algorithms=self._signature_algorithms,
            supported_groups=list(self._groups),
            supported_versions=self._supported_versions,
            other_extensions=[*self.handshake_extensions, *extensions],
        )
        self._key_schedule_proxy = tls.KeyScheduleProxy(self._cipher_suites)
        self._key_schedule_proxy.extract(None)
        with tls.push_message(self._key_schedule_proxy, output_buf):
            tls.push_client_hello(output_buf, self._hello)
        self._set_state(tls.State.CLIENT_EXPECT_SERVER_HELLO)

    def _client_handle_hello(self, input_buf: Buffer, output_buf: Buffer) -> None:
        hello = _pull_server_hello_or_retry(input_buf)
        if hello.supported_version not in self._supported_versions:
            raise tls.AlertIllegalParameter("ServerHello has a version we did not advertise")
        cipher_suite = tls.negotiate(
            self._cipher_suites,
            [hello.cipher_suite],
            tls.AlertIllegalParameter("ServerHello has a cipher suite we did not advertise"),
        )
        if self.key_schedule is None and self._key_schedule_proxy is not None:
            self.key_schedule = self._key_schedule_proxy.select(cipher_suite)
            self._key_schedule_proxy = None
        elif cipher_suite != self._schedule.cipher_suite:
            raise tls.AlertIllegalParameter("ServerHello changes the cipher suite")
        if hello.random == HELLO_RETRY_REQUEST_RANDOM:
            self._answer_hello_retry_request(hello, input_buf, output_buf)
            return
        if hello.key_share is None:
            raise tls.AlertMissingExtension("ServerHello has no key share")
        self._schedule.update_hash(input_buf.data)
        self._schedule.extract(self._finish_key_exchange(*hello.key_share))
        self._setup_traffic_protection(tls.Direction.DECRYPT, tls.Epoch.HANDSHAKE, b"s hs traffic")
        self._setup_traffic_protection(tls.Direction.ENCRYPT, tls.Epoch.HANDSHAKE, b"c hs traffic")
        self._set_state(tls.State.CLIENT_EXPECT_ENCRYPTED_EXTENSIONS)

    def _client_handle_encrypted_extensions(self, input_buf: Buffer) -> None:
        super()._client_handle_encrypted_extensions(input_buf)
        offered = {kind for kind, _ in _EXTENSIONS_BY_PROFILE.get(self.options.client_profile, [])}
        for kind, value in self.received_extensions or []:
            if kind not in (
                TlsExtensionType.CLIENT_CERTIFICATE_TYPE,
                TlsExtensionType.SERVER_CERTIFICATE_TYPE,
            ):
                continue
            if kind not in offered:
                raise AlertUnsupportedExtension("server answers a certificate type we did not offer")
            if value != RAW_PUBLIC_KEY_ONLY:
                raise tls.AlertIllegalParameter("server chose a certificate type we did not offer")

    def _set_peer_certificate(self, certificate: tls.Certificate) -> None:
        if self._expects_raw_key:
            self._set_peer_raw_public_key(certificate)
        else:
            super()._set_peer_certificate(certificate)

    def _client_handle_certificate_verify(self, input_buf: Buffer) -> None:
        if not self._expects_raw_key:
            super()._client_handle_certificate_verify(input_buf)
            return
        expected = self.options.client_expected_public_key
        if expected is not None and not hmac.compare_digest(expected, self.peer_public_key or b""):
            raise tls.AlertBadCertificate("server has another public key than the one expected")
        verify = tls.pull_certificate_verify(input_buf)
        self._check_raw_public_key_signature(verify, tls.SERVER_CONTEXT_STRING)
        self._schedule.update_hash(input_buf.data)
        self._set_state(tls.State.CLIENT_EXPECT_FINISHED)

    def _client_handle_finished(self, input_buf: Buffer, output_buf: Buffer) -> None:
        if not self._expects_raw_key:
            super()._client_handle_finished(input_buf, output_buf)
            return
        finished = tls.pull_finished(input_buf)
        if not hmac.compare_digest(finished.verify_data, self._schedule.finished_verify_data(self._dec_key or b"")):
            raise tls.AlertDecryptError("Finished does not verify")
        self._schedule.update_hash(input_buf.data)
        self._schedule.extract(None)
        self._setup_traffic_protection(tls.Direction.DECRYPT, tls.Epoch.ONE_RTT, b"s ap traffic")
        next_enc_key = self._schedule.derive_secret(b"c ap traffic")
        self._exporter_secret = self._schedule.derive_secret(b"exp master")
        if self._certificate_request is not None:
            self._push_node_certificate(output_buf, self._certificate_request.request_context)
            if self.options.node_key is not None:
                self._push_node_certificate_verify(output_buf, tls.CLIENT_CONTEXT_STRING)
        self._push_finished(output_buf)
        self._enc_key = next_enc_key
        self.update_traffic_key_cb(tls.Direction.ENCRYPT, tls.Epoch.ONE_RTT, self._schedule.cipher_suite, next_enc_key)
        self._set_state(tls.State.CLIENT_POST_HANDSHAKE)

    # Key exchange.

    def _answer_hello_retry_request(self, retry: tls.ServerHello, input_buf: Buffer, output_buf: Buffer) -> None:
        group = 0 if retry.key_share is None else retry.key_share[0]
        if self.hello_retry_request or self._hello is None or self._share is None:
            raise tls.AlertUnexpectedMessage("second HelloRetryRequest")
        if group not in self._groups or group == self._share.group:
            raise tls.AlertIllegalParameter("HelloRetryRequest asks for a group that makes no sense")
        self.hello_retry_request = True
        restart_transcript(self._schedule)
        self._schedule.update_hash(input_buf.data)
        self._share.close()
        self._share = ClientKeyShare(self.options.pqc, group)
        self._hello.key_share = [(group, self._share.share)]
        with tls.push_message(self._schedule, output_buf):
            tls.push_client_hello(output_buf, self._hello)

    def _finish_key_exchange(self, group: int, share: bytes) -> bytes:
        if self._share is None or group != self._share.group:
            raise tls.AlertIllegalParameter("ServerHello has a key share we did not advertise")
        try:
            secret = self._share.finish_untrusted(share)
        except KeyShareDecodeError as exc:
            raise as_alert(exc) from exc
        self.negotiated_group = group
        self._share = None
        self._hello = None
        return secret


def _server_name_indication(server_name: str | None) -> str | None:
    """Literal addresses are not permitted in SNI (RFC 6066, section 3)."""
    try:
        ipaddress.ip_address(server_name or "")
    except ValueError:
        return server_name
    return None


def _pull_server_hello_or_retry(buf: Buffer) -> tls.ServerHello:
    """
    Read a ServerHello; a HelloRetryRequest gets its key share as (group, b"").

    aioquic reads the key share of a HelloRetryRequest, which is a group alone, as a whole entry and fails.
    """
    random_offset = 6
    if buf.data_slice(random_offset, random_offset + 32) != HELLO_RETRY_REQUEST_RANDOM:
        return tls.pull_server_hello(buf)
    buf.seek(4)
    buf.pull_uint16()
    hello = tls.ServerHello(
        random=buf.pull_bytes(32),
        legacy_session_id=tls.pull_opaque(buf, 1),
        cipher_suite=buf.pull_uint16(),
        compression_method=buf.pull_uint8(),
    )
    with tls.pull_block(buf, 2) as length:
        end = buf.tell() + length
        while buf.tell() < end:
            kind = buf.pull_uint16()
            value = tls.pull_opaque(buf, 2)
            if kind == tls.ExtensionType.SUPPORTED_VERSIONS:
                hello.supported_version = int.from_bytes(value, "big")
            elif kind == tls.ExtensionType.KEY_SHARE:
                hello.key_share = (int.from_bytes(value, "big"), b"")
    return hello
