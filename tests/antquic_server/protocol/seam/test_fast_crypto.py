"""Tests of ``antquic_server.protocol.seam.fast_crypto``: bit for bit what aioquic does."""

from typing import Any

import pytest
from aioquic.quic.crypto import CIPHER_SUITES, CryptoContext, CryptoError, CryptoPair, KeyUnavailableError
from aioquic.tls import CipherSuite, Epoch
from hypothesis import given
from hypothesis import strategies as st

from antquic_server.protocol.seam.fast_crypto import FastCryptoContext, install_fast_crypto
from antquic_server.protocol.seam.options import Tally

SUITES = list(CIPHER_SUITES)
SECRET_BYTES = {CipherSuite.AES_256_GCM_SHA384: 48}
LONG = 0xC0
SHORT = 0x40


def keyed_pair(suite: CipherSuite, secret: bytes, *, fast: bool, tally: Tally | None = None) -> CryptoPair:
    """A crypto pair whose two directions have the same key, so that it reads what it writes."""
    pair = CryptoPair()
    for context in (pair.recv, pair.send):
        context.setup(cipher_suite=suite, secret=secret, version=1)
    if fast:
        install_fast_crypto({Epoch.ONE_RTT: pair}, {}, tally or Tally())
        assert isinstance(pair.recv, FastCryptoContext)
        assert isinstance(pair.send, FastCryptoContext)
    return pair


def both(suite: CipherSuite, secret: bytes = b"") -> tuple[CryptoPair, CryptoPair]:
    """Ours and aioquic's with one key."""
    secret = (secret or b"s").ljust(SECRET_BYTES.get(suite, 32), b"\x00")
    return keyed_pair(suite, secret, fast=True), keyed_pair(suite, secret, fast=False)


def header_for(
    packet_number: int, number_bytes: int, *, long: bool, body: bytes, phase: int = 0, flags: int = 0
) -> bytes:
    """A plain header that ends in a packet number of one to four bytes."""
    # All bits that may be set: packet type and reserved bits, or spin and reserved bits.
    first = (LONG | flags & 0x3C if long else SHORT | flags & 0x38 | phase << 2) | number_bytes - 1
    number = (packet_number & (1 << 8 * number_bytes) - 1).to_bytes(number_bytes, "big")
    return bytes([first]) + body + number


def outcome(context: CryptoPair, packet: bytes, offset: int, expected: int) -> Any:
    """What decrypting yields: the parts of the packet, or the kind of error."""
    try:
        return context.decrypt_packet(packet, offset, expected)
    except CryptoError as error:
        return type(error)


packets = st.fixed_dictionaries(
    {
        "suite": st.sampled_from(SUITES),
        "secret": st.binary(min_size=48, max_size=48),
        "number_bytes": st.integers(1, 4),
        "packet_number": st.integers(0, (1 << 62) - 1),
        "long": st.booleans(),
        "body": st.binary(max_size=60),
        "payload": st.binary(min_size=4, max_size=200),
        "flags": st.integers(0, 0x3F),
    }
)


@given(packet=packets)
def test_packets_are_the_same_bits(packet: dict[str, Any]) -> None:
    """Encrypting gives the same bytes as aioquic for every suite, header and packet number length."""
    ours, stock = both(packet["suite"], packet["secret"][: SECRET_BYTES.get(packet["suite"], 32)])
    number = packet["packet_number"]
    header = header_for(number, packet["number_bytes"], long=packet["long"], body=packet["body"], flags=packet["flags"])
    protected = stock.encrypt_packet(header, packet["payload"], number)
    assert ours.encrypt_packet(header, packet["payload"], number) == protected
    offset = len(header) - packet["number_bytes"]
    expected = (header, packet["payload"], number)
    assert ours.decrypt_packet(protected, offset, number) == stock.decrypt_packet(protected, offset, number) == expected


@given(packet=packets, expected=st.integers(0, (1 << 62) - 1))
def test_any_expectation_leads_to_the_same_number(packet: dict[str, Any], expected: int) -> None:
    """A truncated packet number is completed as aioquic does, also when that makes decryption fail."""
    ours, stock = both(packet["suite"])
    number = packet["packet_number"]
    header = header_for(number, packet["number_bytes"], long=packet["long"], body=packet["body"], flags=packet["flags"])
    protected = stock.encrypt_packet(header, packet["payload"], number)
    offset = len(header) - packet["number_bytes"]
    assert outcome(ours, protected, offset, expected) == outcome(stock, protected, offset, expected)


