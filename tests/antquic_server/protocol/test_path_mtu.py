"""Tests of ``antquic_server.protocol.path_mtu``: every state with every input, and searches on virtual paths."""

import math
from collections.abc import Callable
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antquic_server.protocol.path_mtu import (
    BLACK_HOLE_BURSTS,
    ERROR_RETRY_S,
    MAX_PROBES,
    MIN_DATAGRAM_BYTES,
    NEVER,
    RAISE_INTERVAL_S,
    STEP_BYTES,
    TRANSITIONS,
    BlackHoleDetector,
    MtuInput,
    MtuState,
    PathMtu,
)

NOW_S = 50.0


def search(minimum: int = 1200, initial: int = 1200, maximum: int = 1452) -> PathMtu:
    """A search that has not begun."""
    return PathMtu(min_bytes=minimum, initial_bytes=initial, max_bytes=maximum)


def explore(mtu: PathMtu, path_bytes: int, now_s: float = NOW_S) -> list[int]:
    """Let the search run on a path that carries ``path_bytes``; returns the sizes it has probed."""
    probed = []
    while (size := mtu.next_probe(now_s)) is not None:
        ticket = mtu.probe_sent()
        probed.append(size)
        assert mtu.next_probe(now_s) is None, "a second probe in flight"
        if size <= path_bytes:
            mtu.probe_acked(ticket, now_s)
        else:
            mtu.probe_lost(ticket, now_s)
    return probed


def lose(mtu: PathMtu, times: int = MAX_PROBES) -> None:
    """Lose the probe that is due, several times."""
    for _ in range(times):
        assert mtu.next_probe(NOW_S) is not None
        mtu.probe_lost(mtu.probe_sent(), NOW_S)


def in_state(state: MtuState) -> PathMtu:
    """Return a search that got into a state by the shortest way, at 1300 bytes where the state allows it."""
    mtu = search()
    if state is MtuState.DISABLED:
        return mtu
    mtu.handshake_confirmed()
    if state is MtuState.SEARCHING:
        return mtu
    explore(mtu, 1300)
    if state is MtuState.SEARCH_COMPLETE:
        return mtu
    mtu.path_changed(NOW_S)
    if state is MtuState.ERROR:
        lose(mtu)
    return mtu


def ack_probe(mtu: PathMtu) -> None:
    """The probe arrives; one that was never sent does not."""
    mtu.next_probe(NOW_S)
    mtu.probe_acked(mtu.probe_sent() if mtu.due_s <= NOW_S else -1, NOW_S)


def fail_probe(mtu: PathMtu) -> None:
    """The probe is lost for good; one that was never sent is not."""
    if mtu.next_probe(NOW_S) is not None:
        lose(mtu)


INPUTS: dict[MtuInput, Callable[[PathMtu], object]] = {
    MtuInput.CONFIRMED: lambda mtu: mtu.handshake_confirmed(),
    MtuInput.PROBE_ACKED: ack_probe,
    MtuInput.PROBE_FAILED: fail_probe,
    MtuInput.TIMER: lambda mtu: mtu.next_probe(NOW_S + RAISE_INTERVAL_S),
    MtuInput.BLACK_HOLE: lambda mtu: mtu.black_hole(NOW_S),
    MtuInput.PATH_CHANGED: lambda mtu: mtu.path_changed(NOW_S),
}

D, B, S, C, E = MtuState
WALK: dict[MtuState, tuple[MtuState, ...]] = {
    #            CONFIRMED, PROBE_ACKED, PROBE_FAILED, TIMER, BLACK_HOLE, PATH_CHANGED
    D: (S, D, D, D, D, D),
    B: (B, S, E, B, B, B),
    S: (S, C, S, S, B, B),
    C: (C, C, C, S, B, B),
    E: (E, E, E, B, E, B),
}
"""Where each input leads, written down once more and by hand. In SEARCHING the ceiling is probed, hence complete."""


