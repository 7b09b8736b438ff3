"""Token buckets: never more than burst and rate allow, never less than fair."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antquic_server.protocol.address import SocketAddress
from antquic_server.protocol.limits import KeyedBuckets, TokenBucket, address_prefixes
from support.strategies import socket_addresses

START_S = 1000.0


def test_new_bucket_allows_its_burst_and_no_more() -> None:
    """A bucket starts full, whenever it is first used."""
    bucket = TokenBucket(rate_per_s=1, burst=3)
    assert [bucket.take(START_S) for _ in range(5)] == [True, True, True, False, False]


def test_bucket_regains_tokens_at_its_rate() -> None:
    """Half a token is not enough, a whole one is."""
    bucket = TokenBucket(rate_per_s=2, burst=1)
    assert bucket.take(START_S)
    assert not bucket.take(START_S + 0.25)
    assert bucket.take(START_S + 0.5)
    assert not bucket.take(START_S + 0.75)


def test_bucket_never_holds_more_than_its_burst() -> None:
    """An idle year buys no flood."""
    bucket = TokenBucket(rate_per_s=10, burst=2)
    assert bucket.take(START_S)
    assert [bucket.take(START_S + 3e7) for _ in range(3)] == [True, True, False]


def test_amount_is_taken_whole_or_not_at_all() -> None:
    """A refusal costs nothing."""
    bucket = TokenBucket(rate_per_s=1, burst=10)
    assert bucket.take(START_S, 8)
    assert not bucket.take(START_S, 3)
    assert bucket.take(START_S, 2)
    assert not bucket.take(START_S, 0.5)


def test_clock_that_steps_back_adds_nothing() -> None:
    """Nor is the same second earned twice."""
    bucket = TokenBucket(rate_per_s=1, burst=2)
    assert bucket.take(START_S, 2)
    assert not bucket.take(START_S - 100)
    assert not bucket.take(START_S)
    assert bucket.take(START_S + 1)


def test_rate_zero_allows_the_burst_only() -> None:
    """A bucket that never refills."""
    bucket = TokenBucket(rate_per_s=0, burst=1)
    assert bucket.take(START_S)
    assert not bucket.take(START_S + 1e9)


@given(
    rate_per_s=st.floats(0, 1000),
    burst=st.integers(0, 20),
    steps_s=st.lists(st.floats(0, 2), max_size=50),
)
def test_no_schedule_gets_more_than_burst_plus_rate(rate_per_s: float, burst: int, steps_s: list[float]) -> None:
    """Both kinds of bucket hold the bound, and agree with each other."""
    bucket = TokenBucket(rate_per_s, burst)
    keyed = KeyedBuckets(rate_per_s, burst, capacity=1)
    now_s = START_S
    taken = 0
    for step_s in steps_s:
        now_s += step_s
        allowed = bucket.take(now_s)
        assert keyed.take(b"key", now_s) is allowed
        taken += allowed
    assert taken <= burst + rate_per_s * (now_s - START_S) + 1e-6


def test_bucket_may_begin_with_other_than_its_burst() -> None:
    """From a moment on; a debt is paid first, and more than the burst is no more than that."""
    bucket = TokenBucket(rate_per_s=10, burst=5, tokens=-10, since_s=START_S)
    assert bucket.owed(START_S) == 10
    assert not bucket.overdraw(START_S + 1.0, 1)
    assert bucket.overdraw(START_S + 1.1, 4)
    assert bucket.owed(START_S + 1.1) == pytest.approx(3)
    assert bucket.owed(START_S + 2.0) == 0
    assert not TokenBucket(rate_per_s=0, burst=5, tokens=9).take(START_S, 5.1)


def test_keyed_bucket_can_be_overspent() -> None:
    """What is missing has to come back first."""
    buckets = KeyedBuckets(rate_per_s=1, burst=3, capacity=1)
    assert buckets.tokens(b"key", START_S) == 3
    buckets.spend(b"key", 5)
    assert buckets.tokens(b"key", START_S) == -2
    assert not buckets.take(b"key", START_S + 2.5)
    assert buckets.take(b"key", START_S + 3)
    assert buckets.tokens(b"key", START_S + 100) == 3


def test_changed_limit_wins_no_tokens() -> None:
    """Tokens are what they were when the limit changes, no more than the new burst, and grow at the new rate."""
    bucket = TokenBucket(10.0, 100.0)
    assert bucket.take(0.0, 100.0)
    bucket.change(1.0, 50.0, 2.0)  # 20 earned at the old rate
    assert not bucket.take(2.0, 21.0)
    assert bucket.take(2.0, 20.0)
    assert not bucket.take(3.0, 2.0)
    assert bucket.take(3.0, 1.0)
    bucket.change(1.0, 1000.0, 3.0)
    assert not bucket.take(3.0, 1.0)
    full = TokenBucket(1.0, 100.0)
    full.change(1.0, 10.0, 0.0)
    assert not full.take(0.0, 11.0)
    with pytest.raises(ValueError, match="rate_per_s"):
        full.change(-1.0, 1.0, 0.0)


def test_keys_have_buckets_of_their_own() -> None:
    """One key at its limit leaves others alone."""
    buckets = KeyedBuckets(rate_per_s=1, burst=1, capacity=1 << 16)
    assert buckets.take(b"busy", START_S)
    assert not buckets.take(b"busy", START_S)
    # Two given keys collide once in 65536 processes; that eight in a row do is not a case.
    assert any(buckets.take(bytes((i,)), START_S) for i in range(8))


def test_keys_that_collide_share_a_bucket() -> None:
    """A new key finds the tokens that are left, not fresh ones: one step past the table's capacity."""
    buckets = KeyedBuckets(rate_per_s=1, burst=2, capacity=1)
    assert buckets.take(b"one", START_S)
    assert buckets.take(b"two", START_S)
    assert not buckets.take(b"three", START_S)
    assert not buckets.take(b"one", START_S)
    assert buckets.take(b"four", START_S + 1)


