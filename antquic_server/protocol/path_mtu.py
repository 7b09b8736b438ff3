"""
Which datagram size a path carries: packetization layer path MTU discovery (RFC 8899; RFC 9000, section 14.3).

Sizes are UDP payloads in bytes. The search owns no socket, clock or packet: it says which size to probe, is told
what became of the probe, and holds the size that may be used.

================  ==================================================  ================================================
state             what goes on                                        left by
================  ==================================================  ================================================
DISABLED          the handshake is not confirmed; ``initial``         confirmation
BASE              the path is new, or swallowed what was sent;        the probe of ``min``: acknowledged, or lost for
                  ``min`` is used and probed                          good
SEARCHING         sizes between the proven one and the ceiling are    no size left to try
                  probed, one at a time
SEARCH_COMPLETE   the proven size is used                             the raise timer, 600 s
ERROR             not even ``min`` gets through; 1200 is used         a retry after 60 s
================  ==================================================  ================================================

From every state but DISABLED a new path leads to BASE, from every state but DISABLED and ERROR a black hole does. A
probe is lost for good after three losses, so that a lossy path is not taken for a narrow one. The search tries the
ceiling first, since most paths carry it, and then halves what is left, in steps of 4 bytes: MTUs and headers are
multiples of that.
"""

import math
from collections.abc import Mapping
from enum import Enum, auto
from types import MappingProxyType
from typing import Final

__all__ = [
    "BLACK_HOLE_BURSTS",
    "ERROR_RETRY_S",
    "MAX_PROBES",
    "MIN_DATAGRAM_BYTES",
    "NEVER",
    "RAISE_INTERVAL_S",
    "STEP_BYTES",
    "TRANSITIONS",
    "BlackHoleDetector",
    "MtuInput",
    "MtuState",
    "PathMtu",
]

MIN_DATAGRAM_BYTES: Final = 1200
"""What every path that carries QUIC carries (RFC 9000, section 14)."""

MAX_PROBES: Final = 3
"""Losses after which a size counts as too large (MAX_PROBES of RFC 8899, section 5.1.2)."""

STEP_BYTES: Final = 4

RAISE_INTERVAL_S: Final = 600.0
"""PMTU_RAISE_TIMER of RFC 8899, section 5.1.1."""

ERROR_RETRY_S: Final = 60.0
"""Long enough to cost nothing, short enough to notice that an outage was only that."""

BLACK_HOLE_BURSTS: Final = 3
"""As many round trips in which nothing large arrives and something small does."""

NEVER: Final = math.inf


class MtuState(Enum):
    """States of RFC 8899, section 5.2."""

    DISABLED = auto()
    BASE = auto()
    SEARCHING = auto()
    SEARCH_COMPLETE = auto()
    ERROR = auto()


class MtuInput(Enum):
    """What can happen to a search; a probe fails when it is lost for good."""

    CONFIRMED = auto()
    PROBE_ACKED = auto()
    PROBE_FAILED = auto()
    TIMER = auto()
    BLACK_HOLE = auto()
    PATH_CHANGED = auto()


TRANSITIONS: Final[Mapping[tuple[MtuState, MtuInput], MtuState]] = MappingProxyType(
    {
        (MtuState.DISABLED, MtuInput.CONFIRMED): MtuState.SEARCHING,
        (MtuState.BASE, MtuInput.PROBE_ACKED): MtuState.SEARCHING,
        (MtuState.BASE, MtuInput.PROBE_FAILED): MtuState.ERROR,
        (MtuState.BASE, MtuInput.BLACK_HOLE): MtuState.BASE,
        (MtuState.BASE, MtuInput.PATH_CHANGED): MtuState.BASE,
        (MtuState.SEARCHING, MtuInput.PROBE_ACKED): MtuState.SEARCHING,
        (MtuState.SEARCHING, MtuInput.PROBE_FAILED): MtuState.SEARCHING,
        (MtuState.SEARCHING, MtuInput.BLACK_HOLE): MtuState.BASE,
        (MtuState.SEARCHING, MtuInput.PATH_CHANGED): MtuState.BASE,
        (MtuState.SEARCH_COMPLETE, MtuInput.TIMER): MtuState.SEARCHING,
        (MtuState.SEARCH_COMPLETE, MtuInput.BLACK_HOLE): MtuState.BASE,
        (MtuState.SEARCH_COMPLETE, MtuInput.PATH_CHANGED): MtuState.BASE,
        (MtuState.ERROR, MtuInput.TIMER): MtuState.BASE,
        (MtuState.ERROR, MtuInput.PATH_CHANGED): MtuState.BASE,
    }
)
"""Next state; an input that is not here changes nothing. SEARCHING with nothing to try becomes SEARCH_COMPLETE."""


