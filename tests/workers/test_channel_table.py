"""Tests of ``workers.channel_table``: who may bind, whose data passes, and whom it reaches; on stand-in sockets."""

import errno
import socket
from collections.abc import Iterator
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antquic_server.net.udp import PathAddress, SendResult, UdpSocket
from antquic_server.protocol.limits import TokenBucket
from antquic_server.protocol.relay_channel import (
    BIND_BYTES,
    BOUND,
    NO_NONCE,
    bind_nonce_untrusted,
    channel_token,
    data_header,
    encode_bind,
    encode_bound,
    encode_challenge,
    encode_unknown,
    is_bind_answer_untrusted,
    is_one_channel,
)
from antquic_server.protocol.relay_proof import EPOCH_S
from antquic_server.stats.counters import CounterSet
from support.channels import INITIATOR_KEY, TARGET_KEY, FakeUdp, bind_at, made_up_id
from support.require import require
from workers.channel_table import BINDS_BURST, Channel, ChannelTable, header_number, source_of
from workers.relay_meter import MIN_COST_BYTES, SessionMeter

ID = made_up_id(1)
OTHER_ID = made_up_id(2)
SECRET = b"s" * 32
A = PathAddress("192.0.2.1", 1001, 0, 0, b"", 0)
B = PathAddress("192.0.2.2", 1002, 0, 0, b"", 0)
STRANGER = PathAddress("192.0.2.66", 6666, 0, 0, b"", 0)
COUNTERS = count(1)


class Bench:
    """A table with two stand-in sockets."""

    def __init__(self, *, unknowns_per_s: float = 1000.0, slot: int = 0, worker_count: int = 1) -> None:
        self.sockets = [FakeUdp(), FakeUdp()]
        self.counters = CounterSet()
        self.table = ChannelTable(
            slot=slot,
            worker_count=worker_count,
            sockets=[item.as_udp for item in self.sockets],
            counters=self.counters,
            secret=SECRET,
            unknowns_per_s=unknowns_per_s,
        )
        self.now_s = 100.0

    @property
    def udp(self) -> FakeUdp:
        """The first socket."""
        return self.sockets[0]

    def add(self, channel_id: bytes = ID, *, rate: float = 1e9) -> Channel:
        """Make a channel that nobody has bound."""
        session = SessionMeter(
            number=1,
            rate_bytes_per_s=rate,
            burst_bytes=rate,
            share=TokenBucket(1e12, 1e12),
        )
        channel = Channel(
            channel_id,
            initiator_key=INITIATOR_KEY,
            target_key=TARGET_KEY,
            session=session,
            now_s=self.now_s,
        )
        self.table.add(channel)
        return channel

    def bound(self, channel_id: bytes = ID, initiator: PathAddress = A, target: PathAddress = B) -> Channel:
        """Make a channel that both have bound, and forget the answers."""
        channel = self.add(channel_id)
        self.bind(INITIATOR_KEY, initiator, channel_id)
        self.bind(TARGET_KEY, target, channel_id)
        for sock in self.sockets:
            sock.answers.clear()
        return channel

    def bind(self, key: bytes, path: PathAddress, channel_id: bytes = ID, *, counter: int | None = None) -> bytes:
        """Let a bind arrive of a leg that was challenged there before, and return the answer that it must have."""
        counter = next(COUNTERS) if counter is None else counter
        bind_at(self.table, channel_id, counter, key, path, self.now_s)
        return encode_bound(channel_id, counter, key, self.nonce(key, path, channel_id))

    def nonce(self, key: bytes, path: PathAddress, channel_id: bytes = ID) -> bytes:
        """Return what this leg would be sent at this address now."""
        return self.table.proofs.nonce(channel_id, key, source_of(path), self.now_s)

    def move(self, key: bytes, path: PathAddress, channel_id: bytes = ID) -> None:
        """Bind a leg at an address as peers do: with what the node sends there."""
        bind = encode_bind(channel_id, next(COUNTERS), key)
        self.give(bind, path)
        answered_at, challenge = self.sockets[path.socket_index].answers.pop()
        assert answered_at == path
        assert is_bind_answer_untrusted(challenge, bind, key)
        assert challenge[0] != BOUND
        bind = encode_bind(channel_id, next(COUNTERS), key, bind_nonce_untrusted(challenge))
        self.give(bind, path)
        answered_at, bound = self.sockets[path.socket_index].answers.pop()
        assert answered_at == path
        assert is_bind_answer_untrusted(bound, bind, key)
        assert bound[0] == BOUND

    def give(self, datagram: bytes, path: PathAddress) -> None:
        """Let one datagram arrive that is looked at by itself."""
        self.table.receive_untrusted(datagram, path, self.now_s)

    def train(self, path: PathAddress, *datagrams: bytes) -> int:
        """Let a train arrive; the size of its datagrams is that of the first."""
        data = memoryview(bytearray(b"".join(datagrams)))
        route = self.table.routes.get((header_number(data)[0], source_of(path)))
        if route is None or not is_one_channel(data, len(datagrams[0])):
            return 0
        self.table.follow(route, data, len(datagrams[0]), self.now_s)
        return len(datagrams)

    def drops(self) -> dict[str, float]:
        """Reasons and numbers of datagrams dropped."""
        prefix = "relay_drops|channel|"
        values = self.counters.values
        return {key.removeprefix(prefix): value for key, value in values.items() if key.startswith(prefix)}


