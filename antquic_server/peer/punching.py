"""
From ``connect_peer`` to a connection or a reason: one attempt to reach one peer, as a table.

::

    ASKING      a coordinator has been asked to introduce us; nothing to dial yet
    PAUSED      it is too busy for us: the next round asks again
    PUNCHING    both sides dial each other, repeating their Initials so that both NATs open
    CONNECTED   a connection with the right peer is there
    FAILED      the reason is known

A round begins with a request and lasts until the next; what was dialled in earlier rounds goes on meanwhile. The side
that was introduced without having asked goes through the same table, from PUNCHING. Pure: time is an argument, and the
answer of every call is the list of steps to take.
"""

from dataclasses import dataclass
from enum import Enum, StrEnum, auto
from typing import Final

from antquic_server.peer.nat_behaviour import PortGrowth, dial_plan
from antquic_server.peer.settings import PeerSettings
from antquic_server.protocol.address import SocketAddress
from antquic_server.protocol.coordination import RejectionReason

__all__ = ["ADVICE", "DETAILS", "TABLE", "Ask", "Dial", "Failure", "Give", "Happening", "Punch", "State", "Step"]

MIN_ROUND_S = 2.2
"""ant-quic's coordinators take one request in two seconds, and a refused one starts that time anew."""


class State(Enum):
    """Where an attempt is."""

    ASKING = auto()
    PAUSED = auto()
    PUNCHING = auto()
    CONNECTED = auto()
    FAILED = auto()


class Happening(Enum):
    """What may happen to an attempt."""

    ACCEPTED = auto()
    REJECTED = auto()
    BUSY = auto()
    """Rejected, but only for now."""
    COORDINATOR_LOST = auto()
    CONNECTED = auto()
    NEXT_ROUND = auto()
    DEADLINE = auto()


class Action(Enum):
    """What an attempt then does."""

    NOTHING = auto()
    ASK = auto()
    DIAL = auto()
    GIVE_UP = auto()
    REJOICE = auto()


class Failure(StrEnum):
    """Why a peer could not be reached; a word for programs and statistics."""

    NO_COORDINATOR = "no_coordinator"
    COORDINATOR_SILENT = "coordinator_silent"
    COORDINATOR_LOST = "coordinator_lost"
    NO_PATH = "no_path"
    SELF_TARGET = "self_target"
    UNKNOWN_TARGET = "unknown_target"
    EXPIRED = "expired"
    RATE_LIMITED = "rate_limited"
    UNAUTHENTICATED = "unauthenticated"
    COORDINATOR_ERROR = "coordinator_error"
    DIAL_TIMEOUT = "dial_timeout"
    REFUSED = "refused"
    ENDPOINT_CLOSED = "endpoint_closed"


DETAILS: Final[dict[Failure, str]] = {
    Failure.NO_COORDINATOR: "no node is connected that could introduce us",
    Failure.COORDINATOR_SILENT: "the node did not answer the request to introduce us",
    Failure.COORDINATOR_LOST: "the connection to the node ended before it could introduce us",
    Failure.NO_PATH: "both sides dialled, and no packet came through: NATs that cannot be punched, or UDP is blocked",
    Failure.SELF_TARGET: "that is our own peer id",
    Failure.UNKNOWN_TARGET: "the node is not connected to that peer",
    Failure.EXPIRED: "the node found the request too old: compare the clocks",
    Failure.RATE_LIMITED: "the node allows us no further requests for now",
    Failure.UNAUTHENTICATED: "the node does not know who we are",
    Failure.COORDINATOR_ERROR: "the node failed, or the two sides have no address family in common",
    Failure.DIAL_TIMEOUT: "nothing answered at that address",
    Failure.REFUSED: "the other side closed the connection during the handshake",
    Failure.ENDPOINT_CLOSED: "the endpoint was closed",
}
"""A sentence for a person, by failure."""

