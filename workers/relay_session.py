"""
One session of the stream relay: a UDP port on one side, a stream of frames on the other.

It knows nothing of QUIC: ``deliver`` takes the frames that are meant for the peer, ``room_bytes`` says how many bytes
of them may be taken now. What comes from the peer is fed as it arrives and goes out in one step, so that datagrams to
one address leave in trains.

A datagram that may not or cannot pass now is dropped and counted, in both directions: none ever waits here. QUIC, which
is what peers relay, takes that as loss on the path.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from socket import AF_INET6, inet_pton
from struct import Struct
from typing import Final

from antquic_server.errors import RelayDecodeError
from antquic_server.net.udp import PathAddress
from antquic_server.protocol.address import SocketAddress
from antquic_server.protocol.limits import TokenBucket
from antquic_server.protocol.relay_limits import RelayMode
from antquic_server.protocol.relay_stream import FrameReader, decode_frame_untrusted, frame_header
from antquic_server.protocol.relay_targets import TargetPolicy, TargetVerdict
from antquic_server.stats.counters import CounterSet
from workers.relay_meter import MIN_COST_BYTES
from workers.relay_ports import RelayPort

RECEIVE_BURST_DATAGRAMS: Final = 64
"""Read in one go; a train is never cut. Others have their turn after some 100 µs."""

MAX_ROUTES: Final = 256
"""Addresses remembered in each direction, about 150 kB; emptied when full."""

MAX_TRAIN_PAYLOAD_BYTES: Final = 1452
"""Longer datagrams go out one by one: a train of what has to be fragmented is refused by the kernel."""

NEW_TARGETS_PER_S: Final = 50.0
NEW_TARGETS_BURST: Final = 256.0
"""Addresses that a peer may begin to send to: to judge one costs as much as fifty datagrams. Even a listener has fewer
new callers."""

MALFORMED_PER_S: Final = 10.0
MALFORMED_BURST: Final = 100.0
"""Frames without an address that are passed over, as ant-quic does; who sends more has lost its place in the stream."""

MAX_OVERHEAD_BYTES: Final = 24
"""Of a frame of ours: its length, and a header with an IPv6 address."""

FRAME_MALFORMED: Final = "frame_malformed"

_LENGTH: Final = Struct(">I")


class RelayCounters:
    """What all sessions of a worker count together, with the keys of hot paths looked up once."""

    def __init__(self, counters: CounterSet) -> None:
        self.set = counters
        self.values = counters.values
        self.bytes_key = counters.declare("relay_bytes", RelayMode.STREAM)
        self.datagrams_key = counters.declare("relay_datagrams", RelayMode.STREAM)

    def passed(self, datagrams: int, size_bytes: int) -> None:
        """Count what was delivered."""
        self.values[self.datagrams_key] += datagrams
        self.values[self.bytes_key] += size_bytes

    def dropped(self, reason: str, datagrams: int = 1) -> None:
        """Count what was not."""
        self.set.add("relay_drops", datagrams, RelayMode.STREAM, reason)


class RelaySession:
    """
    A session that is open.

    ``advertised_host`` is the address the port is known by. Where that is another than the port's own, because the node
    is behind address translation, sessions of this node meet by it all the same: it is translated here both ways.
    ``share`` is the bandwidth of all sessions of the worker.
    """

    __slots__ = (
        "_advertised_host",
        "_counters",
        "_deliver",
        "_headers",
        "_local_control",
        "_loop",
        "_malformed",
        "_new_targets",
        "_policy",
        "_policy_generation",
        "_port",
        "_rate",
        "_reader",
        "_room_bytes",
        "_routes",
        "_session_ports",
        "_share",
        "moved_bytes",
    )

    def __init__(
        self,
        port: RelayPort,
        *,
        deliver: Callable[[bytes], None],
        room_bytes: Callable[[], int],
        policy: TargetPolicy,
        rate: TokenBucket,
        share: TokenBucket,
        counters: RelayCounters,
        advertised_host: str,
        session_ports: tuple[int, int],
    ) -> None:
        self.moved_bytes = 0
        """Payload delivered in both directions, since the owner has last set it to 0."""
        self._port = port
        self._deliver = deliver
        self._room_bytes = room_bytes
        self._policy = policy
        self._policy_generation = policy.generation
        self._rate = rate
        self._share = share
        self._counters = counters
        self._advertised_host = advertised_host
        self._session_ports = session_ports
        self._new_targets = TokenBucket(NEW_TARGETS_PER_S, NEW_TARGETS_BURST)
        self._malformed = TokenBucket(MALFORMED_PER_S, MALFORMED_BURST)
        self._reader = FrameReader()
        self._routes: dict[bytes, PathAddress | str] = {}
        """By a frame's header: where to send, or the reason not to."""
        self._headers: dict[PathAddress, bytes] = {}
        # The port of an IPv6 session is open on every address: say from which one to send.
        self._local_control = inet_pton(AF_INET6, port.host) + bytes(4) if port.ipv6 else b""
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to read the port."""
        self._loop = loop
        loop.add_reader(self._port.udp.fileno(), self._readable)

    def close(self) -> None:
        """Give the port back; once is enough, twice does no harm."""
        if self._loop is not None:
            self._loop.remove_reader(self._port.udp.fileno())
            self._loop = None
        self._port.close()

    def change_rate(self, rate_bytes_per_s: float, burst_bytes: float) -> None:
        """Be this fast from now on."""
        self._rate.change(rate_bytes_per_s, burst_bytes, time.monotonic())

    # From the peer.

    @property
    def held_bytes(self) -> int:
        """Bytes from the peer that have not gone out: the beginning of a frame, once ``send`` was called."""
        return self._reader.held_bytes

    def feed(self, data: bytes) -> None:
        """Take what has arrived from the peer; it goes out with the next ``send``."""
        self._reader.feed(data)

    def send_untrusted(self) -> None:
        """
        Send what the peer's frames say.

        Raises:
            RelayDecodeError: The stream is not one of frames; the session is of no use any more.
        """
        frames = self._reader.take_untrusted()
        if not frames:
            return
        if self._policy.generation != self._policy_generation:
            self._policy_generation = self._policy.generation
            self._routes.clear()
        now_s = time.monotonic()
        groups: dict[PathAddress, list[bytes]] = {}
        refused: dict[str, int] = {}
        routes = self._routes
        last_header: bytes | None = None
        payloads: list[bytes] = []
        for header, payload in frames:
            if header != last_header:
                route = routes.get(header) or self._find_route_untrusted(header, now_s)
                if isinstance(route, str):
                    refused[route] = refused.get(route, 0) + 1
                    continue
                payloads = groups.setdefault(route, [])
                last_header = header
            payloads.append(payload)
        for reason, count in refused.items():
            self._counters.dropped(reason, count)
        for route, group in groups.items():
            admitted = self._within_rate(group, now_s)
            if admitted:
                self._send_to(route, admitted)
        if not self._malformed.take(now_s, refused.get(FRAME_MALFORMED, 0)):
            raise RelayDecodeError("too many relay frames without an address")

    def _find_route_untrusted(self, header: bytes, now_s: float) -> PathAddress | str:
        if not header:
            return FRAME_MALFORMED
        if not self._new_targets.take(now_s):
            return "new_targets"
        try:
            target, _ = decode_frame_untrusted(header)
        except RelayDecodeError:
            return FRAME_MALFORMED
        route = self._route(target.normalised())
        if len(self._routes) >= MAX_ROUTES:
            self._routes.clear()
        self._routes[header] = route
        return route

    def _route(self, target: SocketAddress) -> PathAddress | str:
        verdict = self._policy.judge(target)
        if verdict is not TargetVerdict.ALLOWED:
            return verdict.value
        host = str(target.host)
        if host == self._advertised_host and self._is_session_port(target.port):
            host = self._port.host
        if not self._port.ipv6:
            return PathAddress(host, target.port, 0, 0, b"", 0) if target.is_ipv4 else "address_family"
        if target.is_ipv4:
            return PathAddress(f"::ffff:{host}", target.port, 0, 0, b"", 0)
        return PathAddress(host, target.port, 0, 0, self._local_control, 0)

    def _send_to(self, route: PathAddress, payloads: Sequence[bytes]) -> None:
        if max(map(len, payloads)) <= MAX_TRAIN_PAYLOAD_BYTES:
            self._send_run(route, payloads)
            return
        run: list[bytes] = []
        for payload in payloads:
            if len(payload) <= MAX_TRAIN_PAYLOAD_BYTES:
                run.append(payload)
                continue
            if run:
                self._send_run(route, run)
                run = []
            self._send_run(route, (payload,))
        if run:
            self._send_run(route, run)

    def _send_run(self, route: PathAddress, payloads: Sequence[bytes]) -> None:
        result = self._port.udp.send(route, payloads)
        if result.sent == len(payloads):
            self._passed(payloads)
            return
        if result.sent:
            # Which ones were dropped in between is not known; what counts here is how many bytes passed, nearly.
            self._passed(payloads[: result.sent])
        if result.dropped:
            self._counters.dropped("send_error", result.dropped)
        if result.handled < len(payloads):
            self._counters.dropped("socket_full", len(payloads) - result.handled)

    # To the peer.

    def _readable(self) -> None:
        received = self._port.udp.receive_datagrams(RECEIVE_BURST_DATAGRAMS)
        if received:
            self._pass_on(received)

    def _pass_on(self, received: list[tuple[bytes, PathAddress]]) -> None:
        room_bytes = self._room_bytes()
        now_s = time.monotonic()
        size_bytes = sum([len(item[0]) for item in received])
        # All at once if all may pass, as they nearly always may; each by itself if not. What there is no room for must
        # not use up the rate, which others of the worker share.
        most_bytes = size_bytes + MAX_OVERHEAD_BYTES * len(received)
        singly = most_bytes > room_bytes or not self._take(size_bytes, len(received), now_s)
        pieces: list[bytes] = []
        last_path: PathAddress | None = None
        last_size = -1
        header = prefix = b""
        passed = passed_bytes = too_fast = too_full = 0
        for payload, path in received:
            size = len(payload)
            if path is not last_path:
                header = self._headers.get(path) or self._find_header(path)
                last_path = path
                last_size = -1
            if size != last_size:
                prefix = _LENGTH.pack(len(header) + size) + header
                last_size = size
            needed = len(prefix) + size
            if needed > room_bytes:
                too_full += 1
            elif singly and not self._take(size, 1, now_s):
                too_fast += 1
            else:
                room_bytes -= needed
                pieces += (prefix, payload)
                passed += 1
                passed_bytes += size
        if too_full:
            self._counters.dropped("queue_full", too_full)
        if too_fast:
            self._counters.dropped("rate", too_fast)
        if passed:
            self._deliver(b"".join(pieces))
            self.moved_bytes += passed_bytes
            self._counters.passed(passed, passed_bytes)

    def _find_header(self, path: PathAddress) -> bytes:
        host = path.host
        if self._is_session_port(path.port) and host.removeprefix("::ffff:") == self._port.host:
            host = self._advertised_host
        header = frame_header(SocketAddress.from_host(host, path.port))
        if len(self._headers) >= MAX_ROUTES:
            self._headers.clear()
        self._headers[path] = header
        return header

    # Both.

    def _is_session_port(self, port: int) -> bool:
        first, last = self._session_ports
        return first <= port <= last

    def _within_rate(self, payloads: list[bytes], now_s: float) -> Sequence[bytes]:
        """Return what of a group may pass."""
        if self._take(sum(map(len, payloads)), len(payloads), now_s):
            return payloads
        admitted = [item for item in payloads if self._take(len(item), 1, now_s)]
        self._counters.dropped("rate", len(payloads) - len(admitted))
        return admitted

    def _take(self, size_bytes: int, datagrams: int, now_s: float) -> bool:
        """Take from the session's rate and from the worker's share, or from neither."""
        cost = max(size_bytes, datagrams * MIN_COST_BYTES)
        if not self._rate.take(now_s, cost):
            return False
        if self._share.take(now_s, cost):
            return True
        self._rate.take(now_s, -cost)
        return False

    def _passed(self, payloads: Sequence[bytes]) -> None:
        size_bytes = sum(map(len, payloads))
        self.moved_bytes += size_bytes
        self._counters.passed(len(payloads), size_bytes)