@pytest.mark.parametrize(("state", "event"), list(product(MtuState, MtuInput)), ids=lambda item: item.name)
def test_every_input_in_every_state(state: MtuState, event: MtuInput) -> None:
    """Each of the 30 pairs leads to the state it should, with a size within bounds and a coherent timer."""
    mtu = in_state(state)
    if event is MtuInput.BLACK_HOLE and state is MtuState.SEARCHING:
        mtu.size_bytes = 1300
    if event is MtuInput.BLACK_HOLE and state is MtuState.BASE:
        mtu = PathMtu(min_bytes=1280, initial_bytes=1280, max_bytes=1452)
        mtu.handshake_confirmed()
        mtu.path_changed(NOW_S)
    assert mtu.state is state

    INPUTS[event](mtu)

    assert mtu.state is WALK[state][list(MtuInput).index(event)]
    assert MIN_DATAGRAM_BYTES <= mtu.size_bytes <= mtu.max_bytes
    if mtu.state in (MtuState.BASE, MtuState.SEARCHING):
        assert mtu.due_s == 0.0
    elif mtu.state is MtuState.DISABLED:
        assert mtu.due_s == NEVER
    else:
        assert mtu.due_s > NOW_S


def test_walk_and_table_agree() -> None:
    """The table of the module leaves out exactly the pairs that change nothing."""
    for (state, event), following in TRANSITIONS.items():
        expected = WALK[state][list(MtuInput).index(event)]
        # Reaching the ceiling ends the search at once, which the table says in words.
        assert expected is following or (following, expected) == (MtuState.SEARCHING, MtuState.SEARCH_COMPLETE)
    silent = set(product(MtuState, MtuInput)) - set(TRANSITIONS)
    assert all(WALK[state][list(MtuInput).index(event)] is state for state, event in silent)


def test_path_that_carries_the_maximum_costs_one_probe() -> None:
    """The ceiling is tried first."""
    mtu = search()
    mtu.handshake_confirmed()

    assert explore(mtu, 1452) == [1452]
    assert (mtu.state, mtu.size_bytes, mtu.due_s) == (MtuState.SEARCH_COMPLETE, 1452, NEVER)


@given(
    path=st.integers(1200, 9000),
    bounds=st.lists(st.integers(1200, 9000), min_size=2, max_size=2).map(sorted),
)
def test_search_finds_the_mtu_of_any_path(path: int, bounds: list[int]) -> None:
    """The result is the largest multiple of four that fits, or the maximum, after few probes none of them above it."""
    initial, maximum = bounds
    mtu = search(initial=initial, maximum=maximum)
    mtu.handshake_confirmed()
    probed = explore(mtu, path)

    assert mtu.state is MtuState.SEARCH_COMPLETE
    if path >= maximum:
        assert mtu.size_bytes == maximum
    elif path <= initial:
        assert mtu.size_bytes == initial
    else:
        assert initial <= mtu.size_bytes <= path < max(mtu.size_bytes, initial) + STEP_BYTES
    levels = 1 + math.ceil(math.log2((maximum - initial) / STEP_BYTES + 2))
    assert len(probed) <= MAX_PROBES * levels
    assert len(set(probed)) <= levels
    assert all(initial < size <= maximum for size in probed)


@pytest.mark.parametrize("ip_mtu", [1280, 1300, 1380, 1400, 1420, 1480, 1492])
@pytest.mark.parametrize("headers", [28, 48])
def test_common_links_are_met_exactly(ip_mtu: int, headers: int) -> None:
    """What tunnels and DSL leave over is found to the byte."""
    mtu = search()
    mtu.handshake_confirmed()
    explore(mtu, ip_mtu - headers)

    assert mtu.size_bytes == min(1452, ip_mtu - headers)


