"""
The load of ``bench relay``: sends through a relay, counts what arrives, and reads the relay's CPU clock.

A process of its own, on another CPU than the relay where there are two. It inherits sockets that are connected to the
relay and sockets at which the relay delivers, which may be in other network namespaces than it is. Run as
``python -m antquic_server.bench.relay_load`` with a :class:`LoadOrder` as JSON on each line of standard input; prints a
line with a :class:`LoadResult` for each.
"""

import json
import os
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import cycle
from typing import Any

from antquic_server.bench.cpu_time import process_cpu_s
from antquic_server.bench.relay_mmsg import BatchReceiver, BatchSender
from antquic_server.bench.relay_window import Window

__all__ = ["LoadOrder", "LoadResult", "SessionOrder", "generate"]

BURST_DATAGRAMS = 64
"""About what one session sends before it looks for arrivals; as long as the longest train."""

WARM_UP_S = 0.05

QUIET_S = 0.2
"""Nothing has arrived for so long after the end: nothing more will, even where the relay has to wait for a CPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionOrder:
    """Descriptors of one session's sockets, and what stands before the payload of each of its datagrams, in hex."""

    out_fd: int
    arrival_fd: int
    header: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOrder:
    """
    What to send: ``train`` datagrams of ``payload_bytes`` at once, on all sessions in turn, for ``seconds``.

    ``arrival_overhead_bytes`` is what stands before the payload where it arrives; ``pid`` the relay's process;
    ``cpus`` where the load runs, empty for anywhere.
    """

    sessions: Sequence[SessionOrder]
    payload_bytes: int
    arrival_overhead_bytes: int
    train: int
    seconds: float
    pid: int
    cpus: Sequence[int] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadResult:
    """Datagrams sent and delivered, sessions on which nothing arrived, wall time and the relay's CPU time."""

    sent: int
    delivered: int
    silent_sessions: int
    wall_s: float
    cpu_s: float

    @property
    def per_cpu_s(self) -> float:
        """Delivered datagrams per second of the relay's CPU time."""
        return self.delivered / max(self.cpu_s, 1e-6)

    @property
    def lost_share(self) -> float:
        """How much of what was sent did not arrive, 0 to 1."""
        return max(0.0, 1 - self.delivered / self.sent) if self.sent else 0.0

    @property
    def busy_share(self) -> float:
        """How much of the time the relay was on a CPU, 0 to 1 and more for several threads."""
        return self.cpu_s / max(self.wall_s, 1e-6)


def generate(order: LoadOrder) -> LoadResult:
    """Send and count in this process."""
    with ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.socket(fileno=os.dup(fd)))
            for item in order.sessions
            for fd in (item.out_fd, item.arrival_fd)
        ]
        return _Load(order, sockets).run()


class _Load:
    def __init__(self, order: LoadOrder, sockets: Sequence[socket.socket]) -> None:
        self._order = order
        self._arrival_bytes = order.payload_bytes + order.arrival_overhead_bytes
        count = len(order.sessions)
        messages = max(1, BURST_DATAGRAMS // (order.train * count))
        self._burst = messages * order.train
        payload = os.urandom(order.payload_bytes)
        self._senders = [
            BatchSender(sock, bytes.fromhex(item.header) + payload, train=order.train, messages=messages)
            for sock, item in zip(sockets[::2], order.sessions, strict=True)
        ]
        self._turns = cycle(self._senders)
        self._receivers = [BatchReceiver(sock) for sock in sockets[1::2]]
        self._arrived = [0] * count
        self._limit = max(4 * BURST_DATAGRAMS, 2 * self._burst * count)

    def run(self) -> LoadResult:
        for receiver in self._receivers:
            receiver.receive()  # what an earlier load has left behind
        self._send_for(min(WARM_UP_S, self._order.seconds))
        self._arrived = [0] * len(self._arrived)
        before_s, started_s = process_cpu_s(self._order.pid), time.monotonic()
        window = self._send_for(self._order.seconds)
        return LoadResult(
            sent=window.sent,
            delivered=window.delivered,
            silent_sessions=self._arrived.count(0),
            wall_s=time.monotonic() - started_s,
            cpu_s=process_cpu_s(self._order.pid) - before_s,
        )

    def _send_for(self, seconds: float) -> Window:
        now_s = time.monotonic()
        window = Window(self._limit, now_s)
        deadline_s = now_s + seconds
        while now_s < deadline_s:
            for _ in range(len(self._senders)):
                if window.room <= 0:
                    break
                # Going on where the last turn has stopped: no session has the window to itself.
                window.sent += next(self._turns).send(self._burst)
            self._take(window)
            now_s = time.monotonic()
            window.tick(now_s)
        # What is on its way still counts: as delivered, and in the relay's CPU time.
        heard_s, heard = now_s, window.delivered
        while window.delivered < window.sent and now_s < heard_s + QUIET_S:
            self._take(window)
            now_s = time.monotonic()
            if window.delivered > heard:
                heard_s, heard = now_s, window.delivered
        return window

    def _take(self, window: Window) -> None:
        for index, receiver in enumerate(self._receivers):
            arrived = receiver.receive() // self._arrival_bytes
            window.delivered += arrived
            self._arrived[index] += arrived


def order_from_plain(plain: dict[str, Any]) -> LoadOrder:
    """Read an order that ``asdict`` has written."""
    sessions = [SessionOrder(**item) for item in plain.pop("sessions")]
    return LoadOrder(sessions=sessions, **plain)


def main() -> None:
    """Carry out orders until standard input ends."""
    for line in sys.stdin:
        order = order_from_plain(json.loads(line))
        if order.cpus and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, order.cpus)
        print(json.dumps(asdict(generate(order))), flush=True)


if __name__ == "__main__":
    main()