ADVICE: Final[dict[Failure, str]] = {
    Failure.NO_COORDINATOR: "name a node with --via, or dial the peer by its address",
    Failure.COORDINATOR_SILENT: "try again, or ask another node with --via",
    Failure.COORDINATOR_LOST: "try again, or ask another node with --via",
    Failure.NO_PATH: "forward a UDP port on one side, or let UDP out of its firewall; with two --via addresses the"
    " ports of a NAT that counts can be predicted",
    Failure.SELF_TARGET: "give the id that the other side prints",
    Failure.UNKNOWN_TARGET: "check the id, and that the peer is running and has --via the same node",
    Failure.EXPIRED: "set the clock of this machine",
    Failure.RATE_LIMITED: "wait a few seconds and try again",
    Failure.UNAUTHENTICATED: "ask another node with --via",
    Failure.COORDINATOR_ERROR: "listen on an address of the other side's family as well, or ask another node",
    Failure.DIAL_TIMEOUT: "check the address, and that UDP to it passes every firewall",
    Failure.REFUSED: "check that an ant-quic node or peer listens there",
    Failure.ENDPOINT_CLOSED: "open another endpoint",
}
"""What a person can do about it, by failure."""

REJECTIONS: Final[dict[RejectionReason, Failure]] = {
    RejectionReason.SELF_TARGET: Failure.SELF_TARGET,
    RejectionReason.UNKNOWN_TARGET: Failure.UNKNOWN_TARGET,
    RejectionReason.EXPIRED: Failure.EXPIRED,
    RejectionReason.RATE_LIMITED: Failure.RATE_LIMITED,
    RejectionReason.UNAUTHENTICATED: Failure.UNAUTHENTICATED,
    RejectionReason.INTERNAL_ERROR: Failure.COORDINATOR_ERROR,
}

_A, _P, _D = State.ASKING, State.PAUSED, State.PUNCHING

