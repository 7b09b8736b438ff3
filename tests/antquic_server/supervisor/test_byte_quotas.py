"""Tests of byte quotas by period."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antquic_server.supervisor import byte_quotas
from antquic_server.supervisor.byte_quotas import SHARED_ENTRIES, ByteQuotas
from support.coordination import ALICE, BOB

DAY_S = 86_400.0


def test_peers_and_the_node_run_out_by_themselves() -> None:
    """A limit that is reached is used up; 0 is none."""
    quotas = ByteQuotas(DAY_S, 5.0)
    quotas.use(ALICE, 60, 6.0)
    quotas.use(BOB, 30, 6.0)

    assert quotas.node_bytes == 90
    assert quotas.peers == 2
    assert quotas.is_node_out(90, 7.0)
    assert not quotas.is_node_out(91, 7.0)
    assert not quotas.is_node_out(0, 7.0)
    assert quotas.is_peer_out(ALICE, 60, 7.0)
    assert not quotas.is_peer_out(BOB, 60, 7.0)
    assert not quotas.is_peer_out(ALICE, 0, 7.0)
    assert not quotas.is_peer_out(bytes(32), 1, 7.0)


def test_each_period_begins_with_nothing_used() -> None:
    """Periods do not drift, however long nobody looks."""
    quotas = ByteQuotas(10.0, 100.0)
    quotas.use(ALICE, 60, 109.9)
    assert quotas.is_peer_out(ALICE, 60, 109.9)
    assert not quotas.is_peer_out(ALICE, 60, 110.0)
    quotas.use(ALICE, 5, 110.0)
    assert quotas.node_bytes == 5
    assert quotas.ends_in_s(137.0) == 3.0
    assert quotas.node_bytes == 0


def test_change_of_the_period_forgives_nothing() -> None:
    """A longer period keeps what was used; a shorter one may be over at once, which is its point."""
    quotas = ByteQuotas(10.0, 0.0)
    quotas.use(ALICE, 60, 9.0)
    quotas.change_period(20.0, 9.0)
    assert quotas.is_peer_out(ALICE, 60, 19.0)
    quotas.change_period(5.0, 19.0)
    assert not quotas.is_peer_out(ALICE, 60, 19.0)
    assert quotas.ends_in_s(19.0) == 1.0


def test_table_of_peers_does_not_grow_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond its size peers share entries: they may run out together, but never by turns start afresh."""
    monkeypatch.setattr(byte_quotas, "MAX_KNOWN_PEERS", 10)
    quotas = ByteQuotas(DAY_S, 0.0)
    peers = [number.to_bytes(32, "big") for number in range(3 * SHARED_ENTRIES)]
    for peer_id in peers:
        quotas.use(peer_id, 7, 1.0)

    assert quotas.peers <= 10 + SHARED_ENTRIES
    assert all(quotas.is_peer_out(peer_id, 7, 1.0) for peer_id in peers)
    assert not any(quotas.is_peer_out(peer_id, 8, 1.0) for peer_id in peers[:10])


@given(uses=st.lists(st.tuples(st.sampled_from([ALICE, BOB]), st.integers(0, 1000), st.floats(0, 30)), max_size=30))
def test_node_has_used_what_its_peers_have(uses: list[tuple[bytes, int, float]]) -> None:
    """In every period."""
    quotas = ByteQuotas(10.0, 0.0)
    now_s, period, used = 0.0, 0, {ALICE: 0, BOB: 0}
    for peer_id, amount, pause_s in uses:
        now_s += pause_s
        if now_s // 10.0 > period:
            period, used = int(now_s // 10.0), {ALICE: 0, BOB: 0}
        quotas.use(peer_id, amount, now_s)
        used[peer_id] += amount

        assert quotas.node_bytes == sum(used.values())
        for each, amount_used in used.items():
            assert quotas.is_peer_out(each, 500, now_s) == (amount_used >= 500)
