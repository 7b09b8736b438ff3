"""Tests of ``workers.relay_session``: datagrams between a UDP port and a stream of frames, without any QUIC."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from antquic_server.errors import RelayDecodeError
from antquic_server.net.udp import PathAddress, SendResult
from antquic_server.protocol.address import SocketAddress
from antquic_server.protocol.limits import TokenBucket
from antquic_server.protocol.relay_stream import FrameReader, decode_frame_untrusted, encode_frame, frame_header
from antquic_server.protocol.relay_targets import TargetPolicy, TargetRules
from antquic_server.stats.counters import CounterSet
from support.in_process import run, until
from support.relay_client import third_party
from workers import relay_session
from workers.relay_ports import RelayPort, RelayPorts
from workers.relay_session import RelayCounters, RelaySession

PLENTY = 1e12
RANGE = (49152, 65535)


def rules(*, denied: Sequence[str] = (), allowed: Sequence[str] = ("127.0.0.0/8", "::1/128")) -> TargetRules:
    """Loopback is allowed, as the tests live there."""
    return TargetRules(allowed=tuple(allowed), denied=tuple(denied), own_ports=frozenset(), session_ports=RANGE)


@dataclass
class Bench:
    """A session with everything it needs."""

    host: str = "127.0.0.1"
    advertised_host: str = ""
    rate: TokenBucket = field(default_factory=lambda: TokenBucket(PLENTY, PLENTY))
    share: TokenBucket = field(default_factory=lambda: TokenBucket(PLENTY, PLENTY))
    room_bytes: int = 1 << 20
    udp: Any = None

    def __post_init__(self) -> None:
        self.set = CounterSet()
        self.delivered: list[bytes] = []
        self.policy = TargetPolicy(rules(), lambda host: False)
        self.port = RelayPorts(RANGE, secrets.randbelow).open(self.host)
        if self.udp is not None:
            self.port.close()
            self.port = RelayPort(udp=self.udp, host=self.host, port=50000)
        self.session = RelaySession(
            self.port,
            deliver=self.delivered.append,
            room_bytes=lambda: self.room_bytes,
            policy=self.policy,
            rate=self.rate,
            share=self.share,
            counters=RelayCounters(self.set),
            advertised_host=self.advertised_host or self.host,
            session_ports=RANGE,
        )

    @property
    def address(self) -> SocketAddress:
        """The session's port."""
        return SocketAddress.from_host(self.port.host, self.port.port)

    def say(self, target: SocketAddress | str, *payloads: bytes) -> None:
        """What the peer sends."""
        address = SocketAddress.parse(target) if isinstance(target, str) else target
        self.session.feed(b"".join(encode_frame(frame_header(address), payload) for payload in payloads))

    def heard(self) -> list[tuple[SocketAddress, bytes]]:
        """What the peer has been given."""
        reader = FrameReader()
        reader.feed(b"".join(self.delivered))
        frames = [(decode_frame_untrusted(header)[0], payload) for header, payload in reader.take_untrusted()]
        assert reader.held_bytes == 0
        return frames

    def counted(self, name: str) -> dict[str, float]:
        """Values of a metric that are not zero, by what follows its name."""
        return {
            key.partition("|")[2]: value
            for key, value in self.set.values.items()
            if key.split("|")[0] == name and value
        }

    def dropped(self) -> dict[str, float]:
        """Drops by reason."""
        return {key.removeprefix("stream|"): value for key, value in self.counted("relay_drops").items()}


@asynccontextmanager
async def bench(**options: Any) -> AsyncIterator[Bench]:
    """Run a session."""
    made = Bench(**options)
    made.session.start(asyncio.get_running_loop())
    try:
        yield made
    finally:
        made.session.close()
        made.session.close()  # once too often does no harm
        assert made.port.udp.sock.fileno() == -1


class Wire:
    """A socket that notes what it is given, and refuses what the test says."""

    def __init__(self, *results: SendResult) -> None:
        self.results = list(results)
        self.sent: list[tuple[str, int, list[int]]] = []
        self.sock = self
        self.family = 2

    def send(self, path: PathAddress, datagrams: Sequence[bytes]) -> SendResult:
        """Note sizes; everything passes unless a result was given."""
        self.sent.append((path.host, path.port, [len(item) for item in datagrams]))
        return self.results.pop(0) if self.results else SendResult(len(datagrams), 0, 0)

    def close(self) -> None:
        """Nothing to close."""


