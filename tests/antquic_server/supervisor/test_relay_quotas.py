"""Tests of who may have relay sessions: every rule, their order, and that books are kept."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antquic_server.config.model import RelaySettings
from antquic_server.protocol.address import SocketAddress
from antquic_server.protocol.relay_limits import Refusal, RelayMode
from antquic_server.supervisor.relay_quotas import MAX_REPORTED_BYTES, Allowance, RelayQuotas, RelaySession
from support.coordination import ALICE, BOB

CAROL = bytes(range(200, 232))

SETTINGS = RelaySettings(
    max_sessions=8,
    max_sessions_per_peer=3,
    max_sessions_per_prefix=4,
    bandwidth_per_peer_bytes_per_s=6000,
    burst_s=0.5,
    max_bytes=10_000,
    max_bytes_per_peer=1000,
    quota_period_s=3600,
)


class Stage:
    """Quotas, a clock that jumps, and sessions that are numbered as they come."""

    def __init__(self, **settings: Any) -> None:
        self.now_s = 500.0
        self.quotas = RelayQuotas(replace(SETTINGS, **settings), self.now_s)
        self.number = 0

    def ask(
        self, peer_id: bytes = ALICE, host: str = "192.0.2.1", slot: int = 0, mode: RelayMode = RelayMode.STREAM
    ) -> RelaySession | Refusal:
        """Ask for a session."""
        self.number += 1
        return self.quotas.reserve(slot, self.number, mode, peer_id=peer_id, host=host, now_s=self.now_s)

    def get(
        self, peer_id: bytes = ALICE, host: str = "192.0.2.1", slot: int = 0, mode: RelayMode = RelayMode.STREAM
    ) -> RelaySession:
        """Ask for a session that is given."""
        session = self.ask(peer_id, host, slot, mode)
        assert isinstance(session, RelaySession)
        return session

    def use(self, session: RelaySession, moved_bytes: int) -> None:
        """Let a session move bytes."""
        self.quotas.use(session, moved_bytes, self.now_s)

    def change(self, **settings: Any) -> None:
        """Change limits."""
        self.quotas.change(replace(self.quotas.settings, **settings), self.now_s)

    def doomed(self) -> list[tuple[int, Refusal]]:
        """Numbers of the doomed sessions and why."""
        return sorted((session.number, reason) for session, reason in self.quotas.doomed())


def fill_node(stage: Stage) -> None:
    """Have strangers open sessions until there are no more."""
    number = 0
    while stage.ask(bytes([100 + number]) * 32, f"198.18.0.{number}") is not Refusal.NODE_SESSIONS:
        number += 1


def fill(*peers: tuple[bytes, str]) -> Callable[[Stage], object]:
    """Have these peers open sessions."""
    return lambda stage: [stage.get(*peer) for peer in peers]


def flood(stage: Stage) -> None:
    """Have Alice open and close as fast as she can."""
    for _ in range(1000):
        session = stage.ask()
        if isinstance(session, RelaySession):
            stage.quotas.release(session)


EVERY_RULE: list[tuple[Refusal, Callable[[Stage], object]]] = [
    (Refusal.DISABLED, lambda stage: stage.change(enabled=False)),
    (Refusal.DRAINING, lambda stage: setattr(stage.quotas, "draining", True)),
    (Refusal.PEER_DENIED, lambda stage: stage.change(denied_peers=(ALICE.hex(),))),
    (Refusal.OPEN_RATE, flood),
    (Refusal.NODE_BYTES, lambda stage: stage.quotas.bytes.use(CAROL, 10_000, stage.now_s)),
    (Refusal.PEER_BYTES, lambda stage: stage.quotas.bytes.use(ALICE, 1000, stage.now_s)),
    (Refusal.NODE_SESSIONS, fill_node),
    (Refusal.PEER_SESSIONS, fill(*[(ALICE, f"198.51.100.{n}") for n in range(3)])),
    (Refusal.PREFIX_SESSIONS, fill(*[(bytes([n]) * 32, "192.0.2.1") for n in range(4)])),
]
"""What brings each rule about; those that nothing stands behind come last."""


@pytest.mark.parametrize(("refusal", "bring_about"), EVERY_RULE)
def test_each_rule_refuses_in_its_own_name(refusal: Refusal, bring_about: Callable[[Stage], object]) -> None:
    """And a session that no rule forbids is given."""
    stage = Stage()
    stage.quotas.release(stage.get())
    bring_about(stage)

    assert stage.ask() is refusal


@pytest.mark.parametrize("index", range(len(EVERY_RULE) - 1))
def test_first_rule_that_forbids_is_the_one_that_is_named(index: int) -> None:
    """Whichever comes after it forbids too."""
    stage = Stage()
    for _, bring_about in reversed(EVERY_RULE[index:]):
        bring_about(stage)

    assert stage.ask() is EVERY_RULE[index][0]


@pytest.mark.parametrize(
    ("peer_id", "allowed", "denied", "refusal"),
    [
        (b"", (), (), Refusal.UNAUTHENTICATED),
        (ALICE[:31], (), (), Refusal.UNAUTHENTICATED),
        (ALICE, (ALICE.hex(),), (), None),
        (ALICE, (BOB.hex(),), (), Refusal.PEER_DENIED),
        (ALICE, (ALICE.hex(),), (ALICE.hex(),), Refusal.PEER_DENIED),
        (ALICE, (), (BOB.hex(),), None),
    ],
)
def test_peers_are_listed_by_id(
    peer_id: bytes, allowed: tuple[str, ...], denied: tuple[str, ...], refusal: Refusal | None
) -> None:
    """Being denied wins over being allowed, and an empty list allows everybody who has an id."""
    answer = Stage(allowed_peers=allowed, denied_peers=denied).ask(peer_id)

    assert answer is refusal or (refusal is None and isinstance(answer, RelaySession))


def test_nonsense_of_a_worker_is_an_error_of_ours() -> None:
    """An address that is none, or a number that is taken."""
    stage = Stage()
    assert stage.ask(host="nowhere") is Refusal.INTERNAL
    session = stage.get()
    stage.number -= 1
    assert stage.ask(BOB, "198.51.100.1") is Refusal.INTERNAL
    assert stage.quotas.find(0, session.number) is session


def test_prefix_is_a_site() -> None:
    """IPv6 addresses of one /48 count together, IPv4 ones by themselves."""
    stage = Stage()
    for number in range(4):
        stage.get(bytes([number]) * 32, f"2001:470:1:{number}::1")
    assert stage.ask(ALICE, "2001:470:1:ffff::1") is Refusal.PREFIX_SESSIONS
    assert isinstance(stage.ask(ALICE, "2001:470:2::1"), RelaySession)


def test_open_rate_lets_a_peer_replace_all_its_sessions_at_once() -> None:
    """As after the death of a worker; then it has to wait, and others of its prefix need not."""
    stage = Stage(max_sessions=20, max_sessions_per_peer=6, max_sessions_per_prefix=20)
    opened = 0
    while isinstance(session := stage.ask(), RelaySession):
        stage.quotas.release(session)
        opened += 1
    assert session is Refusal.OPEN_RATE
    assert opened == 12
    assert isinstance(stage.ask(BOB), RelaySession)
    stage.now_s += 10.0
    assert all(isinstance(stage.ask(), RelaySession) for _ in range(6))


def test_many_peers_of_one_prefix_are_limited_together() -> None:
    """Identities cost nothing."""
    stage = Stage()
    heard = []
    for number in range(100):
        session = stage.ask(number.to_bytes(32, "big"))
        heard.append(session)
        if isinstance(session, RelaySession):
            stage.quotas.release(session)
    assert heard.count(Refusal.OPEN_RATE) == 100 - 8
    assert isinstance(stage.ask(ALICE, "198.51.100.1"), RelaySession)


def test_sessions_of_a_peer_share_its_bandwidth() -> None:
    """Evenly, and whoever was told otherwise is told anew once."""
    stage = Stage()
    first = stage.get()
    assert first.allowance == Allowance(rate_bytes_per_s=6000, burst_bytes=3000)
    assert stage.quotas.unsettled() == []
    second, other = stage.get(), stage.get(BOB)
    assert second.allowance.rate_bytes_per_s == 3000
    assert other.allowance.rate_bytes_per_s == 6000

    ((changed, allowance),) = stage.quotas.unsettled()
    assert (changed, allowance.rate_bytes_per_s) == (first, 3000)
    assert stage.quotas.unsettled() == []
    stage.quotas.unsettle(first)
    assert stage.quotas.unsettled() == [(first, allowance)]
    first.allowance = allowance

    stage.quotas.release(second)
    ((changed, allowance),) = stage.quotas.unsettled()
    assert (changed, allowance.rate_bytes_per_s) == (first, 6000)


def test_peer_out_of_bytes_loses_its_sessions() -> None:
    """All of them, once; others keep theirs, and the next period begins anew."""
    stage = Stage()
    sessions = [stage.get(), stage.get()]
    stage.get(BOB)
    stage.use(sessions[0], 999)
    assert stage.doomed() == []
    stage.use(sessions[1], 1)
    assert stage.doomed() == [(1, Refusal.PEER_BYTES), (2, Refusal.PEER_BYTES)]
    stage.quotas.ending(sessions[0])
    stage.use(sessions[0], 5)
    assert stage.doomed() == [(2, Refusal.PEER_BYTES)]
    stage.quotas.release(sessions[1])
    assert stage.doomed() == []
    assert stage.ask() is Refusal.PEER_BYTES

    stage.now_s += 3600
    assert isinstance(stage.ask(), RelaySession)


def test_node_out_of_bytes_ends_all_sessions() -> None:
    """Of every peer."""
    stage = Stage(max_bytes=2000, max_bytes_per_peer=0)
    stage.use(stage.get(), 1500)
    stage.use(stage.get(BOB), 500)

    assert stage.doomed() == [(1, Refusal.NODE_BYTES), (2, Refusal.NODE_BYTES)]


def test_reports_without_sense_do_no_harm() -> None:
    """Nothing is ever given back, and the greatest number there is counts as a great one."""
    stage = Stage()
    session = stage.get()
    assert stage.quotas.use(session, -5, stage.now_s) == 0
    assert stage.quotas.use(session, 1 << 64, stage.now_s) == MAX_REPORTED_BYTES


def test_dead_worker_frees_what_it_held() -> None:
    """And only that; a session that is released twice is released once."""
    stage = Stage()
    lost = [stage.get(slot=1), stage.get(BOB, slot=1)]
    kept = stage.get(slot=0)
    stage.quotas.release(kept)
    kept = stage.get(slot=0)
    assert stage.quotas.count_of(1) == 2
    assert stage.quotas.slot_down(1) == 2
    for session in lost:
        stage.quotas.release(session)

    assert (stage.quotas.count_of(0), stage.quotas.count_of(1), stage.quotas.peers) == (1, 0, 1)
    assert stage.quotas.find(0, kept.number) is kept


def test_addresses_are_those_of_the_sessions_that_are_there() -> None:
    """The newest first; a session that has no port yet has none."""
    stage = Stage()
    sessions = [stage.get() for _ in range(3)]
    for session, port in zip(sessions[:2], (1, 2), strict=True):
        session.address = SocketAddress.parse(f"203.0.113.7:{port}")
    assert [str(each) for each in stage.quotas.addresses(ALICE)] == ["203.0.113.7:2", "203.0.113.7:1"]
    stage.quotas.release(sessions[1])
    assert [str(each) for each in stage.quotas.addresses(ALICE)] == ["203.0.113.7:1"]
    assert stage.quotas.addresses(BOB) == []


@pytest.mark.parametrize(
    ("settings", "doomed"),
    [
        ({}, []),
        ({"enabled": False}, [(number, Refusal.DISABLED) for number in range(1, 6)]),
        ({"denied_peers": (BOB.hex(),)}, [(4, Refusal.PEER_DENIED), (5, Refusal.PEER_DENIED)]),
        ({"allowed_peers": (BOB.hex(),)}, [(number, Refusal.PEER_DENIED) for number in (1, 2, 3)]),
        ({"max_sessions_per_peer": 1}, [(number, Refusal.PEER_SESSIONS) for number in (2, 3, 5)]),
        ({"max_sessions_per_prefix": 2}, [(3, Refusal.PREFIX_SESSIONS)]),
        ({"max_sessions": 4}, [(5, Refusal.NODE_SESSIONS)]),
        ({"max_bytes_per_peer": 30}, [(number, Refusal.PEER_BYTES) for number in (1, 2, 3)]),
        ({"max_bytes": 30}, [(number, Refusal.NODE_BYTES) for number in range(1, 6)]),
        (
            {"max_sessions_per_peer": 2, "max_sessions": 3},
            [(3, Refusal.PEER_SESSIONS), (5, Refusal.NODE_SESSIONS)],
        ),
    ],
)
def test_lower_limits_end_the_newest_sessions(settings: dict[str, Any], doomed: list[tuple[int, Refusal]]) -> None:
    """Three of Alice's and two of Bob's; the older ones stay, as many as are allowed now."""
    stage = Stage()
    peers = [(ALICE, "192.0.2.1")] * 3 + [(BOB, "198.51.100.1")] * 2
    sessions = [stage.get(peer_id, host) for peer_id, host in peers]
    stage.use(sessions[0], 40)
    stage.change(**settings)

    assert stage.doomed() == doomed


def test_limit_that_rises_again_spares_who_was_not_told_yet() -> None:
    """Who has been told to end ends."""
    stage = Stage()
    sessions = [stage.get() for _ in range(3)]
    stage.change(max_sessions_per_peer=1)
    assert len(stage.quotas.doomed()) == 2
    stage.quotas.ending(sessions[2])
    stage.change(max_sessions_per_peer=3)
    assert stage.doomed() == []
    stage.change(max_sessions_per_peer=1)
    assert stage.doomed() == [(2, Refusal.PEER_SESSIONS)]


def test_change_of_bandwidth_reaches_all_sessions() -> None:
    """Rate and burst."""
    stage = Stage()
    sessions = [stage.get(), stage.get(BOB), stage.get(BOB)]
    for session, allowance in stage.quotas.unsettled():
        session.allowance = allowance
    stage.change(bandwidth_per_peer_bytes_per_s=1000, burst_s=2.0)
    rates = dict(stage.quotas.unsettled())

    assert [rates[session].rate_bytes_per_s for session in sessions] == [1000, 500, 500]
    assert rates[sessions[0]].burst_bytes == 2000


def test_changing_another_limit_does_not_refill_the_open_rate() -> None:
    """Or every reload would be a present to whoever floods; a changed session limit has a rate of its own."""
    stage = Stage()
    flood(stage)
    stage.change(burst_s=1.0)
    assert stage.ask() is Refusal.OPEN_RATE
    stage.change(max_sessions_per_peer=2, max_sessions_per_prefix=3)
    assert isinstance(stage.ask(), RelaySession)


def test_changing_another_limit_does_not_refill_what_sessions_begin_with() -> None:
    """Another bandwidth has another burst."""
    stage = Stage()
    assert stage.get().start_bytes == 1500
    stage.change(max_bytes=0)
    assert stage.get().start_bytes == 750
    stage.change(bandwidth_per_peer_bytes_per_s=600)
    assert stage.get(host="198.51.100.1").start_bytes == 100


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["ask", "release", "slot_down", "use", "limit", "wait"]),
        st.integers(0, 5),
        st.integers(1, 8),
    ),
    max_size=60,
)


@given(steps=STEPS)
def test_books_are_kept_whatever_happens(steps: list[tuple[str, int, int]]) -> None:
    """Counts are those of the sessions there are, limits hold for whoever is new, rates add up to the peer's."""
    stage = Stage(max_bytes=0, max_bytes_per_peer=0)
    quotas = stage.quotas
    live: list[RelaySession] = []
    for step, who, amount in steps:
        stage.now_s += 0.5
        peer_id = bytes([who]) * 32
        if step == "ask":
            mode = RelayMode.CHANNEL if amount % 2 else RelayMode.STREAM
            answer = stage.ask(peer_id, f"192.0.2.{who % 3}", amount % 3, mode)
            if isinstance(answer, RelaySession):
                live.append(answer)
                assert len(live) <= quotas.settings.max_sessions
        elif step == "release" and live:
            quotas.release(live.pop(who % len(live)))
        elif step == "slot_down":
            quotas.slot_down(who)
            live = [session for session in live if session.slot != who]
        elif step == "use" and live:
            stage.use(live[who % len(live)], amount)
        elif step == "limit":
            stage.change(max_sessions=amount, max_sessions_per_peer=min(amount, 1 + who))
            for session, _ in quotas.doomed():
                quotas.ending(session)
            assert sum(not session.is_ending for session in live) <= amount
        else:
            stage.now_s += amount
        for session, allowance in quotas.unsettled():
            session.allowance = allowance

        assert sum(quotas.count(mode) for mode in RelayMode) == len(live)
        assert quotas.peers == len({session.peer_id for session in live})
        for slot in range(6):
            assert quotas.count_of(slot) == sum(session.slot == slot for session in live)
        for peer in {session.peer_id for session in live}:
            rates = [session.allowance.rate_bytes_per_s for session in live if session.peer_id == peer]
            assert sum(rates) == pytest.approx(quotas.settings.bandwidth_per_peer_bytes_per_s)