def test_flood_of_keys_wins_no_tokens() -> None:
    """However many keys come, at most one burst per bucket goes out."""
    buckets = KeyedBuckets(rate_per_s=0, burst=2, capacity=16)
    taken = sum(buckets.take(i.to_bytes(4, "big"), START_S) for i in range(5000))
    assert taken == 32


@pytest.mark.parametrize(("rate_per_s", "burst", "capacity"), [(-1, 1, 1), (float("nan"), 1, 1), (1, -1, 1), (1, 1, 0)])
def test_impossible_limit_cannot_be_constructed(rate_per_s: float, burst: float, capacity: int) -> None:
    """A limit that never refuses, or never allows, would go unnoticed for long."""
    with pytest.raises(ValueError, match=r"rate_per_s|burst|capacity"):
        KeyedBuckets(rate_per_s, burst, capacity)
    if capacity:
        with pytest.raises(ValueError, match=r"rate_per_s|burst"):
            TokenBucket(rate_per_s, burst)


@pytest.mark.parametrize(
    ("text", "expected_hex"),
    [
        ("198.18.0.5:443", ["c6120005"]),
        ("[::ffff:198.18.0.5]:443", ["c6120005"]),
        ("[2001:db8:1:203:4::5]:443", ["20010db800010203", "20010db8000102", "20010db80001"]),
    ],
    ids=["ipv4", "ipv4-mapped", "ipv6"],
)
def test_prefixes_of_an_address(text: str, expected_hex: list[str]) -> None:
    """/32 for IPv4; /64, /56 and /48 for IPv6."""
    assert [prefix.hex() for prefix in address_prefixes(SocketAddress.parse(text))] == expected_hex


@given(address=socket_addresses())
def test_prefixes_do_not_depend_on_the_port_and_are_distinct(address: SocketAddress) -> None:
    """Distinct as keys of one table, too."""
    prefixes = address_prefixes(address)
    assert prefixes == address_prefixes(SocketAddress(host=address.host, port=0))
    assert len(set(prefixes)) == len(prefixes)
    assert all(address.host.packed.startswith(prefix) for prefix in prefixes)


def test_overdrawn_bucket_pays_before_it_gives_again() -> None:
    """A lump greater than the burst passes while there is anything, and the long run keeps to the rate."""
    bucket = TokenBucket(10.0, 5.0)
    assert bucket.overdraw(0.0, 25.0)
    assert not bucket.overdraw(1.9, 1.0)
    assert not bucket.take(1.9)
    assert bucket.overdraw(2.1, 1.0)


def test_tokens_given_back_do_not_exceed_the_burst() -> None:
    """What did not happen costs nothing, and wins nothing."""
    bucket = TokenBucket(10.0, 5.0)
    assert bucket.take(0.0, 4.0)
    bucket.give_back(3.0)
    assert bucket.take(0.0, 4.0)
    bucket.give_back(50.0)
    assert not bucket.take(0.0, 6.0)
