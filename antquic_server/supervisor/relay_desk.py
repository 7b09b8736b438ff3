"""
The hub's part in relaying: what workers ask of the whole node.

A worker that is asked for a session asks here whether its peer may have one, reports every second what sessions have
moved, and says when they end. In return it is told how fast each session may be, how much all of them together, and
which of them have to end. How channels come about is in ``channels``; the rules are in ``relay_quotas``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from antquic_server.config.model import NatSettings, RelaySettings
from antquic_server.errors import AddressDecodeError
from antquic_server.ipc.relay_messages import (
    ChannelAnswerIn,
    ChannelAsk,
    ChannelCreated,
    ChannelEnded,
    ChannelHangUp,
    RelayAddress,
    RelayRate,
    RelayReleased,
    RelayReserve,
    RelayReserved,
    RelayRevoked,
    RelayShare,
    RelayUsage,
)
from antquic_server.protocol.address import SocketAddress
from antquic_server.protocol.relay_channel import new_channel_id
from antquic_server.protocol.relay_limits import Refusal, RelayMode
from antquic_server.stats.counters import series_key
from antquic_server.supervisor.channels import ChannelOffice, Channels, TellSlot
from antquic_server.supervisor.directory import Directory
from antquic_server.supervisor.relay_quotas import RelayQuotas, RelaySession
from antquic_server.supervisor.relay_shares import WorkerShares

__all__ = ["RelayDesk", "RelayMessage", "RelayPlan"]

RelayMessage = (
    RelayReserve
    | RelayReleased
    | RelayUsage
    | RelayAddress
    | ChannelAsk
    | ChannelCreated
    | ChannelAnswerIn
    | ChannelHangUp
    | ChannelEnded
)
"""What workers say about relaying."""

SHARES_INTERVAL_S: Final = 1.0

LOAD_STEP_BYTES_PER_S: Final = 1 << 20
"""Workers whose traffic differs by less are equally loaded: what decides then is who has fewer sessions."""

MAX_STREAM_SESSION: Final = (1 << 56) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayPlan:
    """
    What the desk is built with.

    ``secret`` proves messages about channels that are gone (``protocol.relay_channel.channel_token``); ``slots`` counts
    all slots, ready or not.
    """

    settings: RelaySettings
    nat: NatSettings
    slots: int
    secret: bytes
    random_bytes: Callable[[int], bytes]


class RelayDesk:
    """
    Answers workers about relaying.

    ``tell_slot`` sends a message to the worker of a slot; False if there is none or its queue is full. ``ready_slots``
    returns the connections of each slot that has a ready worker. ``refused`` counts by mode and reason what is refused
    here, ``misreported`` what workers said that makes no sense; ``moved`` is told what sessions have moved.
    """

    def __init__(
        self,
        plan: RelayPlan,
        directory: Directory,
        tell_slot: TellSlot,
        ready_slots: Callable[[], Mapping[int, int]],
        *,
        clock: Callable[[], float],
        moved: Callable[[RelaySession, int], None] = lambda *_: None,
    ) -> None:
        self.refused: dict[tuple[RelayMode, str], int] = {}
        self.misreported = 0
        self.quotas = RelayQuotas(plan.settings, clock())
        office = ChannelOffice(
            tell_slot=tell_slot,
            new_id=lambda slot: new_channel_id(slot, plan.slots, plan.random_bytes),
            random_bytes=plan.random_bytes,
            secret=plan.secret,
            choose_owner=self._least_loaded,
            charge=self._charge,
            refused=self._count_refusal,
            clock=clock,
        )
        self.channels = Channels(office, self.quotas, directory, plan.nat)
        self._tell_slot = tell_slot
        self._ready_slots = ready_slots
        self._clock = clock
        self._moved = moved
        self._shares = WorkerShares()
        self._shares_told: dict[int, RelayShare] = {}
        self._shares_due_s = clock()

    def counters(self) -> dict[str, float]:
        """What is counted here, keys as in ``stats.counters``."""
        refusals = {series_key("relay_refusals", *labels): count for labels, count in self.refused.items()}
        return {**refusals, "relay_misreports": self.misreported}

    # What happens to the node.

    def heard(self, slot: int, message: RelayMessage) -> None:
        """React to what the worker of ``slot`` says."""
        match message:
            case RelayReserve():
                self._reserve(slot, message)
            case RelayUsage():
                self._usage(slot, message)
            case RelayAddress():
                self._address(slot, message)
            case RelayReleased():
                self._released(slot, message)
            case ChannelAsk():
                self.channels.ask(slot, message)
                self._settle_rates()
            case ChannelCreated():
                self.channels.created(slot, message)
            case ChannelAnswerIn():
                self.channels.answered(message)
            case ChannelHangUp():
                self.channels.hang_up(message)
            case ChannelEnded():
                self.channels.ended(slot, message)

    def slot_ready(self, slot: int) -> None:
        """Tell a worker that has just begun to serve how much it may relay; the next division knows more."""
        ready = self._ready_slots()
        self._tell_share(slot, self.quotas.settings.bandwidth_bytes_per_s / max(1, len(ready)))

    def slot_down(self, slot: int) -> None:
        """Forget the sessions of a dead worker, and tell the peers of its channels; the directory has forgotten it."""
        self._shares.forget(slot)
        self._shares_told.pop(slot, None)
        self.channels.slot_down(slot)
        self.quotas.slot_down(slot)

    def peer_down(self, peer_id: bytes) -> None:
        """Take note that a connection of a peer has gone."""
        self.channels.peer_down(peer_id)

    def change(self, settings: RelaySettings) -> None:
        """Let other limits hold from now on."""
        self.quotas.change(settings, self._clock())
        self._shares_due_s = self._clock()
        self.tick()

    def drain(self) -> None:
        """Give out no more sessions."""
        self.quotas.draining = True

    def tick(self) -> None:
        """Do what is due; several times a second."""
        now_s = self._clock()
        self.channels.tick(now_s)
        self._settle_sessions()
        if now_s >= self._shares_due_s:
            self._shares_due_s = now_s + SHARES_INTERVAL_S
            total = self.quotas.settings.bandwidth_bytes_per_s
            for slot, share in self._shares.settle(total, list(self._ready_slots()), now_s).items():
                self._tell_share(slot, share)

    # Sessions.

    def _reserve(self, slot: int, message: RelayReserve) -> None:
        granted: RelaySession | Refusal = Refusal.INTERNAL
        if 0 <= message.session <= MAX_STREAM_SESSION:
            granted = self.quotas.reserve(
                slot,
                message.session,
                RelayMode.STREAM,
                peer_id=message.peer_id,
                host=message.host,
                now_s=self._clock(),
            )
        if isinstance(granted, Refusal):
            # A worker that does not hear of it refuses, and counts, by itself.
            if self._tell_slot(slot, RelayReserved(session=message.session, refusal=granted)):
                self._count_refusal(RelayMode.STREAM, granted)
            return
        answer = RelayReserved(
            session=message.session,
            refusal="",
            rate_bytes_per_s=granted.allowance.rate_bytes_per_s,
            burst_bytes=granted.allowance.burst_bytes,
            start_bytes=granted.start_bytes,
        )
        # First the others of its peer slow down: who opens and closes would else have both their parts and a new one.
        self._settle_rates()
        if not self._tell_slot(slot, answer):
            # The worker never hears of it, and so will never release it.
            self.quotas.release(granted)

    def _released(self, slot: int, message: RelayReleased) -> None:
        session = self.quotas.find(slot, message.session)
        if session is None and not message.moved_bytes:
            # It was refused here while its peer gave up there.
            return
        if session is None or session.mode is not RelayMode.STREAM:
            self.misreported += 1
            return
        self._charge(session, message.moved_bytes)
        self.quotas.release(session)

    def _usage(self, slot: int, message: RelayUsage) -> None:
        if len(message.sessions) != len(message.moved_bytes):
            self.misreported += 1
            return
        for number, moved_bytes in zip(message.sessions, message.moved_bytes, strict=True):
            session = self.quotas.find(slot, number)
            if session is None:
                # Something between us was lost; nobody counts what moves there.
                self.misreported += 1
                self._tell_slot(slot, RelayRevoked(session=number, reason=Refusal.INTERNAL))
            else:
                self._charge(session, moved_bytes)
        self._shares.reported(slot, self._clock())
        self._end_doomed()

    def _address(self, slot: int, message: RelayAddress) -> None:
        session = self.quotas.find(slot, message.session)
        try:
            address = SocketAddress.parse(message.address).normalised()
        except AddressDecodeError:
            # Words of a worker, and a worker reads what strangers send.
            self.misreported += 1
            return
        if session is None or session.mode is not RelayMode.STREAM:
            self.misreported += 1
        else:
            session.address = address

    def _charge(self, session: RelaySession, moved_bytes: int) -> None:
        counted_bytes = self.quotas.use(session, moved_bytes, self._clock())
        self._shares.moved(session.slot, counted_bytes)
        self._moved(session, counted_bytes)

    def _settle_sessions(self) -> None:
        """End what has to end, and divide the bandwidth of peers whose sessions have changed."""
        self._end_doomed()
        self._settle_rates()

    def _settle_rates(self) -> None:
        for session, allowance in self.quotas.unsettled():
            rate = RelayRate(
                session=session.number,
                rate_bytes_per_s=allowance.rate_bytes_per_s,
                burst_bytes=allowance.burst_bytes,
            )
            if self._tell_slot(session.slot, rate):
                session.allowance = allowance
            else:
                self.quotas.unsettle(session)

    def _end_doomed(self) -> None:
        for session, reason in self.quotas.doomed():
            if session.mode is RelayMode.CHANNEL:
                self.channels.revoke(session, reason)
            elif self._tell_slot(session.slot, RelayRevoked(session=session.number, reason=reason)):
                self.quotas.ending(session)

    # Workers.

    def _tell_share(self, slot: int, share: float) -> None:
        message = RelayShare(rate_bytes_per_s=share, burst_bytes=share * self.quotas.settings.burst_s)
        if self._shares_told.get(slot) != message and self._tell_slot(slot, message):
            self._shares_told[slot] = message

    def _least_loaded(self) -> int | None:
        """Return the slot that is to own the next channel, None while no worker is ready."""
        now_s = self._clock()
        ready = self._ready_slots()

        def load(slot: int) -> tuple[int, int, int]:
            steps = int(self._shares.load(slot, now_s)) // LOAD_STEP_BYTES_PER_S
            return steps, self.quotas.count_of(slot), ready[slot]

        return min(ready, key=load, default=None)

    def _count_refusal(self, mode: RelayMode, reason: str) -> None:
        self.refused[mode, reason] = self.refused.get((mode, reason), 0) + 1
