"""Tests of ``antquic_server.protocol.seam.tls_context``: the pieces that handshakes in memory do not reach alone."""

import hashlib

import pytest
from aioquic import tls
from aioquic.buffer import Buffer
from hypothesis import given
from hypothesis import strategies as st

from antquic_server.errors import KeyShareDecodeError, PqcError
from antquic_server.protocol.seam.tls_context import (
    HELLO_RETRY_REQUEST_RANDOM,
    AlertCertificateRequired,
    AlertUnsupportedExtension,
    RawPublicKeyMixin,
    TlsOptions,
    as_alert,
    certificate_types_untrusted,
    restart_transcript,
)
from support.pair import Pair, node_key, pool

KIND = 19


def adopted(options: TlsOptions) -> RawPublicKeyMixin:
    """A context of ours made of one of aioquic's."""
    stock = tls.Context(is_client=False)
    return RawPublicKeyMixin.adopt(stock, options)


def test_retry_request_random_is_what_the_rfc_says() -> None:
    """RFC 8446, section 4.1.3: the SHA-256 of the message's name."""
    assert hashlib.sha256(b"HelloRetryRequest").digest() == HELLO_RETRY_REQUEST_RANDOM


@pytest.mark.parametrize(
    ("alert", "number"),
    [(AlertCertificateRequired, 116), (AlertUnsupportedExtension, 110), (tls.AlertIllegalParameter, 47)],
)
def test_alert_numbers(alert: type[tls.Alert], number: int) -> None:
    """The numbers of RFC 8446, section 6.2."""
    assert alert.description == number


@pytest.mark.parametrize(
    ("extensions", "expected"),
    [
        ([], None),
        ([(KIND + 1, b"\x01\x02")], None),
        ([(KIND, b"\x01\x02")], (2,)),
        ([(KIND, b"\x02\x02\x00")], (2, 0)),
        ([(0, b""), (KIND, b"\x01\x00")], (0,)),
    ],
)
def test_certificate_types_are_read(extensions: list[tuple[int, bytes]], expected: tuple[int, ...] | None) -> None:
    """An absent extension and a list are told apart."""
    assert certificate_types_untrusted(extensions, KIND) == expected


@pytest.mark.parametrize("value", [b"", b"\x00", b"\x02", b"\x02\x02", b"\x01\x02\x00", b"\x00\x02"])
def test_malformed_certificate_types(value: bytes) -> None:
    """An empty list, or a length that does not fit, is a decode_error."""
    with pytest.raises(tls.AlertDecodeError):
        certificate_types_untrusted([(KIND, value)], KIND)


@given(value=st.binary(max_size=260))
def test_certificate_types_of_any_bytes(value: bytes) -> None:
    """Whatever a client sends: a non-empty list that repeats the bytes, or the alert."""
    try:
        types = certificate_types_untrusted([(KIND, value)], KIND)
    except tls.AlertDecodeError:
        assert len(value) < 2 or value[0] != len(value) - 1
    else:
        assert types
        assert bytes([len(types), *types]) == value


def test_transcript_restarts_with_the_message_hash() -> None:
    """RFC 8446, section 4.4.1: the first ClientHello counts as a synthetic message with its hash."""
    schedule = tls.KeySchedule(tls.CipherSuite.AES_256_GCM_SHA384)
    schedule.update_hash(b"first hello")
    restart_transcript(schedule)
    schedule.update_hash(b"retry request")
    digest = hashlib.sha384(b"first hello").digest()
    expected = hashlib.sha384(b"\xfe\x00\x00\x30" + digest + b"retry request").digest()
    assert schedule.hash.finalize() == expected


def test_malformed_share_is_an_illegal_parameter() -> None:
    """The reason goes along."""
    alert = as_alert(KeyShareDecodeError("too short"))
    assert isinstance(alert, tls.AlertIllegalParameter)
    assert str(alert) == "too short"


def test_context_takes_over_what_was_set_up() -> None:
    """An adopted context has everything aioquic's had, and knows nothing of the peer yet."""
    stock = tls.Context(is_client=False, alpn_protocols=["a"])
    stock.handshake_extensions = [(57, b"parameters")]
    options = TlsOptions(pqc=pool())
    context = RawPublicKeyMixin.adopt(stock, options)
    assert context.handshake_extensions == [(57, b"parameters")]
    assert context.options is options
    assert (context.peer_public_key, context.negotiated_group) == (None, None)
    assert not context.hello_retry_request
    assert context.state is stock.state


def test_signing_without_a_key_is_our_own_fault() -> None:
    """A node without a key cannot end up here; if it does, the alert says internal_error."""
    context = adopted(TlsOptions(pqc=pool()))
    context.key_schedule = tls.KeySchedule(tls.CipherSuite.AES_128_GCM_SHA256)
    with pytest.raises(tls.AlertInternalError):
        context._push_node_certificate_verify(Buffer(capacity=10), tls.SERVER_CONTEXT_STRING)


def test_messages_before_a_suite_is_chosen_are_our_own_fault() -> None:
    """There is no transcript to add to yet."""
    context = adopted(TlsOptions(pqc=pool(), node_key=node_key("server")))
    with pytest.raises(tls.AlertInternalError):
        _ = context._schedule


@pytest.mark.parametrize(
    ("algorithm", "signature", "alert"),
    [(0x0403, b"", tls.AlertIllegalParameter), (0x0905, bytes(3309), tls.AlertDecryptError)],
)
def test_signature_checks(algorithm: int, signature: bytes, alert: type[tls.Alert]) -> None:
    """Another algorithm is an illegal_parameter, a wrong signature a decrypt_error."""
    context = adopted(TlsOptions(pqc=pool()))
    context.key_schedule = tls.KeySchedule(tls.CipherSuite.AES_128_GCM_SHA256)
    context.peer_public_key = node_key("client").public_key
    verify = tls.CertificateVerify(algorithm=algorithm, signature=signature)
    with pytest.raises(alert):
        context._check_raw_public_key_signature(verify, tls.CLIENT_CONTEXT_STRING)


def test_signature_without_a_key_verifies_nothing() -> None:
    """No certificate, no identity."""
    context = adopted(TlsOptions(pqc=pool()))
    context.key_schedule = tls.KeySchedule(tls.CipherSuite.AES_128_GCM_SHA256)
    with pytest.raises(tls.AlertDecryptError):
        context._check_raw_public_key_signature(
            tls.CertificateVerify(algorithm=0x0905, signature=bytes(3309)), tls.CLIENT_CONTEXT_STRING
        )


def test_keying_material_is_exported_after_the_handshake_only() -> None:
    """Both ends then derive the same, and something else for another label or context."""
    with pytest.raises(PqcError):
        adopted(TlsOptions(pqc=pool())).export_keying_material(b"label", b"", 32)
    pair = Pair().handshake()

    here = pair.client.export_keying_material(b"label", b"context", 32)
    assert here == pair.server.export_keying_material(b"label", b"context", 32)
    assert len(here) == 32
    assert here != pair.client.export_keying_material(b"label", b"other", 32)
    assert here != pair.client.export_keying_material(b"other", b"context", 32)