TABLE: Final[dict[tuple[State, Happening], tuple[State, Action]]] = {
    (_A, Happening.ACCEPTED): (_D, Action.DIAL),
    (_A, Happening.REJECTED): (State.FAILED, Action.GIVE_UP),
    (_A, Happening.BUSY): (_P, Action.NOTHING),
    (_A, Happening.COORDINATOR_LOST): (State.FAILED, Action.GIVE_UP),
    (_A, Happening.CONNECTED): (State.CONNECTED, Action.REJOICE),
    (_A, Happening.NEXT_ROUND): (_A, Action.ASK),
    (_A, Happening.DEADLINE): (State.FAILED, Action.GIVE_UP),
    # The other side has asked at the same time and was quicker, or an answer comes late.
    (_P, Happening.ACCEPTED): (_D, Action.DIAL),
    (_P, Happening.REJECTED): (State.FAILED, Action.GIVE_UP),
    (_P, Happening.BUSY): (_P, Action.NOTHING),
    (_P, Happening.COORDINATOR_LOST): (State.FAILED, Action.GIVE_UP),
    (_P, Happening.CONNECTED): (State.CONNECTED, Action.REJOICE),
    (_P, Happening.NEXT_ROUND): (_A, Action.ASK),
    (_P, Happening.DEADLINE): (State.FAILED, Action.GIVE_UP),
    (_D, Happening.ACCEPTED): (_D, Action.DIAL),
    # What is being dialled may still come through; only the deadline ends it.
    (_D, Happening.REJECTED): (_D, Action.NOTHING),
    (_D, Happening.BUSY): (_D, Action.NOTHING),
    (_D, Happening.COORDINATOR_LOST): (_D, Action.NOTHING),
    (_D, Happening.CONNECTED): (State.CONNECTED, Action.REJOICE),
    (_D, Happening.NEXT_ROUND): (_A, Action.ASK),
    (_D, Happening.DEADLINE): (State.FAILED, Action.GIVE_UP),
}
"""(state, what happens) → (next state, what to do); the two final states ignore everything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """Send the coordinator a request."""

    round_number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Dial:
    """Dial these addresses in this order, those already being dialled once more."""

    addresses: tuple[SocketAddress, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Give:
    """The attempt is over; ``failure`` is None when it succeeded."""

    failure: Failure | None


Step = Ask | Dial | Give


class Punch:
    """
    One attempt. ``steps`` of construction are to be taken like those of any call.

    Args:
        target: Peer id of the other side.
        settings: Timeouts, rounds and candidates.
        now_s: Monotonic seconds.
        invited: True for the side that was introduced; it never asks.
        first_round: Number of the first round; a later one tells the node that the usual has not helped.
    """

    def __init__(
        self, *, target: bytes, settings: PeerSettings, now_s: float, invited: bool = False, first_round: int = 1
    ) -> None:
        self.target = target
        self.state = State.PUNCHING if invited else State.ASKING
        self.round_number = first_round
        self.addresses: tuple[SocketAddress, ...] = ()
        """Where the other side is, as we were told last."""
        self.invited = invited
        self.started_s = now_s
        self.deadline_s = now_s + settings.discovery_timeout_s
        self.steps: list[Step] = [] if invited else [Ask(round_number=first_round)]
        self._settings = settings
        self._ever_dialled = False
        self._guessed = 0
        """Ports dialled beside those we were told."""
        self._growth = PortGrowth()
        self._failure = Failure.COORDINATOR_SILENT
        self._round_s = max(MIN_ROUND_S, settings.discovery_timeout_s / (settings.hole_punch_retries + 1))
        self._next_round_s: float | None = None
        if not invited and settings.hole_punch_retries > 0:
            self._next_round_s = now_s + self._round_s

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come of it."""
        return self.state in (State.CONNECTED, State.FAILED)

    @property
    def timer_at_s(self) -> float | None:
        """When :meth:`handle_timer` is due, None when it is over."""
        if self.is_over:
            return None
        return self.deadline_s if self._next_round_s is None else min(self.deadline_s, self._next_round_s)

    def accepted(
        self, addresses: tuple[SocketAddress, ...], *, round_number: int, growth: PortGrowth | None = None
    ) -> list[Step]:
        """
        Take in an introduction: where the other side is, and which round it is in.

        ``growth`` is how the ports of our own NAT go on from the one that the other side has been told.
        """
        self._growth = growth or PortGrowth()
        self.addresses = addresses
        return self._handle(Happening.ACCEPTED, addresses=addresses, round_number=round_number)

    def rejected(self, reason: RejectionReason) -> list[Step]:
        """Take in a rejection."""
        self._failure = REJECTIONS[reason]
        return self._handle(Happening.BUSY if reason is RejectionReason.RATE_LIMITED else Happening.REJECTED)

    def coordinator_lost(self) -> list[Step]:
        """Take in that the connection to the coordinator has ended."""
        self._failure = Failure.COORDINATOR_LOST
        return self._handle(Happening.COORDINATOR_LOST)

    def connected(self) -> list[Step]:
        """Take in that a connection with the peer is there, whoever dialled it."""
        return self._handle(Happening.CONNECTED)

    def extend(self, now_s: float) -> None:
        """Give an invited attempt the time of another round: the other side has asked again."""
        self.deadline_s = now_s + self._settings.discovery_timeout_s

    def handle_timer(self, now_s: float) -> list[Step]:
        """Take in that time has passed."""
        if now_s >= self.deadline_s:
            return self._handle(Happening.DEADLINE)
        if self._next_round_s is None or now_s < self._next_round_s or self.is_over:
            return []
        self.round_number += 1
        last = self.round_number > self._settings.hole_punch_retries
        self._next_round_s = None if last else self._next_round_s + self._round_s
        return self._handle(Happening.NEXT_ROUND)

    def _handle(
        self, happening: Happening, *, addresses: tuple[SocketAddress, ...] = (), round_number: int = 1
    ) -> list[Step]:
        if self.is_over:
            return []
        self.state, action = TABLE[self.state, happening]
        if action is Action.ASK:
            return [Ask(round_number=self.round_number)]
        if action is Action.DIAL:
            self._ever_dialled = True
            return [Dial(addresses=tuple(self._plan(addresses, round_number)))]
        if action is Action.GIVE_UP:
            never_came_through = happening is Happening.DEADLINE and self._ever_dialled
            return [Give(failure=Failure.NO_PATH if never_came_through else self._failure)]
        return [Give(failure=None)] if action is Action.REJOICE else []

    def _plan(self, addresses: tuple[SocketAddress, ...], round_number: int) -> list[SocketAddress]:
        plan = dial_plan(
            addresses,
            round_number=round_number,
            max_candidates=self._settings.max_candidates,
            predict=self._settings.enable_symmetric_nat,
            guessed=self._guessed,
            growth=self._growth,
        )
        self._guessed += len(set(plan) - set(addresses))
        return plan