@pytest.fixture
def bench() -> Iterator[Bench]:
    """Make a fresh one; whatever happens, no stranger may have received anything."""
    bench = Bench()
    yield bench
    assert STRANGER[:2] not in [address for address, _, _ in bench.udp.sent]


def datagram(payload: bytes = b"payload", channel_id: bytes = ID) -> bytes:
    """A datagram of a channel."""
    return data_header(channel_id) + payload


def test_bind_is_answered_where_it_came_from(bench: Bench) -> None:
    """With the counter it had; through the same socket, from the same address of ours."""
    bench.add()
    from_b = B._replace(socket_index=1, local=b"l" * 12)
    expected = [(A, bench.bind(INITIATOR_KEY, A))]
    assert bench.sockets[0].answers == expected
    expected = [(from_b, bench.bind(TARGET_KEY, from_b))]
    assert bench.sockets[1].answers == expected
    assert bench.drops() == {}


def test_train_passes_whole_and_unchanged(bench: Bench) -> None:
    """Both ways, with one call each; a last datagram may be shorter."""
    channel = bench.bound()
    train = [datagram(b"x" * 1200)] * 9 + [datagram(b"short")]
    assert bench.train(A, *train) == 10
    assert bench.train(B, *train[:2]) == 2
    assert bench.train(A, datagram()) == 1
    assert bench.udp.sent == [
        (B[:2], b"".join(train), 1208),
        (A[:2], b"".join(train[:2]), 1208),
        (B[:2], datagram(), len(datagram())),
    ]
    assert channel.session.passed_datagrams == 13
    assert channel.session.passed_bytes == sum(len(data) for _, data, _ in bench.udp.sent)


def test_legs_on_different_sockets(bench: Bench) -> None:
    """What comes for a leg leaves through the socket that the leg has bound at, from the address it knows."""
    far = PathAddress("2001:db8::7", 7, 0, 0, b"l" * 20, 1)
    bench.bound(initiator=A, target=far)
    bench.train(A, datagram(b"to far"))
    bench.train(far, datagram(b"from far"))
    assert bench.sockets[1].sent == [(far[:2], datagram(b"to far"), 14)]
    assert bench.sockets[0].sent == [(A[:2], datagram(b"from far"), 16)]