class PathMtu:
    """
    The search on one connection's present path.

    ``min_bytes`` is what a new path is believed to carry, ``initial_bytes`` what the handshake uses and thereby
    proves, ``max_bytes`` is never exceeded; 1200 <= min <= initial <= max, else ValueError. ``size_bytes`` may be
    used now, ``due_s`` is when ``next_probe`` wants to be asked (``NEVER`` while there is nothing to send).
    """

    __slots__ = (
        "_attempts",
        "_ceiling_bytes",
        "_least_bytes",
        "_most_bytes",
        "_probe_bytes",
        "_ticket",
        "_try_ceiling",
        "due_s",
        "max_bytes",
        "min_bytes",
        "size_bytes",
        "state",
    )

    def __init__(self, *, min_bytes: int, initial_bytes: int, max_bytes: int) -> None:
        if not MIN_DATAGRAM_BYTES <= min_bytes <= initial_bytes <= max_bytes:
            raise ValueError(f"datagram sizes are not in order: {min_bytes}, {initial_bytes}, {max_bytes}")
        self.state = MtuState.DISABLED
        self.min_bytes = self._least_bytes = min_bytes
        self.max_bytes = self._most_bytes = max_bytes
        self.size_bytes = initial_bytes
        self.due_s = NEVER
        self._ceiling_bytes = max_bytes
        """Largest size not refuted."""
        self._try_ceiling = True
        self._probe_bytes = 0
        self._attempts = 0
        self._ticket = 0
        """Of the probe in flight, or of the next; older ones are void."""

    def limit(self, peer_max_bytes: int) -> None:
        """Respect what the peer says it takes (max_udp_payload_size, at least 1200; RFC 9000, section 18.2)."""
        self._most_bytes = min(self._most_bytes, peer_max_bytes)
        self._restrict(min(self.max_bytes, peer_max_bytes))

    def set_overhead(self, overhead_bytes: int) -> None:
        """
        Leave room for what the present path puts around each datagram: a relay's header.

        Called before ``path_changed`` or, for the first path, before anything is sent. The handshake then has no more
        than every path carries, since what is proven by it is the datagram without the header.
        """
        if overhead_bytes and self.state is MtuState.DISABLED:
            self.size_bytes = MIN_DATAGRAM_BYTES
        self._restrict(max(MIN_DATAGRAM_BYTES, self._most_bytes - overhead_bytes))

    def _restrict(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.min_bytes = min(self._least_bytes, max_bytes)
        self.size_bytes = min(self.size_bytes, max_bytes)
        self._ceiling_bytes = min(self._ceiling_bytes, max_bytes)

    # What happens.

    def handshake_confirmed(self) -> None:
        """Begin: the handshake has proven ``initial_bytes``, and a probe lost now delays nothing that matters."""
        self._take(MtuInput.CONFIRMED, 0.0)

    def path_changed(self, now_s: float) -> None:
        """Begin anew, as nothing is known of the new path."""
        self._take(MtuInput.PATH_CHANGED, now_s)

    def black_hole(self, now_s: float) -> bool:
        """The size in use does not arrive any more: fall back; False if nothing smaller is allowed."""
        if self.size_bytes <= MIN_DATAGRAM_BYTES or (self.state, MtuInput.BLACK_HOLE) not in TRANSITIONS:
            return False
        self._take(MtuInput.BLACK_HOLE, now_s)
        return True

    def next_probe(self, now_s: float) -> int | None:
        """Return the size to probe now; None if it is not time or a probe is in flight."""
        if now_s < self.due_s:
            return None
        if self.state in (MtuState.SEARCH_COMPLETE, MtuState.ERROR):
            self._take(MtuInput.TIMER, now_s)
        return None if self.due_s > now_s else self._probe_bytes

    def probe_sent(self) -> int:
        """The probe is on its way; returns the ticket under which its fate is to be reported."""
        self.due_s = NEVER
        return self._ticket

    def probe_acked(self, ticket: int, now_s: float) -> None:
        """The probe has arrived; a ticket from before the last change is ignored."""
        if ticket == self._ticket:
            self._take(MtuInput.PROBE_ACKED, now_s)

    def probe_lost(self, ticket: int, now_s: float) -> None:
        """The probe has not arrived: try again, or give its size up; a ticket of the past is ignored."""
        if ticket != self._ticket:
            return
        self._attempts += 1
        if self._attempts < MAX_PROBES:
            self._offer(self._probe_bytes)
        else:
            self._take(MtuInput.PROBE_FAILED, now_s)

    # What follows from it.

    def _take(self, event: MtuInput, now_s: float) -> None:
        following = TRANSITIONS.get((self.state, event))
        if following is None:
            return
        self._note(event)
        self.state = following
        self._attempts = 0
        if following is MtuState.SEARCHING:
            self._search(now_s)
        elif following is MtuState.BASE:
            self._offer(self.min_bytes)
        else:
            self.size_bytes = MIN_DATAGRAM_BYTES
            self._rest_until(now_s + ERROR_RETRY_S)

    def _note(self, event: MtuInput) -> None:
        """Keep what the event says about sizes."""
        if event is MtuInput.PROBE_ACKED:
            self.size_bytes = self._probe_bytes
        elif event is MtuInput.PROBE_FAILED:
            self._ceiling_bytes = self._probe_bytes - 1
        elif event is MtuInput.BLACK_HOLE:
            # Not tried again before the raise timer: a path that passes probes but no traffic would else flap.
            self._ceiling_bytes = (self.size_bytes - 1) // STEP_BYTES * STEP_BYTES
            self._try_ceiling = True
            self.size_bytes = self.min_bytes if self.size_bytes > self.min_bytes else MIN_DATAGRAM_BYTES
        else:
            self._ceiling_bytes = self.max_bytes
            self._try_ceiling = True
            if event is MtuInput.PATH_CHANGED:
                self.size_bytes = self.min_bytes

    def _search(self, now_s: float) -> None:
        candidate = self._candidate(self._ceiling_bytes)
        if candidate is not None:
            self._offer(candidate)
            return
        self.state = MtuState.SEARCH_COMPLETE
        self._rest_until(NEVER if self._candidate(self.max_bytes) is None else now_s + RAISE_INTERVAL_S)

    def _candidate(self, ceiling_bytes: int) -> int | None:
        lowest = self.size_bytes // STEP_BYTES + 1
        highest = ceiling_bytes // STEP_BYTES
        if lowest > highest:
            # A maximum that is no multiple of the step is worth one try of its own.
            return ceiling_bytes if self._try_ceiling and ceiling_bytes > self.size_bytes else None
        return ceiling_bytes if self._try_ceiling else (lowest + highest + 1) // 2 * STEP_BYTES

    def _offer(self, probe_bytes: int) -> None:
        if self.state is MtuState.SEARCHING:
            self._try_ceiling = False
        self._ticket += 1
        self._probe_bytes = probe_bytes
        self.due_s = 0.0

    def _rest_until(self, due_s: float) -> None:
        self._ticket += 1
        self.due_s = due_s


class BlackHoleDetector:
    """
    Tells a path that swallows large datagrams from one that loses some.

    A loss counts against the size only if, afterwards, something smaller arrives and nothing of that size. What is
    lost within one round trip counts once: a queue that overflows, or an outage, takes many at a time. RFC 8899,
    section 4.3, leaves the method open.
    """

    __slots__ = ("_bursts", "_counted_until_s", "_lost_bytes", "_lost_sent_s")

    def __init__(self) -> None:
        self._bursts: list[int] = []
        """The smallest datagram of each burst that counts."""
        self._counted_until_s = -NEVER
        self._lost_bytes = 0
        self._lost_sent_s = -NEVER

    @property
    def suspicious(self) -> bool:
        """Whether losses wait for a verdict, which acknowledgements bring."""
        return bool(self._lost_bytes or self._bursts)

    def lost(self, smallest_bytes: int, latest_sent_s: float) -> None:
        """Packets were lost together: size of the smallest, sending time of the latest."""
        if smallest_bytes <= MIN_DATAGRAM_BYTES:
            return  # no MTU explains that one
        if latest_sent_s <= self._counted_until_s:
            return  # of a burst that counts already
        self._lost_bytes = min(self._lost_bytes or smallest_bytes, smallest_bytes)
        self._lost_sent_s = max(self._lost_sent_s, latest_sent_s)

    def acked(self, largest_bytes: int, now_s: float) -> bool:
        """Packets up to this size have arrived; True when the path has become a black hole for larger ones."""
        self._bursts = [smallest for smallest in self._bursts if smallest > largest_bytes]
        if self._lost_bytes > largest_bytes:
            self._bursts.append(self._lost_bytes)
            self._counted_until_s = now_s
        self._lost_bytes = 0
        return len(self._bursts) >= BLACK_HOLE_BURSTS

    def reset(self, now_s: float) -> None:
        """Forget: what was sent until now says nothing about the size used from now on."""
        self._bursts.clear()
        self._lost_bytes = 0
        self._counted_until_s = now_s