def test_datagrams_pass_both_ways() -> None:
    """Any size up to the greatest, empty ones too, in order; bytes and datagrams are counted."""

    async def story() -> None:
        sizes = [0, 1, 3, 1200, 1452, 4096, 65_507]
        payloads = [secrets.token_bytes(size) for size in sizes]
        async with bench() as relay, third_party() as party:
            relay.say(party.address, *payloads)
            relay.session.send_untrusted()
            received = await party.receive(len(sizes))
            assert received == [(payload, ("127.0.0.1", relay.port.port)) for payload in payloads]
            assert relay.session.moved_bytes == sum(sizes)
            for payload in payloads:
                party.send(relay.address, payload)
            await until(lambda: len(relay.heard()) == len(sizes), "datagrams for the peer")
            assert relay.heard() == [(party.address, payload) for payload in payloads]
            assert relay.session.moved_bytes == 2 * sum(sizes)
            assert relay.counted("relay_bytes") == {"stream": 2 * sum(sizes)}
            assert relay.counted("relay_datagrams") == {"stream": 2 * len(sizes)}
            assert relay.dropped() == {}

    run(story())


def test_several_third_parties_are_told_apart() -> None:
    """Interleaved datagrams reach whom they are for; what comes back says from whom."""

    async def story() -> None:
        async with bench() as relay, third_party() as one, third_party() as two:
            for number in range(4):
                relay.say(one.address, b"one %d" % number)
                relay.say(two.address, b"two %d" % number)
            relay.session.send_untrusted()
            assert [data for data, _ in await one.receive(4)] == [b"one %d" % number for number in range(4)]
            assert [data for data, _ in await two.receive(4)] == [b"two %d" % number for number in range(4)]
            one.send(relay.address, b"from one")
            two.send(relay.address, b"from two")
            one.send(relay.address, b"longer, from one")
            await until(lambda: len(relay.heard()) == 3, "datagrams for the peer")
            assert sorted(relay.heard(), key=lambda item: item[1]) == [
                (one.address, b"from one"),
                (two.address, b"from two"),
                (one.address, b"longer, from one"),
            ]

    run(story())


def test_frames_for_one_address_leave_together() -> None:
    """One send per address and turn; what is too long for a train goes by itself, and order is kept."""
    wire = Wire()
    relay = Bench(udp=wire)
    for payload in (bytes(1200), bytes(1200), bytes(4096), bytes(1200)):
        relay.say("203.0.113.7:4433", payload)
    relay.say("203.0.113.8:4433", bytes(10))
    relay.say("203.0.113.7:4433", bytes(20))
    assert relay.session.held_bytes
    relay.session.send_untrusted()
    assert wire.sent == [
        ("203.0.113.7", 4433, [1200, 1200]),
        ("203.0.113.7", 4433, [4096]),
        ("203.0.113.7", 4433, [1200, 20]),
        ("203.0.113.8", 4433, [10]),
    ]
    assert relay.session.held_bytes == 0
    relay.session.send_untrusted()
    assert len(wire.sent) == 4
    relay.say("203.0.113.7:4433", bytes(4096))
    relay.session.send_untrusted()
    assert wire.sent[4:] == [("203.0.113.7", 4433, [4096])]


def test_what_the_socket_does_not_take_is_dropped() -> None:
    """A full socket and an error each cost their datagrams and nothing else."""
    wire = Wire(SendResult(1, 1, 101), SendResult(0, 0, 0))
    relay = Bench(udp=wire)
    relay.say("203.0.113.7:4433", *[bytes(100)] * 3)
    relay.session.send_untrusted()
    assert relay.dropped() == {"send_error": 1, "socket_full": 1}
    assert relay.session.moved_bytes == 100
    relay.say("203.0.113.7:4433", bytes(100))
    relay.session.send_untrusted()
    assert relay.dropped() == {"send_error": 1, "socket_full": 2}


def test_refused_targets_cost_their_datagrams_only() -> None:
    """What is refused is counted by reason; honest frames around it pass, and a change of rules counts at once."""
    wire = Wire()
    relay = Bench(udp=wire)
    for target in ("10.0.0.1:53", "203.0.113.7:4433", "203.0.113.7:0", "[2001:db8::1]:1", "203.0.113.7:4433"):
        relay.say(target, b"x")
    relay.session.feed(b"\x00\x00\x00\x02\x00\x05")
    relay.say("10.0.0.1:53", b"x")
    relay.session.send_untrusted()
    assert wire.sent == [("203.0.113.7", 4433, [1, 1])]
    assert relay.dropped() == {
        "target_special": 2,
        "target_port": 1,
        "address_family": 1,
        "frame_malformed": 1,
    }
    relay.policy.change(rules(denied=("203.0.113.0/24",)))
    relay.say("203.0.113.7:4433", b"x")
    relay.session.send_untrusted()
    assert len(wire.sent) == 1
    assert relay.dropped()["target_denied"] == 1