@given(st.lists(st.sampled_from([ID, OTHER_ID]), min_size=1, max_size=20), st.integers(0, 50))
def test_no_datagram_reaches_the_peer_of_another_channel(channels: list[bytes], size: int) -> None:
    """Two channels glued into one train: whole if it is one channel's, else each datagram by itself."""
    bench = Bench()
    b2 = PathAddress("192.0.2.3", 1003, 0, 0, b"", 0)
    bench.bound(ID, A, B)
    bench.bound(OTHER_ID, A, b2)
    datagrams = [datagram(bytes([number]) * size, channel_id) for number, channel_id in enumerate(channels)]
    if not bench.train(A, *datagrams):
        assert len(set(channels)) == 2
        assert bench.udp.sent == []
        for item in datagrams:
            bench.give(item, A)
    got = {
        destination: b"".join(data for address, data, _ in bench.udp.sent if address == destination[:2])
        for destination in (B, b2)
    }
    assert got[B] == b"".join(item for item in datagrams if item.startswith(data_header(ID)))
    assert got[b2] == b"".join(item for item in datagrams if item.startswith(data_header(OTHER_ID)))


def test_data_from_anywhere_else_goes_nowhere(bench: Bench) -> None:
    """Whoever knows the id but has not proven to be a leg, even from the right host."""
    bench.bound()
    other_port = A._replace(port=A.port + 1)
    for source in (STRANGER, other_port):
        assert bench.train(source, datagram(), datagram()) == 0
        bench.give(datagram(), source)
    assert bench.udp.sent == []
    assert bench.udp.answers == []
    assert bench.drops() == {"unbound_source": 2}


def test_data_before_the_other_leg_is_there_is_dropped(bench: Bench) -> None:
    """There is nobody to have it, and nothing to keep it in."""
    bench.add()
    bench.bind(TARGET_KEY, B)
    assert bench.train(B, datagram()) == 0
    bench.give(datagram(), B)
    bench.give(datagram(), A)
    assert bench.udp.sent == []
    assert bench.drops() == {"other_leg_unbound": 1, "unbound_source": 1}


def test_forged_bind_is_dropped(bench: Bench) -> None:
    """With another key, or with a bit changed; nothing is answered and nothing moves."""
    bench.bound()
    bench.bind(b"x" * 32, STRANGER)
    real = encode_bind(ID, next(COUNTERS), INITIATOR_KEY)
    bench.give(real[:-1] + bytes([real[-1] ^ 1]), STRANGER)
    assert bench.drops() == {"bad_mac": 2}
    assert bench.udp.answers == []
    assert bench.train(A, datagram()) == 1


@pytest.mark.parametrize("length", [8, 9, BIND_BYTES - 1, BIND_BYTES + 1, 1200])
def test_bind_of_another_length_is_dropped(bench: Bench, length: int) -> None:
    """Without looking at its MAC."""
    bench.add()
    bench.give((encode_bind(ID, 1, INITIATOR_KEY) + bytes(1200))[:length], A)
    assert bench.drops() == {"bind_malformed": 1}
    assert bench.udp.answers == []


def test_replayed_bind_moves_nothing(bench: Bench) -> None:
    """Recorded and sent again from elsewhere, or older than what counted since."""
    bench.add()
    for counter in (10, 20):
        bench.bind(INITIATOR_KEY, A, counter=counter)
    bench.bind(TARGET_KEY, B)
    bench.udp.answers.clear()
    for counter in (20, 19, 10, 0):
        bench.bind(INITIATOR_KEY, STRANGER, counter=counter)
    assert bench.drops() == {"replayed_bind": 4}
    assert bench.udp.answers == []
    bench.train(B, datagram())
    assert bench.udp.sent[0][0] == A[:2]


def test_counters_of_the_legs_are_their_own(bench: Bench) -> None:
    """A great one of one leg does not lock out the other."""
    bench.add()
    bench.bind(INITIATOR_KEY, A, counter=2**64 - 1)
    bench.bind(TARGET_KEY, B, counter=0)
    assert len(bench.udp.answers) == 2
    assert bench.train(A, datagram()) == 1


