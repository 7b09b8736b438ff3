"""One live connection per peer, the same at both ends."""

from hypothesis import given
from hypothesis import strategies as st

from antquic_server.peer.registry import MAX_OUTDATED, Candidate, Decision, Registry

PEER = bytes(32)


def ours(number: int, rank: bytes = b"") -> Candidate:
    """Return a connection that we dialled."""
    return Candidate(number=number, dialled_by_us=True, rank=rank)


def theirs(number: int, rank: bytes = b"") -> Candidate:
    """Return a connection that the peer dialled."""
    return Candidate(number=number, dialled_by_us=False, rank=rank)


def test_the_first_connection_is_live() -> None:
    """Nothing to decide."""
    registry = Registry()

    assert registry.live(PEER) is None
    assert registry.add(PEER, ours(1)) == Decision(live=1)
    assert (registry.live(PEER), registry.numbers(PEER), registry.peers, len(registry)) == (1, [1], [PEER], 1)


def test_of_the_same_side_the_newer_wins() -> None:
    """Whatever the ranks say."""
    registry = Registry()
    registry.add(PEER, ours(1, b"z"))

    assert registry.add(PEER, ours(2, b"a")) == Decision(live=2, superseded=1)


def test_of_opposite_sides_the_greater_rank_wins() -> None:
    """In whichever order they become known."""
    first, second = Registry(), Registry()
    first.add(PEER, ours(1, b"a"))
    second.add(PEER, ours(1, b"z"))

    assert first.add(PEER, theirs(2, b"m")) == Decision(live=2, superseded=1)
    assert second.add(PEER, theirs(2, b"m")) == Decision(live=1, superseded=2)


def test_a_superseded_connection_lives_again_when_the_live_one_ends() -> None:
    """The peer is gone only with its last one."""
    registry = Registry()
    registry.add(PEER, ours(1, b"z"))
    registry.add(PEER, theirs(2, b"a"))

    assert registry.remove(PEER, 1) == 2
    assert registry.live(PEER) == 2
    assert registry.remove(PEER, 2) is None
    assert len(registry) == 0
    assert registry.remove(PEER, 2) is None


@given(st.data(), st.lists(st.tuples(st.booleans(), st.binary(min_size=2, max_size=2)), min_size=2, max_size=2))
def test_both_ends_choose_the_same_of_two_opposite_dials(data: st.DataObject, dials: list[tuple[bool, bytes]]) -> None:
    """Even if they hear of them in different orders; same-side dials are heard of in one order."""
    (_, rank_a), (_, rank_b) = dials
    if rank_a == rank_b:
        return
    here, there = Registry(), Registry()
    for registry, a_is_ours in ((here, True), (there, False)):
        candidates = [
            Candidate(number=1, dialled_by_us=a_is_ours, rank=rank_a),
            Candidate(number=2, dialled_by_us=not a_is_ours, rank=rank_b),
        ]
        for candidate in data.draw(st.permutations(candidates)):
            registry.add(PEER, candidate)

    assert here.live(PEER) == there.live(PEER)


@given(st.lists(st.tuples(st.booleans(), st.binary(max_size=1), st.booleans()), max_size=30))
def test_whatever_comes_and_goes_one_is_live(steps: list[tuple[bool, bytes, bool]]) -> None:
    """A peer with any connection has exactly one live one, and it is among them."""
    registry, known = Registry(), []
    for number, (dialled_by_us, rank, leave) in enumerate(steps):
        registry.add(PEER, Candidate(number=number, dialled_by_us=dialled_by_us, rank=rank))
        known.append(number)
        if leave:
            registry.remove(PEER, known.pop(0))
        assert sorted(registry.numbers(PEER)) == known
        assert (registry.live(PEER) in known) == bool(known)


def test_what_was_under_way_when_a_peer_was_closed_is_outdated() -> None:
    """Up to the newest connection there was; what begins later is wanted, and so is every other peer."""
    registry = Registry()
    assert not registry.is_outdated(PEER, 1)
    registry.outdate(PEER, 7)

    assert registry.is_outdated(PEER, 7)
    assert not registry.is_outdated(PEER, 8)
    assert not registry.is_outdated(bytes(31) + b"x", 7)


def test_closed_peers_are_remembered_up_to_a_bound() -> None:
    """The one closed longest ago is forgotten first; closing it again makes it the last."""
    registry = Registry()
    peers = [number.to_bytes(32, "big") for number in range(MAX_OUTDATED)]
    for peer in (*peers, peers[0], bytes([1]) * 32):
        registry.outdate(peer, 1)

    assert registry.is_outdated(peers[0], 1)
    assert not registry.is_outdated(peers[1], 1)
    assert registry.is_outdated(peers[2], 1)