@given(
    suite=st.sampled_from(SUITES),
    packet=st.binary(min_size=1, max_size=100),
    offset=st.integers(1, 60),
    expected=st.integers(0, 1 << 20),
)
def test_garbage_fails_the_same_way(suite: CipherSuite, packet: bytes, offset: int, expected: int) -> None:
    """Whatever arrives: the same error as aioquic's, never another."""
    ours, stock = both(suite)
    assert outcome(ours, packet, offset, expected) == outcome(stock, packet, offset, expected)


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("number_bytes", [1, 2, 3, 4])
@pytest.mark.parametrize("length", [0, 1, 15, 16, 17])
def test_packet_too_short_to_sample(suite: CipherSuite, number_bytes: int, length: int) -> None:
    """A packet must have 16 bytes from the fourth after the start of its number (RFC 9001, section 5.4.2)."""
    ours, _ = both(suite)
    packet = bytes([SHORT | number_bytes - 1]) + bytes(8) + bytes(4 + length)
    with pytest.raises(CryptoError, match="too short" if length < 16 else None):
        ours.decrypt_packet(packet, 9, 0)


@pytest.mark.parametrize("suite", SUITES)
def test_key_updates_stay_in_step(suite: CipherSuite) -> None:
    """Four key updates, begun by either side in turn, between all combinations of ours and aioquic's."""
    for fast_sender in (True, False):
        secret = b"update".ljust(SECRET_BYTES.get(suite, 32), b".")
        sender = keyed_pair(suite, secret, fast=fast_sender)
        receiver = keyed_pair(suite, secret, fast=not fast_sender)
        number = 0
        for update in range(4):
            if update % 2:
                sender, receiver = receiver, sender
            sender.update_key()
            for _ in range(3):
                header = header_for(number, 2, long=False, body=b"12345678", phase=sender.key_phase)
                protected = sender.encrypt_packet(header, b"payload", number)
                assert receiver.decrypt_packet(protected, 9, number) == (header, b"payload", number)
                number += 1
            assert sender.key_phase == receiver.key_phase == (update + 1) % 2


def test_forged_key_update_changes_nothing() -> None:
    """A packet with the other key phase that does not verify leaves the keys as they are."""
    ours, stock = both(CipherSuite.AES_128_GCM_SHA256)
    other = keyed_pair(CipherSuite.AES_128_GCM_SHA256, b"another".ljust(32, b"."), fast=False)
    # The header protection key is the right one, so that the phase bit is read as it was meant.
    other.send.hp = stock.send.hp
    forged = other.encrypt_packet(header_for(7, 2, long=False, body=b"12345678", phase=1), b"forged", 7)
    with pytest.raises(CryptoError):
        ours.decrypt_packet(forged, 9, 7)
    assert ours.key_phase == 0
    header = header_for(8, 2, long=False, body=b"12345678")
    assert ours.decrypt_packet(stock.encrypt_packet(header, b"genuine", 8), 9, 8)[1] == b"genuine"


def test_without_keys_nothing_is_read_or_written() -> None:
    """Before the handshake has keys, and after they are discarded."""
    pair = CryptoPair()
    tally = Tally()
    install_fast_crypto({Epoch.HANDSHAKE: pair}, {}, tally)
    for _ in range(2):
        with pytest.raises(KeyUnavailableError):
            pair.decrypt_packet(bytes(100), 9, 0)
        with pytest.raises(CryptoError):
            pair.encrypt_packet(header_for(0, 2, long=False, body=b""), b"data", 0)
        pair.setup_initial(cid=bytes(8), is_client=True, version=1)
        assert pair.send.is_valid()
        pair.teardown()
    assert (tally.packets_without_key, tally.undecryptable_packets) == (2, 0)


def test_failures_are_counted_for_all_pairs_together() -> None:
    """Each packet that does not decrypt counts once, one that does not at all."""
    tally = Tally()
    pairs = {epoch: CryptoPair() for epoch in (Epoch.INITIAL, Epoch.ONE_RTT)}
    for pair in pairs.values():
        pair.recv.setup(cipher_suite=CipherSuite.AES_128_GCM_SHA256, secret=bytes(32), version=1)
        pair.send.setup(cipher_suite=CipherSuite.AES_128_GCM_SHA256, secret=bytes(32), version=1)
    install_fast_crypto(pairs, {}, tally)
    header = header_for(3, 2, long=False, body=b"12345678")
    for count, pair in enumerate(pairs.values(), start=1):
        protected = pair.encrypt_packet(header, b"payload", 3)
        pair.decrypt_packet(protected, 9, 3)
        with pytest.raises(CryptoError):
            pair.decrypt_packet(protected[:-1] + bytes([protected[-1] ^ 1]), 9, 3)
        assert tally.undecryptable_packets == count


def test_taking_over_keeps_keys_and_callbacks() -> None:
    """What was set up before stays, callbacks are still called, and taking over twice is harmless."""
    calls: list[str] = []
    pair = CryptoPair(recv_setup_cb=calls.append, send_teardown_cb=calls.append)
    pair.setup_initial(cid=bytes(8), is_client=True, version=1)
    secret = pair.recv.secret
    tally = Tally()
    install_fast_crypto({}, {1: pair}, tally)
    first = pair.recv
    install_fast_crypto({}, {1: pair}, tally)
    assert pair.recv is first
    assert pair.recv.secret == secret
    assert isinstance(pair.send, CryptoContext)
    pair.teardown()
    assert calls == ["tls", "tls"]