def test_peer_that_tries_ever_new_targets_is_slowed_down() -> None:
    """To judge a target costs more than to send to it: known ones still pass, and the budget comes back."""
    wire = Wire()
    relay = Bench(udp=wire)
    relay.say("203.0.113.7:4433", b"known")
    for number in range(400):
        relay.say(f"198.18.{number % 250}.1:{1 + number}", b"x")
    relay.say("203.0.113.7:4433", b"known")
    relay.session.send_untrusted()
    assert relay.dropped() == {"new_targets": 400 + 1 - relay_session.NEW_TARGETS_BURST}
    assert wire.sent[0] == ("203.0.113.7", 4433, [5, 5])
    relay.session._new_targets = TokenBucket(0.0, 1.0)
    relay.say("203.0.113.9:4433", b"later")
    relay.session.send_untrusted()
    assert wire.sent[-1] == ("203.0.113.9", 4433, [5])


def test_peer_that_sends_rubbish_is_given_up() -> None:
    """Some frames without an address are passed over; as many as nobody sends by mistake end the session."""
    relay = Bench(udp=Wire())
    relay.session.feed(bytes(4) * int(relay_session.MALFORMED_BURST))
    relay.session.send_untrusted()
    relay.session.feed(bytes(4) * 20)
    with pytest.raises(RelayDecodeError, match="address"):
        relay.session.send_untrusted()
    assert relay.dropped() == {"frame_malformed": relay_session.MALFORMED_BURST + 20}


def test_short_datagrams_count_as_more_than_their_bytes() -> None:
    """Else a rate in bytes would let millions of empty ones pass."""
    wire = Wire()
    relay = Bench(udp=wire, rate=TokenBucket(0.0, 1000.0))
    relay.say("203.0.113.7:4433", *[b""] * 50)
    relay.session.send_untrusted()
    assert sum(len(sizes) for _, _, sizes in wire.sent) == 10
    assert relay.dropped() == {"rate": 40}
    assert relay.session.moved_bytes == 0


def test_stream_that_is_none_is_reported() -> None:
    """A length that no frame has ends it."""
    relay = Bench(udp=Wire())
    relay.session.feed(b"\xff\xff\xff\xff")
    with pytest.raises(RelayDecodeError):
        relay.session.send_untrusted()


def test_peer_that_does_not_read_is_given_what_there_is_room_for() -> None:
    """Frames count with their headers; the rest is dropped and counted, and nothing is kept."""

    async def story() -> None:
        async with bench() as relay, third_party() as party:
            overhead = 4 + len(frame_header(party.address))
            relay.room_bytes = 3 * (1000 + overhead)
            for number in range(10):
                party.send(relay.address, number.to_bytes(1, "big") * 1000)
            await until(lambda: len(relay.heard()) + sum(relay.dropped().values()) == 10, "an end for each")
            # A burst is measured against the room there was when it was read.
            assert len(relay.heard()) >= 3
            relay.room_bytes = 0
            passed = len(relay.heard())
            for _ in range(5):
                party.send(relay.address, bytes(1000))
            await until(lambda: sum(relay.dropped().values()) == 15 - passed, "drops")
            assert len(relay.heard()) == passed
            assert set(relay.dropped()) == {"queue_full"}

    run(story())


@pytest.mark.parametrize("which", ["rate", "share"])
def test_bandwidth_is_limited_both_ways(which: str) -> None:
    """By the session's own rate or the worker's share: what exceeds it is dropped, smaller ones still pass."""

    async def story() -> None:
        async with bench(**{which: TokenBucket(0.0, 2500.0)}) as relay, third_party() as party:
            relay.say(party.address, bytes(1000), bytes(1000), bytes(1000), bytes(300))
            relay.session.send_untrusted()
            assert [len(data) for data, _ in await party.receive(3)] == [1000, 1000, 300]
            assert relay.dropped() == {"rate": 1}
            party.send(relay.address, bytes(201))
            await until(lambda: relay.dropped() == {"rate": 2}, "another drop")
            party.send(relay.address, bytes(200))
            await until(relay.heard, "what is left")
            assert relay.session.moved_bytes == 2500

    run(story())