@given(path=st.integers(1200, 1500), lost=st.lists(st.booleans(), max_size=40))
def test_single_losses_do_not_narrow_the_path(path: int, lost: list[bool]) -> None:
    """A probe that fits may be lost twice in a row; its size is believed only after the third loss."""
    mtu = search()
    mtu.handshake_confirmed()
    fates = iter(lost)
    in_a_row = 0
    while (size := mtu.next_probe(NOW_S)) is not None:
        in_a_row = in_a_row + 1 if next(fates, False) and in_a_row < MAX_PROBES - 1 else 0
        ticket = mtu.probe_sent()
        if size <= path and not in_a_row:
            mtu.probe_acked(ticket, NOW_S)
        else:
            mtu.probe_lost(ticket, NOW_S)
        if size > path:
            in_a_row = 0

    assert mtu.size_bytes == (1452 if path >= 1452 else path // STEP_BYTES * STEP_BYTES)


def test_raise_timer_finds_what_has_become_larger() -> None:
    """After ten minutes the search begins again above what is known, and not before."""
    mtu = search()
    mtu.handshake_confirmed()
    explore(mtu, 1300)
    assert mtu.due_s == NOW_S + RAISE_INTERVAL_S
    assert mtu.next_probe(NOW_S + RAISE_INTERVAL_S - 0.1) is None

    assert explore(mtu, 1500, NOW_S + RAISE_INTERVAL_S) == [1452]
    assert mtu.size_bytes == 1452


def test_raise_timer_on_an_unchanged_path_changes_nothing() -> None:
    """Probes are lost again, the size stays, and the timer starts anew."""
    mtu = search()
    mtu.handshake_confirmed()
    explore(mtu, 1300)
    later_s = NOW_S + RAISE_INTERVAL_S

    assert min(explore(mtu, 1300, later_s)) > 1300
    assert (mtu.size_bytes, mtu.due_s) == (1300, later_s + RAISE_INTERVAL_S)


def test_black_hole_falls_back_and_searches_below() -> None:
    """The minimum is proven first; the size that failed is not tried again before the raise timer."""
    mtu = search()
    mtu.handshake_confirmed()
    explore(mtu, 1452)

    assert mtu.black_hole(NOW_S)
    assert (mtu.state, mtu.size_bytes) == (MtuState.BASE, 1200)
    probed = explore(mtu, 1300)
    assert probed[0] == 1200
    assert max(probed) == 1448
    assert mtu.size_bytes == 1300
    assert explore(mtu, 1452, NOW_S + RAISE_INTERVAL_S) == [1452]


def test_new_path_is_explored_up_to_the_maximum_again() -> None:
    """Nothing learnt on the old path holds: neither its size nor its ceiling."""
    mtu = search()
    mtu.handshake_confirmed()
    explore(mtu, 1240)
    mtu.path_changed(NOW_S)

    assert mtu.size_bytes == 1200
    assert explore(mtu, 1452) == [1200, 1452]


@pytest.mark.parametrize("minimum", [1200, 1280])
def test_path_that_carries_not_even_the_minimum(minimum: int) -> None:
    """The smallest size QUIC knows is used; a minute later the minimum is tried again."""
    mtu = search(minimum=minimum, initial=1300)
    mtu.handshake_confirmed()
    mtu.path_changed(NOW_S)
    assert mtu.size_bytes == minimum

    lose(mtu)
    assert (mtu.state, mtu.size_bytes) == (MtuState.ERROR, 1200)
    assert mtu.next_probe(NOW_S + ERROR_RETRY_S - 0.1) is None
    assert explore(mtu, 1452, NOW_S + ERROR_RETRY_S) == [minimum, 1452]


def test_black_hole_at_the_minimum_falls_to_the_smallest_size() -> None:
    """A configured minimum is a belief; 1200 is the law."""
    mtu = search(minimum=1280, initial=1280, maximum=1280)
    mtu.handshake_confirmed()
    assert mtu.state is MtuState.SEARCH_COMPLETE

    assert mtu.black_hole(NOW_S)
    assert mtu.size_bytes == 1200
    assert not mtu.black_hole(NOW_S)
    explore(mtu, 1452)
    assert mtu.size_bytes == 1280


def test_reports_about_old_probes_are_ignored() -> None:
    """A probe of the old path proves nothing on the new one, whatever became of it."""
    mtu = search()
    mtu.handshake_confirmed()
    assert mtu.next_probe(NOW_S) == 1452
    old = mtu.probe_sent()
    mtu.path_changed(NOW_S)
    mtu.probe_acked(old, NOW_S)
    for _ in range(MAX_PROBES):
        mtu.probe_lost(old, NOW_S)

    assert (mtu.state, mtu.size_bytes) == (MtuState.BASE, 1200)


def test_peer_limit_holds_for_everything() -> None:
    """What the peer does not take is neither sent nor probed, even where the configuration says more."""
    mtu = search(minimum=1300, initial=1400, maximum=1452)
    mtu.limit(1250)
    mtu.handshake_confirmed()
    assert (mtu.size_bytes, mtu.state) == (1250, MtuState.SEARCH_COMPLETE)
    mtu.path_changed(NOW_S)
    assert explore(mtu, 1500) == [1250]

    mtu = search()
    mtu.limit(1350)
    mtu.handshake_confirmed()
    assert explore(mtu, 1500) == [1350]


@pytest.mark.parametrize("sizes", [(1199, 1200, 1452), (1300, 1200, 1452), (1200, 1453, 1452)])
def test_sizes_out_of_order_are_refused(sizes: tuple[int, int, int]) -> None:
    """1200 <= min <= initial <= max."""
    with pytest.raises(ValueError, match="not in order"):
        search(*sizes)


class TestBlackHoleDetector:
    """Which losses are blamed on the size."""

    def test_large_lost_and_small_arriving_three_times_is_a_black_hole(self) -> None:
        """Each round trip loses what is large and acknowledges what is small."""
        detector = BlackHoleDetector()
        verdicts = []
        for number in range(BLACK_HOLE_BURSTS):
            detector.lost(1452, number + 0.1)
            verdicts.append(detector.acked(1200, number + 0.5))

        assert verdicts == [False, False, True]

    def test_one_large_arrival_clears_the_path(self) -> None:
        """Whoever carries one carries all of that size."""
        detector = BlackHoleDetector()
        for number in range(10):
            detector.lost(1452, number + 0.1)
            assert not detector.acked(1200, number + 0.3)
            assert detector.suspicious
            assert not detector.acked(1452, number + 0.5)
            assert not detector.suspicious

    def test_arrivals_of_middling_size_do_not_clear_larger_losses(self) -> None:
        """A path that shrank to 1300 still carries 1280."""
        detector = BlackHoleDetector()
        verdicts = []
        for number in range(BLACK_HOLE_BURSTS):
            detector.lost(1452, number + 0.1)
            verdicts.append(detector.acked(1280, number + 0.5))

        assert verdicts[-1]

    def test_losses_of_one_round_trip_count_once(self) -> None:
        """A full window is lost in one piece, and reported in several."""
        detector = BlackHoleDetector()
        for number in range(20):
            detector.lost(1452, 0.001 * number)
            assert not detector.acked(1200, 1.0 + number)

    def test_outage_is_no_black_hole(self) -> None:
        """While nothing arrives nothing is concluded, however much is lost."""
        detector = BlackHoleDetector()
        for number in range(20):
            detector.lost(1452, float(number))
        assert not detector.acked(1200, 30.0)
        assert not detector.acked(1452, 31.0)
        assert not detector.suspicious

    def test_small_losses_are_never_blamed_on_the_size(self) -> None:
        """1200 bytes fit every path; who loses those loses for another reason."""
        detector = BlackHoleDetector()
        for number in range(10):
            detector.lost(1200, number + 0.1)
            assert not detector.acked(100, number + 0.5)

    def test_reset_forgets_what_was_sent_before(self) -> None:
        """Losses of the old size, found late, do not count against the new one."""
        detector = BlackHoleDetector()
        for number in range(2):
            detector.lost(1452, number + 0.1)
            detector.acked(1200, number + 0.5)
        detector.reset(3.0)
        detector.lost(1452, 2.9)

        assert not detector.suspicious


def test_a_header_around_each_datagram_is_left_room_for() -> None:
    """Before anything is sent as after a change of path; without it, the whole range counts again."""
    search = PathMtu(min_bytes=1280, initial_bytes=1400, max_bytes=1452)
    search.set_overhead(8)
    assert (search.size_bytes, search.min_bytes, search.max_bytes) == (MIN_DATAGRAM_BYTES, 1280, 1444)
    search.handshake_confirmed()
    assert search.next_probe(0.0) == 1444
    search.probe_acked(search.probe_sent(), 0.0)
    search.set_overhead(0)
    search.path_changed(1.0)
    assert (search.size_bytes, search.max_bytes) == (1280, 1452)


def test_a_header_never_pushes_datagrams_below_what_quic_needs() -> None:
    """Nor does it raise what the peer accepts."""
    search = PathMtu(min_bytes=1200, initial_bytes=1200, max_bytes=1204)
    search.set_overhead(100)
    assert search.max_bytes == MIN_DATAGRAM_BYTES
    search = PathMtu(min_bytes=1200, initial_bytes=1200, max_bytes=1452)
    search.set_overhead(8)
    search.limit(1300)
    search.set_overhead(0)
    assert search.max_bytes == 1300
