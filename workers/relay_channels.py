"""
The life of the channels that this worker owns: the hub has them made and ended, and who does not use one loses it.

The hub numbers a channel's session by its id (:class:`ChannelCreate`). What the channel is used for is none of this
module's business: see ``channel_table``.
"""

from collections.abc import Callable
from typing import Final

from antquic_server.ipc.messages import Message
from antquic_server.ipc.relay_messages import ChannelCreate, ChannelCreated, ChannelDestroy, ChannelEnded
from antquic_server.protocol.relay_channel import CHANNEL_ID_BYTES, KEY_BYTES
from antquic_server.protocol.relay_limits import Refusal, RelayEnd
from workers.channel_table import Channel, ChannelTable
from workers.relay_meter import CHANNEL_SESSION_BIT, RelayMeter
from workers.relay_reports import RelayReports

BIND_TIMEOUT_S: Final = 10.0
"""From the channel's making until both legs are bound: the target has been asked by then, and binds take moments."""

IDLE_TIMEOUT_S: Final = 45.0
"""Since the last bind of either leg, which peers repeat every 10 s: four may be lost."""


class RelayChannels:
    """Makes and ends channels; ``tick`` is called every second."""

    def __init__(
        self,
        table: ChannelTable,
        *,
        meter: RelayMeter,
        reports: RelayReports,
        tell_hub: Callable[[Message], bool],
        max_channels: int,
        monotonic_s: Callable[[], float],
    ) -> None:
        self.max_channels = max_channels
        self.accepting = True
        """False while the worker drains."""
        self._table = table
        self._meter = meter
        self._reports = reports
        self._tell_hub = tell_hub
        self._monotonic_s = monotonic_s
        self._channels: dict[bytes, Channel] = {}

    def __len__(self) -> int:
        return len(self._channels)

    def create(self, request: ChannelCreate) -> None:
        """Own a channel, or say why not."""
        refusal = self._refusal(request)
        if refusal is None:
            now_s = self._monotonic_s()
            session = self._meter.open(
                session_number(request.channel_id),
                rate_bytes_per_s=request.rate_bytes_per_s,
                burst_bytes=request.burst_bytes,
                start_bytes=request.start_bytes,
                now_s=now_s,
            )
            channel = Channel(
                request.channel_id,
                initiator_key=request.initiator_key,
                target_key=request.target_key,
                session=session,
                now_s=now_s,
            )
            self._channels[request.channel_id] = channel
            self._table.add(channel)
            self._reports.wake()
        self._tell_hub(ChannelCreated(channel_id=request.channel_id, refusal=refusal or ""))

    def destroy(self, request: ChannelDestroy) -> None:
        """End a channel; the hub gets its answer even if there is none, else it would wait for one."""
        if not self._end(request.channel_id, request.reason):
            self._reports.tell(ChannelEnded(channel_id=request.channel_id, reason=request.reason, moved_bytes=0))

    def revoke(self, session: int, reason: str) -> None:
        """End the channel with this session number, if it is still there."""
        self._end((session ^ CHANNEL_SESSION_BIT).to_bytes(CHANNEL_ID_BYTES, "big"), reason)

    def tick(self, now_s: float) -> None:
        """End what nobody uses."""
        for channel in list(self._channels.values()):
            last_bind_s = channel.last_bind_s()
            if last_bind_s is None:
                if now_s - channel.created_s > BIND_TIMEOUT_S:
                    self._end(channel.channel_id, RelayEnd.NEVER_BOUND)
            elif now_s - last_bind_s > IDLE_TIMEOUT_S:
                self._end(channel.channel_id, RelayEnd.IDLE)

    def _refusal(self, request: ChannelCreate) -> Refusal | None:
        channel_id = request.channel_id
        sound = (
            len(channel_id) == CHANNEL_ID_BYTES
            and len(request.initiator_key) == len(request.target_key) == KEY_BYTES
            and request.initiator_key != request.target_key
            and self._table.owns(channel_id)
            and channel_id not in self._table
        )
        if not sound:
            return Refusal.INTERNAL
        if not self.accepting:
            return Refusal.DRAINING
        return Refusal.NODE_SESSIONS if len(self._channels) >= self.max_channels else None

    def _end(self, channel_id: bytes, reason: str) -> bool:
        channel = self._channels.pop(channel_id, None)
        if channel is None:
            return False
        self._table.remove(channel_id)
        moved_bytes = self._meter.close(channel.session, reason)
        owed_bytes = channel.session.rate.owed(self._monotonic_s())
        self._reports.tell(
            ChannelEnded(channel_id=channel_id, reason=reason, moved_bytes=moved_bytes, owed_bytes=owed_bytes)
        )
        return True


def session_number(channel_id: bytes) -> int:
    """Return the number of a channel's session towards the hub."""
    return int.from_bytes(channel_id, "big") | CHANNEL_SESSION_BIT