def test_refused_by_the_share_costs_the_session_nothing() -> None:
    """The session's own tokens are there when the worker has room again."""
    rate, share = TokenBucket(0.0, 1000.0), TokenBucket(0.0, 0.0)
    wire = Wire()
    relay = Bench(udp=wire, rate=rate, share=share)
    relay.say("203.0.113.7:4433", bytes(1000))
    relay.session.send_untrusted()
    assert wire.sent == []
    relay.session._share = TokenBucket(0.0, 1000.0)
    relay.say("203.0.113.7:4433", bytes(1000))
    relay.session.send_untrusted()
    assert len(wire.sent) == 1


def test_what_there_is_no_room_for_uses_up_no_rate() -> None:
    """A flood for a peer that does not read must not slow down the others of the worker."""

    async def story() -> None:
        share = TokenBucket(0.0, 1000.0)
        async with bench(share=share, room_bytes=0) as relay, third_party() as party:
            for _ in range(5):
                party.send(relay.address, bytes(300))
            await until(lambda: relay.dropped() == {"queue_full": 5}, "drops")
            assert share.take(0.0, 1000.0)

    run(story())


def test_rate_can_be_changed() -> None:
    """A session that was slow may be fast."""
    wire = Wire()
    relay = Bench(udp=wire, rate=TokenBucket(0.0, 100.0))
    relay.session.change_rate(1e12, 1e12)
    relay.say("203.0.113.7:4433", bytes(100))
    relay.session.send_untrusted()
    assert len(wire.sent) == 1


def test_ipv6_session_speaks_to_both_families() -> None:
    """IPv4 third parties are reported, and addressed, in mapped form; also if the peer uses the plain one."""

    async def story() -> None:
        async with bench(host="::1") as relay, third_party() as ipv4, third_party("::1") as ipv6:
            mapped = SocketAddress.from_host(f"::ffff:{ipv4.address.host}", ipv4.address.port)
            relay.say(mapped, b"mapped")
            relay.say(ipv4.address, b"plain")
            relay.say(ipv6.address, b"six")
            relay.session.send_untrusted()
            assert [data for data, _ in await ipv4.receive(2)] == [b"mapped", b"plain"]
            ((data, (host, port, *_)),) = await ipv6.receive()
            assert (data, host, port) == (b"six", "::1", relay.port.port)
            ipv4.send(("127.0.0.1", relay.port.port), b"from four")
            ipv6.send(("::1", relay.port.port), b"from six")
            await until(lambda: len(relay.heard()) == 2, "datagrams for the peer")
            assert sorted(relay.heard(), key=lambda item: item[1]) == [
                (mapped, b"from four"),
                (ipv6.address, b"from six"),
            ]

    run(story())


def test_ipv4_session_takes_the_mapped_form_of_a_target() -> None:
    """A peer with a socket for both families writes it so."""
    wire = Wire()
    relay = Bench(udp=wire)
    relay.say("[::ffff:203.0.113.7]:4433", b"x")
    relay.session.send_untrusted()
    assert wire.sent == [("203.0.113.7", 4433, [1])]


def test_sessions_of_one_node_meet_behind_address_translation() -> None:
    """The address others know is translated to the port's own, and back, for the ports of sessions only."""

    async def story() -> None:
        public = "203.0.113.7"
        async with bench(advertised_host=public) as one, bench(advertised_host=public) as two:
            one.say(SocketAddress.from_host(public, two.port.port), b"hello")
            one.session.send_untrusted()
            await until(two.heard, "greeting")
            assert two.heard() == [(SocketAddress.from_host(public, one.port.port), b"hello")]
        wire = Wire()
        relay = Bench(udp=wire, advertised_host=public)
        relay.say(f"{public}:443", b"x")
        relay.session.send_untrusted()
        assert wire.sent == [(public, 443, [1])]

    run(story())


def test_memory_of_addresses_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer, or the world, that uses ever new addresses does not make a session grow."""

    async def story() -> None:
        monkeypatch.setattr(relay_session, "MAX_ROUTES", 2)
        async with bench() as relay:
            for _ in range(5):
                async with third_party() as party:
                    relay.say(party.address, b"x")
                    relay.session.send_untrusted()
                    await party.receive()
                    party.send(relay.address, b"x")
                    await until(lambda: relay.heard()[-1:] == [(party.address, b"x")], "datagram for the peer")
            assert len(relay.session._routes) <= 2
            assert len(relay.session._headers) <= 2

    run(story())