def test_forged_source_is_sent_no_more_than_challenges(bench: Bench) -> None:
    """Who has both legs of a channel cannot have the node send anybody else what it likes, whatever it claims."""
    channel = bench.bound()
    data_bytes = 0
    for nonce in (NO_NONCE, bench.nonce(TARGET_KEY, B), b"guessed!"):
        bind = encode_bind(ID, next(COUNTERS), TARGET_KEY, nonce)
        bench.give(bind, STRANGER)
        ((path, challenge),) = bench.udp.answers
        bench.udp.answers.clear()
        assert path == STRANGER
        assert len(challenge) <= len(bind)
        assert challenge[0] != BOUND
        assert is_bind_answer_untrusted(challenge, bind, TARGET_KEY)
        data_bytes += 10 * len(datagram())
        assert bench.train(A, *[datagram()] * 10) == 10
        assert bench.train(STRANGER, datagram()) == 0
    # All of it has gone where the leg has been seen to be, and on goes the channel there.
    assert {address for address, _, _ in bench.udp.sent} == {B[:2]}
    assert sum(len(data) for _, data, _ in bench.udp.sent) == data_bytes
    assert channel.target.path == B
    assert bench.train(B, datagram()) == 1
    assert bench.drops() == {"bind_unproven": 2}


def test_forged_source_of_a_first_bind_makes_no_leg(bench: Bench) -> None:
    """A channel of which only one side has ever been seen carries nothing."""
    channel = bench.add()
    bench.move(INITIATOR_KEY, A)
    bench.give(encode_bind(ID, next(COUNTERS), TARGET_KEY), STRANGER)
    assert [path for path, _ in bench.udp.answers] == [STRANGER]
    assert bench.train(A, datagram()) == 0
    assert bench.table.routes == {}
    assert channel.target.path is None
    assert channel.last_bind_s() is None
    bench.udp.answers.clear()


def test_challenges_are_limited_as_binds_are(bench: Bench) -> None:
    """By channel: a flood of forged sources is answered ten times a second."""
    bench.bound()
    for number in range(1000):
        bench.give(encode_bind(ID, next(COUNTERS), TARGET_KEY), STRANGER._replace(port=1 + number))
    assert 0 < len(bench.udp.answers) <= BINDS_BURST
    assert bench.drops() == {"bind_rate": 1000 - len(bench.udp.answers)}


@pytest.mark.parametrize("what", ["address", "port", "channel", "leg", "time", "process"])
def test_nonce_of_something_else_moves_nothing(bench: Bench, what: str) -> None:
    """It was sent to another address, for another channel or leg, too long ago, or by a worker that is gone."""
    channel = bench.bound()
    bench.add(OTHER_ID)
    moved = A._replace(port=2001)
    nonce = {
        "address": lambda: bench.nonce(INITIATOR_KEY, moved._replace(host="192.0.2.9")),
        "port": lambda: bench.nonce(INITIATOR_KEY, A),
        "channel": lambda: bench.nonce(INITIATOR_KEY, moved, OTHER_ID),
        "leg": lambda: bench.nonce(TARGET_KEY, moved),
        "time": lambda: bench.nonce(INITIATOR_KEY, moved),
        "process": lambda: Bench().nonce(INITIATOR_KEY, moved),
    }[what]()
    bench.now_s += 2 * EPOCH_S if what == "time" else 0.0
    counter = next(COUNTERS)
    bench.give(encode_bind(ID, counter, INITIATOR_KEY, nonce), moved)
    assert channel.initiator.path == A
    assert bench.train(moved, datagram()) == 0
    assert bench.train(A, datagram()) == 1
    assert bench.drops() == {"bind_unproven": 1}
    fresh = bench.nonce(INITIATOR_KEY, moved)
    assert bench.udp.answers == [(moved, encode_challenge(ID, counter, INITIATOR_KEY, fresh))]
    # And with that one it does move.
    bench.give(encode_bind(ID, next(COUNTERS), INITIATOR_KEY, fresh), moved)
    assert bench.train(moved, datagram()) == 1


def test_bind_that_was_challenged_is_used_up(bench: Bench) -> None:
    """Recorded and sent again it is not even answered, nor is one with the right nonce but an older counter."""
    channel = bench.bound()
    moved = A._replace(port=2001)
    bind = encode_bind(ID, 2**32, INITIATOR_KEY)
    bench.give(bind, moved)
    nonce = bind_nonce_untrusted(bench.udp.answers.pop()[1])
    bench.give(bind, STRANGER)
    bench.give(encode_bind(ID, 2**32, INITIATOR_KEY, nonce), moved)
    assert bench.udp.answers == []
    assert bench.drops() == {"replayed_bind": 2}
    assert channel.initiator.path == A


