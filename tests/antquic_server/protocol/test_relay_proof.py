"""Nonces that show where a leg receives: for one leg at one address, and not for long."""

from hypothesis import given
from hypothesis import strategies as st

from antquic_server.protocol.relay_channel import CHANNEL_ID_BYTES, KEY_BYTES, NO_NONCE, NONCE_BYTES
from antquic_server.protocol.relay_proof import EPOCH_S, AddressProofs

SECRET = b"s" * 32
PROOFS = AddressProofs(SECRET)

channel_ids = st.binary(min_size=CHANNEL_ID_BYTES, max_size=CHANNEL_ID_BYTES)
keys = st.binary(min_size=KEY_BYTES, max_size=KEY_BYTES)
ports = st.integers(0, 65535)
sources = st.tuples(st.ip_addresses(v=4).map(str), ports) | st.tuples(
    st.ip_addresses(v=6).map(str), ports, st.integers(0, 2**20 - 1), st.integers(0, 2**32 - 1)
)
legs = st.tuples(channel_ids, keys, sources)
times = st.integers(0, 10**9).map(float)


@given(legs, times)
def test_nonce_is_known_again(leg: tuple[bytes, bytes, tuple[object, ...]], now_s: float) -> None:
    """In its epoch and the next one, nowhere before and never after; by whoever has the secret."""
    channel_id, key, source = leg
    nonce = PROOFS.nonce(channel_id, key, source, now_s)
    assert len(nonce) == NONCE_BYTES
    assert PROOFS.nonce(channel_id, key, source, now_s) == nonce != NO_NONCE
    found = [
        PROOFS.proves(nonce, channel_id=channel_id, leg_key=key, source=source, now_s=now_s + epochs * EPOCH_S)
        for epochs in (-2, -1, 0, 1, 2, 3)
    ]
    assert found == [False, False, True, True, False, False]
    other = AddressProofs(b"t" * 32)
    assert not other.proves(nonce, channel_id=channel_id, leg_key=key, source=source, now_s=now_s)


@given(legs, legs, times)
def test_nonce_of_another_leg_or_address_proves_nothing(
    one: tuple[bytes, bytes, tuple[object, ...]], other: tuple[bytes, bytes, tuple[object, ...]], now_s: float
) -> None:
    """Whichever part of the two differs."""
    nonce = PROOFS.nonce(*one, now_s)
    for part in range(3):
        mixed: list[object] = list(one)
        mixed[part] = other[part]
        channel_id, key, source = mixed
        same = mixed == list(one)
        assert PROOFS.proves(nonce, channel_id=channel_id, leg_key=key, source=source, now_s=now_s) == same  # type: ignore[arg-type]


def test_nearly_the_same_addresses_have_different_nonces() -> None:
    """None can be read as another one: ports next to hosts, scopes next to ports."""
    sources: list[tuple[object, ...]] = [
        ("192.0.2.1", 11),
        ("192.0.2.11", 1),
        ("192.0.2.1", 1),
        ("::1", 1, 0, 0),
        ("::1", 1, 0, 1),
        ("::1", 1, 1, 0),
        ("::1", 10, 0, 0),
    ]
    assert len({PROOFS.nonce(bytes(7), bytes(32), source, 0.0) for source in sources}) == len(sources)


@given(st.binary(max_size=40), times)
def test_guesses_prove_nothing(nonce: bytes, now_s: float) -> None:
    """Of any length, the zeros of a first bind included."""
    for guess in (nonce, NO_NONCE):
        assert not PROOFS.proves(guess, channel_id=bytes(7), leg_key=bytes(32), source=("::1", 1, 0, 0), now_s=now_s)
