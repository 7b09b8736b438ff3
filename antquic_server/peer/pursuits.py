"""
In which order things are tried to reach one peer: hole punching, a channel of a node, hole punching again, any relay.

Punching brings most pairs together within a second or two, and some in a later round. Whoever has to wait should not
wait for all of them: after ``relay_after_s`` a node with channels is asked to carry the connection, which takes a few
round trips, and direct paths are looked for from there (``peer.upgrades``). If it will not, punching goes on for the
rest of its time, and only then is every other way to relay gone through.
"""

from collections.abc import Callable
from dataclasses import dataclass

from antquic_server.peer.events import PunchEnded
from antquic_server.peer.introductions import Introductions
from antquic_server.peer.link import Link
from antquic_server.peer.punching import Failure
from antquic_server.peer.recovery import is_stalled
from antquic_server.peer.relay_attempts import NO_RELAY
from antquic_server.peer.relaying import Relaying
from antquic_server.peer.relays import offers_channels
from antquic_server.peer.settings import PeerSettings
from antquic_server.peer.statistics import Tallies

__all__ = ["PursuitSurroundings", "Pursuits"]

WORTH_ANOTHER_TRY_S = 1.0
"""Left of the time for punching; in less than that no round comes to anything."""
_OUT_OF_TIME = frozenset((Failure.NO_PATH, Failure.COORDINATOR_SILENT))


@dataclass(frozen=True, slots=True, kw_only=True)
class PursuitSurroundings:
    """What pursuits need of the rest of the peer."""

    now_s: Callable[[], float]
    live_link: Callable[[bytes], Link | None]
    cancel_dials: Callable[[bytes], None]
    tell: Callable[[PunchEnded], None]
    report: Callable[[int, bytes, bool], None]
    """Number of a node's connection, peer id, whether we met: tell the node that introduced us."""


@dataclass(slots=True, kw_only=True)
class _Pursuit:
    nodes: list[Link]
    deadline_s: float
    """When punching ends for good."""
    early: bool = False
    """It has been cut short, or a channel is asked for meanwhile."""

    @property
    def numbers(self) -> list[int]:
        return [link.number for link in self.nodes]


class Pursuits:
    """Every peer that is being looked for; each pursuit ends with one ``PunchEnded``."""

    def __init__(
        self,
        around: PursuitSurroundings,
        *,
        introductions: Introductions,
        relaying: Relaying,
        settings: PeerSettings,
        own_peer_id: bytes,
        tallies: Tallies,
    ) -> None:
        self._around = around
        self._introductions = introductions
        self._relaying = relaying
        self._settings = settings
        self._own_peer_id = own_peer_id
        self._tallies = tallies
        self._pursuits: dict[bytes, _Pursuit] = {}

    def begin(self, target: bytes, nodes: list[Link], now_s: float, deadline_s: float | None = None) -> None:
        """Look for a peer with the help of these nodes, unless that goes on already."""
        if self._introductions.is_asking(target) or target in self._relaying.attempts:
            return
        end_s = now_s + self._settings.discovery_timeout_s
        pursuit = _Pursuit(nodes=nodes, deadline_s=end_s if deadline_s is None else min(end_s, deadline_s))
        self._pursuits[target] = pursuit
        if self._settings.relay == "only" and target != self._own_peer_id and nodes:
            if not self._relaying.begin(target, nodes, now_s, why=None):
                self.relay_failed(target, NO_RELAY, None)
            return
        first_s = pursuit.deadline_s
        if self._settings.relay == "auto" and any(map(offers_channels, nodes)):
            first_s = min(first_s, now_s + self._settings.relay_after_s)
            pursuit.early = pursuit.deadline_s - first_s > WORTH_ANOTHER_TRY_S
        until_s = first_s if pursuit.early else pursuit.deadline_s
        self._introductions.begin(target, pursuit.numbers, now_s, until_s)

    def punch_ended(self, target: bytes, failure: Failure | None, invited: bool) -> None:
        """Take in the end of an attempt to punch; see ``introductions.Surroundings``."""
        live, relayed = self._around.live_link(target), target in self._relaying.attempts
        introduced_by = self._introductions.last_introduced_by
        if failure is None:
            # It may have come about in another way meanwhile.
            self._tallies.successful_hole_punches += live is None or not live.relayed
            if introduced_by is not None and self._introductions.last_met_directly:
                self._around.report(introduced_by, target, True)
        else:
            if failure is Failure.NO_PATH and introduced_by is not None:
                self._around.report(introduced_by, target, False)
            self._tallies.failed_hole_punches += 1
            if not relayed:
                self._around.cancel_dials(target)
        if failure is None or invited:
            if not invited:
                self._pursuits.pop(target, None)
            self._around.tell(PunchEnded(target=target, failure=failure, invited=invited))
        elif not relayed and (live is None or is_stalled(live, self._around.now_s())):
            self._relay(target, failure)

    def _relay(self, target: bytes, failure: Failure) -> None:
        now_s, addresses = self._around.now_s(), self._introductions.last_addresses
        pursuit = self._pursuits.get(target)
        if pursuit is not None and pursuit.early and failure in _OUT_OF_TIME:
            left_s = pursuit.deadline_s - now_s
            if self._relaying.begin(target, pursuit.nodes, now_s, why=failure, channels_only_s=left_s):
                return
        self._pursuits.pop(target, None)
        nodes = [] if pursuit is None else pursuit.nodes
        if not self._relaying.begin(target, nodes, now_s, why=failure, addresses=addresses):
            self._around.tell(PunchEnded(target=target, failure=failure, invited=False))

    def relay_failed(self, target: bytes, refusal: str, why: Failure | None) -> None:
        """Take in that no node carries the connection; see ``relaying.CoreSurroundings``."""
        pursuit, now_s = self._pursuits.get(target), self._around.now_s()
        self._around.cancel_dials(target)
        if pursuit is not None and pursuit.early:
            pursuit.early = False
            if pursuit.deadline_s - now_s > WORTH_ANOTHER_TRY_S:
                # The attempt that was cut short goes on, and counts when it ends.
                self._tallies.failed_hole_punches -= 1
                self._introductions.begin(target, pursuit.numbers, now_s, pursuit.deadline_s)
                return
        self._pursuits.pop(target, None)
        failure = why or Failure.NO_PATH
        self._around.tell(PunchEnded(target=target, failure=failure, invited=False, relay_refusal=refusal))