def test_address_that_was_left_is_no_leg_for_long(bench: Bench) -> None:
    """A leg proves it again with every bind; who has gone, and forges on, keeps neither it nor the channel alive."""
    channel = bench.bound()
    nonce, begun_s = bench.nonce(TARGET_KEY, B), bench.now_s
    while bench.now_s < begun_s + 300.0:
        bench.give(encode_bind(ID, next(COUNTERS), TARGET_KEY, nonce), B)
        bench.now_s += 10.0
    assert begun_s < channel.target.bound_at_s <= begun_s + 2 * EPOCH_S
    # One that is there is told the next nonce with each answer.
    bench.udp.answers.clear()
    nonce = bench.nonce(TARGET_KEY, B)
    for _ in range(30):
        bench.give(encode_bind(ID, next(COUNTERS), TARGET_KEY, nonce), B)
        ((_, answer),) = bench.udp.answers
        bench.udp.answers.clear()
        assert answer[0] == BOUND
        nonce = bind_nonce_untrusted(answer)
        bench.now_s += 10.0
    assert channel.target.bound_at_s == bench.now_s - 10.0


def test_leg_moves_with_its_bind(bench: Bench) -> None:
    """After a NAT has rebound: from the new address after one round trip, until then from the old one and no other."""
    channel = bench.bound()
    moved = A._replace(port=2001)
    bench.give(encode_bind(ID, next(COUNTERS), INITIATOR_KEY), moved)
    assert bench.train(A, datagram(b"0")) == bench.train(B, datagram(b"0")) == 1
    assert bench.train(moved, datagram()) == 0
    assert [address for address, _, _ in bench.udp.sent] == [B[:2], A[:2]]
    bench.udp.sent.clear()
    bench.udp.answers.clear()
    # The challenge may be lost: the next bind gets another.
    bench.move(INITIATOR_KEY, moved)
    assert list(bench.table) == [channel]
    assert bench.train(A, datagram()) == 0
    assert bench.train(moved, datagram(b"1")) == 1
    assert bench.train(B, datagram(b"2")) == 1
    assert [(address, data) for address, data, _ in bench.udp.sent] == [
        (B[:2], datagram(b"1")),
        (moved[:2], datagram(b"2")),
    ]
    bench.give(datagram(), A)
    assert bench.drops() == {"unbound_source": 1}


def test_leg_that_writes_to_another_address_of_ours_is_answered_from_there(bench: Bench) -> None:
    """Its route changes although its own address does not."""
    bench.bound()
    bench.bind(INITIATOR_KEY, A._replace(socket_index=1))
    bench.train(B, datagram())
    assert bench.sockets[0].sent == []
    assert bench.sockets[1].sent[0][0] == A[:2]


def test_legs_cannot_be_at_one_address(bench: Bench) -> None:
    """Where a bind would put them together nothing moves: neither leg loses what it has."""
    bench.bound()
    bench.bind(TARGET_KEY, A)
    bench.bind(INITIATOR_KEY, B)
    assert bench.drops() == {"bind_collision": 2}
    assert bench.udp.answers == []
    assert bench.train(A, datagram()) == bench.train(B, datagram()) == 1
    # The counter of a bind that moved nothing is not used up.
    bench.bind(TARGET_KEY, B)
    assert len(bench.udp.answers) == 1


def test_binds_are_limited_by_channel(bench: Bench) -> None:
    """A flood of forged ones costs a bounded number of MACs, and only the channel whose id is known."""
    bench.bound()
    bench.bound(OTHER_ID, A, PathAddress("192.0.2.3", 1003, 0, 0, b"", 0))
    bench.udp.answers.clear()
    for _ in range(1000):
        bench.bind(b"x" * 32, STRANGER)
    drops = bench.drops()
    assert drops["bad_mac"] <= BINDS_BURST
    assert drops["bad_mac"] + drops["bind_rate"] == 1000
    bench.bind(INITIATOR_KEY, A, OTHER_ID)
    assert len(bench.udp.answers) == 1
    bench.now_s += 1.0
    bench.bind(INITIATOR_KEY, A)
    assert len(bench.udp.answers) == 2


