"""Retry tokens: opened by every worker, for one client, one Retry and a short while."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antquic_server.errors import TokenDecodeError
from antquic_server.protocol.address import SocketAddress
from antquic_server.protocol.retry_token import InvalidTokenError, RetryToken, RetryTokenSealer
from support.strategies import connection_ids, mutations, random_source, socket_addresses

ROOT_SECRET = bytes(range(32))
ADDRESS = SocketAddress.parse("198.18.0.5:4433")
ORIGINAL = b"\x01" * 8
RETRY = b"\x02" * 10
NOW_S = 1_800_000_000.0  # at a border: 500000 epochs of an hour
CONTENT = RetryToken(original_destination_connection_id=ORIGINAL, retry_source_connection_id=RETRY)


def seal(
    *,
    sealer: RetryTokenSealer | None = None,
    address: SocketAddress = ADDRESS,
    original: bytes = ORIGINAL,
    retry: bytes = RETRY,
    now_s: float = NOW_S,
    seed: bytes = b"seed",
) -> bytes:
    """Seal a token, with a fresh sealer unless told otherwise."""
    return (sealer or RetryTokenSealer(ROOT_SECRET)).seal(
        address=address,
        original_destination_connection_id=original,
        retry_source_connection_id=retry,
        now_s=now_s,
        random_bytes=random_source(seed),
    )


def open_token(
    token: bytes,
    *,
    sealer: RetryTokenSealer | None = None,
    address: SocketAddress = ADDRESS,
    destination: bytes = RETRY,
    now_s: float = NOW_S,
) -> RetryToken:
    """Open a token, as another worker than the one that sealed it unless told otherwise."""
    return (sealer or RetryTokenSealer(ROOT_SECRET)).open_untrusted(
        token=token, address=address, destination_connection_id=destination, now_s=now_s
    )


def assert_foreign(token: bytes, *, sealer: RetryTokenSealer | None = None, now_s: float = NOW_S) -> None:
    """Expect the error that means "as if there were no token", not its stricter child."""
    with pytest.raises(TokenDecodeError) as caught:
        open_token(token, sealer=sealer, now_s=now_s)
    assert not isinstance(caught.value, InvalidTokenError)


@given(
    address=socket_addresses(),
    original=connection_ids(),
    retry=connection_ids(),
    now_s=st.floats(0, 4e9),
    delay_s=st.floats(0, 14.9),
)
def test_token_is_opened_by_another_worker(
    address: SocketAddress, original: bytes, retry: bytes, now_s: float, delay_s: float
) -> None:
    """All it takes is the shared secret; both connection IDs come back."""
    token = seal(address=address, original=original, retry=retry, now_s=now_s)
    assert len(token) <= 101
    opened = open_token(token, address=address, destination=retry, now_s=now_s + delay_s)
    assert opened == RetryToken(original_destination_connection_id=original, retry_source_connection_id=retry)


def test_token_lives_across_one_change_of_keys() -> None:
    """Sealed in the last second of an epoch, opened in the next."""
    token = seal(now_s=NOW_S - 1)
    assert open_token(token, now_s=NOW_S + 1) == CONTENT


def test_token_lives_for_its_lifetime_only() -> None:
    """Fifteen seconds by default, to the millisecond."""
    token = seal()
    assert open_token(token, now_s=NOW_S + 15) == CONTENT
    with pytest.raises(InvalidTokenError, match="expired"):
        open_token(token, now_s=NOW_S + 15.002)


def test_lifetime_can_be_set() -> None:
    """Both numbers are arguments."""
    sealer = RetryTokenSealer(ROOT_SECRET, rotation_s=10, lifetime_s=5)
    token = seal(sealer=sealer)
    assert open_token(token, sealer=sealer, now_s=NOW_S + 5) == CONTENT
    with pytest.raises(InvalidTokenError, match="expired"):
        open_token(token, sealer=sealer, now_s=NOW_S + 6)


def test_token_survives_a_clock_that_was_set_back_a_little() -> None:
    """Within the lifetime; a token from further in the future is not believed."""
    middle_s = NOW_S + 100
    token = seal(now_s=middle_s)
    assert open_token(token, now_s=middle_s - 5) == CONTENT
    with pytest.raises(InvalidTokenError, match="expired"):
        open_token(token, now_s=middle_s - 16)


@pytest.mark.parametrize("now_s", [NOW_S + 7200, NOW_S - 1], ids=["two epochs later", "an epoch earlier"])
def test_token_of_another_epoch_counts_as_foreign(now_s: float) -> None:
    """Its key is gone, or not there yet."""
    assert_foreign(seal(), now_s=now_s)


@pytest.mark.parametrize("address", ["198.18.0.6:4433", "198.18.0.5:4434", "[2001:db8::5]:4433"])
def test_token_for_another_address_is_invalid(address: str) -> None:
    """Host and port both count."""
    with pytest.raises(InvalidTokenError, match="another address"):
        open_token(seal(), address=SocketAddress.parse(address))


def test_token_for_another_connection_id_is_invalid() -> None:
    """The client must use the connection ID of our Retry; not the one it chose before."""
    with pytest.raises(InvalidTokenError, match="another connection ID"):
        open_token(seal(), destination=ORIGINAL)


def test_token_does_not_depend_on_how_the_socket_saw_the_client() -> None:
    """An IPv4 client is the same behind a socket for both families."""
    token = seal(address=SocketAddress.parse("[::ffff:198.18.0.5]:4433"))
    assert open_token(token) == CONTENT
    assert open_token(token, address=SocketAddress.parse("[::ffff:198.18.0.5]:4433")) == CONTENT


def test_token_of_another_node_counts_as_foreign() -> None:
    """Peers present tokens they got elsewhere; that is no offence."""
    assert_foreign(seal(sealer=RetryTokenSealer(b"another root secret of 32 bytes!")))


def test_cut_token_counts_as_foreign() -> None:
    """Every shorter prefix."""
    token = seal()
    for length in range(len(token)):
        assert_foreign(token[:length])


@pytest.mark.parametrize("length", [1, 64, 1000])
def test_continued_token_counts_as_foreign(length: int) -> None:
    """However much follows."""
    assert_foreign(seal() + bytes(length))


@given(data=st.data())
def test_mutated_token_counts_as_foreign(data: st.DataObject) -> None:
    """Only the decode error leaves, and never a different content."""
    token = seal()
    mutated = data.draw(mutations(token))
    if mutated == token:
        return
    assert_foreign(mutated)


@given(token=st.binary(max_size=200))
def test_arbitrary_bytes_count_as_foreign(token: bytes) -> None:
    """Also with the current epoch in front."""
    assert_foreign(token)
    assert_foreign(seal()[:4] + token)


def test_two_tokens_for_one_client_differ() -> None:
    """The nonce is fresh, so tokens cannot be linked."""
    assert seal(seed=b"one") != seal(seed=b"two")


def test_sealer_keeps_few_keys() -> None:
    """Years of epochs do not pile up; the neighbours of the current one stay."""
    sealer = RetryTokenSealer(ROOT_SECRET)
    for hour in range(100):
        now_s = NOW_S + hour * 3600
        assert open_token(seal(sealer=sealer, now_s=now_s), sealer=sealer, now_s=now_s) == CONTENT
    assert len(sealer._ciphers) <= 3


@pytest.mark.parametrize(("rotation_s", "lifetime_s"), [(10.0, 11.0), (10.0, 0.0), (10.0, -1.0)])
def test_impossible_lifetime_is_refused(rotation_s: float, lifetime_s: float) -> None:
    """A token must never outlive its key."""
    with pytest.raises(ValueError, match="lifetime_s is"):
        RetryTokenSealer(ROOT_SECRET, rotation_s=rotation_s, lifetime_s=lifetime_s)


@pytest.mark.parametrize("length", [21, 256])
def test_connection_id_that_cannot_be_is_not_sealed(length: int) -> None:
    """Our own mistake is an error here."""
    with pytest.raises(ValueError, match=r"connection ID"):
        seal(original=bytes(length))
