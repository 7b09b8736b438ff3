"""
Brings about relay channels between peers, whichever workers they are on.

::

    worker of the initiator   ChannelAsk ───────►  may it? which worker owns it?
    owner                     ◄──── ChannelCreate
    owner                     ChannelCreated ───►  is the target here?
    worker of the target      ◄── ChannelOfferOut
    worker of the target      ChannelAnswerIn ──►  it will
    worker of the initiator   ◄─ ChannelOpenedOut

The initiator is charged, from before the channel is created until its owner says that it has ended. A channel outlives
the connections over which it was agreed upon as long as each side has some connection to the node: its legs are proven
by keys, not by connections. When its owner dies both sides are told, on whichever worker they are.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from antquic_server.config.model import NatSettings
from antquic_server.ipc.messages import Message
from antquic_server.ipc.relay_messages import (
    ChannelAnswerIn,
    ChannelAsk,
    ChannelClosedOut,
    ChannelCreate,
    ChannelCreated,
    ChannelDestroy,
    ChannelEnded,
    ChannelHangUp,
    ChannelOfferOut,
    ChannelOpenedOut,
    ChannelRefusedOut,
)
from antquic_server.protocol.address import SocketAddress
from antquic_server.protocol.relay_channel import CHANNEL_ID_BYTES, KEY_BYTES, channel_token
from antquic_server.protocol.relay_limits import Refusal, RelayEnd, RelayMode
from antquic_server.supervisor.directory import PEER_ID_BYTES, Directory
from antquic_server.supervisor.relay_quotas import RelayQuotas, RelaySession
from antquic_server.supervisor.target_limits import TargetLimits

__all__ = ["ChannelOffice", "Channels", "TellSlot", "session_number"]

ANSWER_TIMEOUT_S: Final = 5.0
"""For the owner to create a channel, for the target to answer, and for the owner to say that one has ended."""

ABSENCE_GRACE_S: Final = 10.0
"""A peer whose last connection is gone may come back: its NAT was restarted, or the worker that had it."""

_CHANNEL_BIT: Final = 1 << 8 * CHANNEL_ID_BYTES

TellSlot = Callable[[int, Message], bool]

_Place = tuple[int, int]
"""Slot and connection."""


class _State(Enum):
    CREATING = auto()
    OFFERED = auto()
    OPEN = auto()
    ENDING = auto()


@dataclass(slots=True, kw_only=True, eq=False)
class _Channel:
    """One channel; ``asked_at`` is where its initiator asked, ``offered_at`` where its target was told."""

    channel_id: bytes
    session: RelaySession
    request_id: int
    target: bytes
    initiator_key: bytes
    target_key: bytes
    asked_at: _Place
    deadline_s: float
    offered_at: _Place | None = None
    state: _State = _State.CREATING

    @property
    def owner(self) -> int:
        return self.session.slot

    @property
    def initiator(self) -> bytes:
        return self.session.peer_id


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelOffice:
    """
    What the broker needs of the desk.

    ``new_id`` makes the id of a channel that a slot owns, ``choose_owner`` says which slot is to own the next one,
    ``charge`` counts what a session has moved, ``refused`` counts a refusal.
    """

    tell_slot: TellSlot
    new_id: Callable[[int], bytes]
    random_bytes: Callable[[int], bytes]
    secret: bytes
    choose_owner: Callable[[], int | None]
    charge: Callable[[RelaySession, int], None]
    refused: Callable[[RelayMode, str], None]
    clock: Callable[[], float]


class Channels:
    """All channels of the node; there are never more than the quotas have sessions."""

    def __init__(self, office: ChannelOffice, quotas: RelayQuotas, directory: Directory, nat: NatSettings) -> None:
        self._office = office
        self._quotas = quotas
        self._directory = directory
        self._targets = TargetLimits(nat)
        self._channels: dict[bytes, _Channel] = {}
        self._waiting: dict[bytes, _Channel] = {}
        """Those that are not open, the one whose deadline is next first."""
        self._by_peer: dict[bytes, set[_Channel]] = {}
        self._absent_since_s: dict[bytes, float] = {}

    def __len__(self) -> int:
        return len(self._channels)

    def connects(self, one: bytes, other: bytes) -> bool:
        """Whether a channel between two peers is open."""
        held = self._by_peer.get(one, ())
        return any(other in (each.initiator, each.target) and each.state is _State.OPEN for each in held)

    # What workers say.

    def ask(self, slot: int, message: ChannelAsk) -> None:
        """Begin to bring a channel about, or tell the initiator which limit or rule forbids it."""
        reason = self._begin(slot, message)
        if reason is not None:
            self._refuse((slot, message.connection), message.peer_id, message.request_id, message.target, reason)

    def created(self, slot: int, message: ChannelCreated) -> None:
        """Offer a channel that its owner has made to its target."""
        channel = self._owned(slot, message.channel_id)
        if channel is None or channel.state is not _State.CREATING:
            return
        if message.refusal:
            self._drop(channel, _refusal_of(message.refusal))
            return
        target = self._directory.newest(channel.target, channels=True)
        if target is None:
            self._end(channel, Refusal.TARGET_UNKNOWN)
            return
        offer = ChannelOfferOut(
            connection=target.connection,
            target=channel.target,
            initiator=channel.initiator,
            channel_id=channel.channel_id,
            key=channel.target_key,
            token=channel_token(self._office.secret, channel.channel_id),
        )
        if not self._office.tell_slot(target.slot, offer):
            self._end(channel, Refusal.INTERNAL)
            return
        channel.offered_at = target.slot, target.connection
        self._enter(channel, _State.OFFERED)

    def answered(self, message: ChannelAnswerIn) -> None:
        """Tell the initiator what the target has said."""
        channel = self._channels.get(message.channel_id)
        if channel is None or channel.state is not _State.OFFERED or message.peer_id != channel.target:
            return
        if not message.accepted:
            self._end(channel, Refusal.TARGET_DECLINED, besides=channel.target)
            return
        slot, connection = channel.asked_at
        opened = ChannelOpenedOut(
            connection=connection,
            peer_id=channel.initiator,
            request_id=channel.request_id,
            target=channel.target,
            channel_id=channel.channel_id,
            key=channel.initiator_key,
            token=channel_token(self._office.secret, channel.channel_id),
        )
        if self._office.tell_slot(slot, opened):
            self._enter(channel, _State.OPEN)
        else:
            self._end(channel, Refusal.INTERNAL)

    def hang_up(self, message: ChannelHangUp) -> None:
        """End a channel that one of its sides does not want any more, and tell the other."""
        channel = self._channels.get(message.channel_id)
        if channel is None or message.peer_id not in (channel.initiator, channel.target):
            return
        if channel.state is _State.OPEN:
            # The peer's own words go no further: they would be labels of the metrics.
            self._end(channel, RelayEnd.CLOSED, besides=message.peer_id)
        elif channel.state is _State.OFFERED and message.peer_id == channel.target:
            self._end(channel, Refusal.TARGET_DECLINED, besides=channel.target)

    def ended(self, slot: int, message: ChannelEnded) -> None:
        """Take note that the owner has ended a channel, by itself or because it was told to."""
        channel = self._owned(slot, message.channel_id)
        if channel is None:
            return
        self._office.charge(channel.session, message.moved_bytes)
        self._quotas.owe(channel.session, message.owed_bytes)
        self._drop(channel, _end_of(message.reason))

    # What happens to the node.

    def revoke(self, session: RelaySession, reason: Refusal) -> None:
        """End the channel of a session that limits no longer allow, and tell both sides why."""
        channel = self._channels.get(_channel_id(session.number))
        if channel is not None:
            self._end(channel, reason)

    def slot_down(self, slot: int) -> None:
        """Tell the peers whose channels a dead worker owned; the directory has forgotten its connections."""
        for channel in [each for each in self._channels.values() if each.owner == slot]:
            self._drop(channel, RelayEnd.WORKER_LOST)
        for peer_id in list(self._by_peer):
            self.peer_down(peer_id)

    def peer_down(self, peer_id: bytes) -> None:
        """Take note that a connection of a peer has gone; if it was the last one, the peer may come back."""
        if peer_id in self._by_peer and not self._directory.is_listed(peer_id):
            self._absent_since_s.setdefault(peer_id, self._office.clock())

    def tick(self, now_s: float) -> None:
        """End waits."""
        for channel in list(self._waiting.values()):
            if now_s < channel.deadline_s:
                break
            self._overdue(channel)
        for peer_id, since_s in list(self._absent_since_s.items()):
            if self._directory.is_listed(peer_id):
                del self._absent_since_s[peer_id]
            elif now_s - since_s >= ABSENCE_GRACE_S:
                for channel in list(self._by_peer[peer_id]):
                    self._end(channel, RelayEnd.CONNECTION_LOST)
                # Those that are ending leave when their owners say so.
                del self._absent_since_s[peer_id]

    # One channel.

    def _begin(self, slot: int, message: ChannelAsk) -> Refusal | None:
        if len(message.target) != PEER_ID_BYTES:
            return Refusal.BAD_REQUEST
        if message.target == message.peer_id:
            return Refusal.SELF_TARGET
        owner = self._office.choose_owner()
        if owner is None:
            return Refusal.INTERNAL
        channel_id = self._office.new_id(owner)
        now_s = self._office.clock()
        number = session_number(channel_id)
        session = self._quotas.reserve(
            owner, number, RelayMode.CHANNEL, peer_id=message.peer_id, host=message.host, now_s=now_s
        )
        if isinstance(session, Refusal):
            return session
        channel = _Channel(
            channel_id=channel_id,
            session=session,
            request_id=message.request_id,
            target=message.target,
            initiator_key=self._office.random_bytes(KEY_BYTES),
            target_key=self._office.random_bytes(KEY_BYTES),
            asked_at=(slot, message.connection),
            deadline_s=now_s + ANSWER_TIMEOUT_S,
        )
        reason = self._target_refusal(message, now_s)
        if reason is None and not self._create(channel):
            reason = Refusal.INTERNAL
        if reason is not None:
            self._quotas.release(session)
            return reason
        self._channels[channel_id] = self._waiting[channel_id] = channel
        for peer_id in (channel.initiator, channel.target):
            self._by_peer.setdefault(peer_id, set()).add(channel)
        return None

    def _target_refusal(self, message: ChannelAsk, now_s: float) -> Refusal | None:
        if self._directory.newest(message.target, channels=True) is None:
            known = self._directory.newest(message.target) is not None
            return Refusal.UNSUPPORTED if known else Refusal.TARGET_UNKNOWN
        # The quotas have read the same text.
        asked_from = SocketAddress.from_host(message.host, 0)
        exceeded = self._targets.exceeded(message.target, asked_from, now_s)
        return None if exceeded is None else Refusal.TARGET_RATE

    def _create(self, channel: _Channel) -> bool:
        create = ChannelCreate(
            channel_id=channel.channel_id,
            initiator_key=channel.initiator_key,
            target_key=channel.target_key,
            rate_bytes_per_s=channel.session.allowance.rate_bytes_per_s,
            burst_bytes=channel.session.allowance.burst_bytes,
            start_bytes=channel.session.start_bytes,
        )
        return self._office.tell_slot(channel.owner, create)

    def _owned(self, slot: int, channel_id: bytes) -> _Channel | None:
        channel = self._channels.get(channel_id)
        return channel if channel is not None and channel.owner == slot else None

    def _enter(self, channel: _Channel, state: _State) -> None:
        channel.state = state
        self._waiting.pop(channel.channel_id, None)
        if state is not _State.OPEN:
            channel.deadline_s = self._office.clock() + ANSWER_TIMEOUT_S
            self._waiting[channel.channel_id] = channel

    def _overdue(self, channel: _Channel) -> None:
        if channel.state is _State.OFFERED:
            self._end(channel, Refusal.TARGET_SILENT)
        elif channel.state is _State.CREATING:
            self._end(channel, Refusal.INTERNAL)
        else:
            # The owner's answer, or our word to it, was lost. If it still relays, its report of that is answered.
            self._forget(channel)

    def _end(self, channel: _Channel, reason: str, *, besides: bytes = b"") -> None:
        """Have the owner end a channel, and tell its sides, besides the one that knows."""
        if channel.state is not _State.ENDING:
            self._tell_sides(channel, reason, besides=besides)
            self._quotas.ending(channel.session)
            self._enter(channel, _State.ENDING)
            self._office.tell_slot(channel.owner, ChannelDestroy(channel_id=channel.channel_id, reason=reason))

    def _drop(self, channel: _Channel, reason: str) -> None:
        """Forget a channel that its owner does not have any more, and tell the sides that do not know yet."""
        if channel.state is not _State.ENDING:
            self._tell_sides(channel, reason)
        self._forget(channel)

    def _tell_sides(self, channel: _Channel, reason: str, *, besides: bytes = b"") -> None:
        if channel.state is _State.OPEN:
            if channel.initiator != besides:
                self._tell_closed(channel, channel.initiator, channel.asked_at, reason)
        else:
            self._refuse(channel.asked_at, channel.initiator, channel.request_id, channel.target, reason)
        if channel.offered_at is not None and channel.target != besides:
            self._tell_closed(channel, channel.target, channel.offered_at, reason)

    def _forget(self, channel: _Channel) -> None:
        del self._channels[channel.channel_id]
        self._waiting.pop(channel.channel_id, None)
        self._quotas.release(channel.session)
        for peer_id in (channel.initiator, channel.target):
            held = self._by_peer[peer_id]
            held.discard(channel)
            if not held:
                del self._by_peer[peer_id]
                self._absent_since_s.pop(peer_id, None)

    # What peers are told.

    def _refuse(self, place: _Place, peer_id: bytes, request_id: int, target: bytes, reason: str) -> None:
        self._office.refused(RelayMode.CHANNEL, reason)
        slot, connection = place
        refused = ChannelRefusedOut(
            connection=connection, peer_id=peer_id, request_id=request_id, target=target, reason=reason
        )
        self._office.tell_slot(slot, refused)

    def _tell_closed(self, channel: _Channel, peer_id: bytes, place: _Place, reason: str) -> None:
        # On the connection that the peer knows the channel from, or whichever it has now.
        at = self._directory.get(peer_id, *place) or self._directory.newest(peer_id, channels=True)
        if at is None:
            return
        word = ChannelClosedOut(connection=at.connection, peer_id=peer_id, channel_id=channel.channel_id, reason=reason)
        self._office.tell_slot(at.slot, word)


def session_number(channel_id: bytes) -> int:
    """Return the number under which workers report a channel's session (``ipc.relay_messages.ChannelCreate``)."""
    return int.from_bytes(channel_id, "big") | _CHANNEL_BIT


def _channel_id(number: int) -> bytes:
    return (number ^ _CHANNEL_BIT).to_bytes(CHANNEL_ID_BYTES, "big")


def _refusal_of(word: str) -> Refusal:
    try:
        return Refusal(word)
    except ValueError:
        return Refusal.INTERNAL


def _end_of(word: str) -> str:
    """Return a worker's word if it is one of ours: it becomes a label of the metrics, and peers read it."""
    return word if word in _END_WORDS else RelayEnd.CLOSED


_END_WORDS: Final = frozenset((*RelayEnd, *Refusal))