@pytest.mark.parametrize("length", [8, 23, 24, 32, 1200])
@pytest.mark.parametrize("kind", [0x10, 0x11])
def test_unknown_channel_is_answered_with_a_token(bench: Bench, kind: int, length: int) -> None:
    """By which the peer knows that it comes from the node; never longer than what it answers."""
    bench.give((bytes([kind]) + ID + bytes(1200))[:length], A)
    if length >= 24:
        assert bench.udp.answers == [(A, encode_unknown(ID, channel_token(SECRET, ID)))]
        assert bench.drops() == {"unknown_channel": 1}
    else:
        assert bench.udp.answers == []
        assert bench.drops() == {"unknown_channel_unanswered": 1}


@pytest.mark.parametrize("kind", [0x12, 0x13, 0x14])
@pytest.mark.parametrize("known", [True, False])
def test_what_only_nodes_send_is_answered_by_nothing(bench: Bench, kind: int, known: bool) -> None:
    """Else two nodes could keep each other busy."""
    if known:
        bench.bound()
    bench.give(bytes([kind]) + ID + bytes(24), A)
    assert bench.udp.answers == []
    assert bench.drops() == {"unexpected_kind": 1}


def test_short_datagrams_count_as_longer_ones(bench: Bench) -> None:
    """Singly and in trains: a limit in bytes would else let a peer have the machine work for a hundred others."""
    channel = bench.bound()
    channel.session.rate = TokenBucket(0.0, 50.0 * MIN_COST_BYTES)
    for _ in range(20):
        bench.train(A, datagram(b""))
    bench.train(A, *[datagram(b"")] * 30)
    assert channel.session.passed_datagrams == 50
    assert channel.session.passed_bytes == 50 * len(datagram(b""))
    bench.train(A, datagram(b""))
    assert bench.drops() == {"session_rate": 1}


def test_guessed_ids_are_answered_at_a_bounded_rate() -> None:
    """And none at all where the operator wants none."""
    for rate, answered in ((10.0, 10), (0.0, 0)):
        bench = Bench(unknowns_per_s=rate)
        for number in range(500):
            bench.give(datagram(bytes(100), made_up_id(number)), STRANGER)
        assert len(bench.udp.answers) == answered
        assert sum(bench.drops().values()) == 500


def test_channel_of_another_slot_is_not_spoken_for() -> None:
    """Its owner has it, perhaps: a wrong word would end it."""
    bench = Bench(slot=1, worker_count=4)
    bench.give(datagram(bytes(100), made_up_id(5, slot=2, worker_count=4)), A)
    assert bench.udp.answers == []
    assert bench.drops() == {"other_slot": 1}
    bench.give(datagram(bytes(100), made_up_id(5, slot=1, worker_count=4)), A)
    assert len(bench.udp.answers) == 1


def test_channel_that_is_removed_is_unknown(bench: Bench) -> None:
    """At once, and without a route left behind."""
    channel = bench.bound()
    assert bench.table.remove(ID) is channel
    assert bench.table.remove(ID) is None
    assert bench.train(A, datagram(bytes(100))) == 0
    bench.give(datagram(bytes(100)), A)
    assert bench.drops() == {"unknown_channel": 1}
    assert bench.table.routes == {}
    assert len(bench.table) == 0
    bench.add()
    assert bench.table.remove(ID) is not None


def test_table_knows_what_it_has(bench: Bench) -> None:
    """By id, and one after the other."""
    channels = [bench.add(ID), bench.add(OTHER_ID)]
    assert len(bench.table) == 2
    assert ID in bench.table
    assert made_up_id(3) not in bench.table
    assert list(bench.table) == channels


def test_too_fast_is_dropped_and_counted(bench: Bench) -> None:
    """Each datagram of a train that did not pass."""
    channel = bench.bound()
    channel.session.rate = TokenBucket(1000.0, 1000.0)
    train = [datagram(b"x" * 1200)] * 10
    assert bench.train(A, *train) == 10
    assert bench.train(A, *train) == 10
    assert len(bench.udp.sent) == 1
    assert bench.drops() == {"session_rate": 10}
    assert channel.session.passed_datagrams == 10


@pytest.mark.parametrize(
    ("result", "drops", "passed"),
    [
        (SendResult(0, 0, 0), {"blocked": 10}, 0),
        (SendResult(4, 0, 0), {"blocked": 6}, 4),
        (SendResult(0, 10, errno.EMSGSIZE), {"above_link_mtu": 10}, 0),
        (SendResult(9, 1, errno.EPERM), {"send_error": 1}, 9),
        (SendResult(2, 3, errno.ENETUNREACH), {"send_error": 3, "blocked": 5}, 2),
    ],
)
def test_what_the_kernel_does_not_take_is_dropped_and_counted(
    bench: Bench, result: SendResult, drops: dict[str, float], passed: int
) -> None:
    """Nothing is ever queued, and what did not leave counts for nobody."""
    channel = bench.bound()
    bench.udp.fail_with = result
    assert bench.train(A, *[datagram(b"x" * 92)] * 10) == 10
    assert bench.drops() == drops
    assert channel.session.passed_datagrams == passed
    assert channel.session.passed_bytes == passed * 100


def test_answer_that_cannot_be_sent_is_counted(bench: Bench) -> None:
    """The peer repeats its bind."""
    bench.add()
    bench.udp.fail_with = SendResult(0, 0, 0)
    bench.bind(INITIATOR_KEY, A)
    assert bench.drops() == {"blocked": 1}


@given(st.binary(min_size=8, max_size=60), st.booleans())
def test_garbage_has_no_effect(data: bytes, of_channel: bool) -> None:
    """Whatever comes from a stranger, nothing of the channel changes."""
    bench = Bench()
    channel = bench.bound()
    before = [(leg.path, leg.counter) for leg in (channel.initiator, channel.target)]
    if of_channel:
        data = data[:1] + ID + data[8:]
    bench.give(data, STRANGER)
    assert [(leg.path, leg.counter) for leg in (channel.initiator, channel.target)] == before
    assert bench.udp.sent == []


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_source_is_what_a_socket_says(host: str) -> None:
    """Else no route would ever be found."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    require(family == socket.AF_INET or socket.has_ipv6, "this machine has no IPv6")
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.bind((host, 0))
        sock.setblocking(False)
        udp = UdpSocket(sock, wildcard=False)
        sock.sendto(b"x", sock.getsockname())
        received = udp.receive()
        assert received is not None
        _, _, address, packet_info = received
        assert source_of(udp.path_of(address, packet_info)) == address


def test_data_without_a_route_is_refused_a_train_at_a_time() -> None:
    """That of a channel which is here; what is no data has to be looked at."""
    bench = Bench()
    bench.add()
    bench.bind(INITIATOR_KEY, A)
    refuse = bench.table.refuse
    assert refuse(data_header(ID), source_of(STRANGER), 64, bench.now_s)
    assert refuse(data_header(ID), source_of(A), 3, bench.now_s)
    assert not refuse(b"\x11" + ID, source_of(STRANGER), 1, bench.now_s)
    assert bench.drops() == {"unbound_source": 64, "other_leg_unbound": 3}


def test_guessed_ids_are_refused_once_enough_were_answered() -> None:
    """Those of this slot; others have an owner that may know them."""
    bench = Bench(unknowns_per_s=1.0, worker_count=2)
    ours, theirs = (data_header(made_up_id(7, slot=slot, worker_count=2)) for slot in (0, 1))
    for _ in range(2):
        # There is one token, and asking does not use it up.
        assert not bench.table.refuse(ours, source_of(A), 10, bench.now_s)
    bench.give(ours + bytes(100), A)
    assert len(bench.udp.answers) == 1
    assert bench.table.refuse(ours, source_of(A), 10, bench.now_s)
    assert not bench.table.refuse(theirs, source_of(A), 10, bench.now_s)
    assert bench.drops() == {"unknown_channel": 1, "unknown_channel_unanswered": 10}
