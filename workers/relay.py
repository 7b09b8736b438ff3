"""Everything of one worker that has to do with relaying, towards the hub and towards the clock."""

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence

from antquic_server.config.model import Settings, from_plain
from antquic_server.ipc.messages import Assign, LimitsChanged, Message
from antquic_server.ipc.relay_messages import (
    ChannelClosedOut,
    ChannelCreate,
    ChannelDestroy,
    ChannelOfferOut,
    ChannelOpenedOut,
    ChannelRefusedOut,
    RelayRate,
    RelayRevoked,
)
from antquic_server.protocol.limits import TokenBucket
from antquic_server.protocol.relay_limits import RelayMode
from antquic_server.stats.counters import CounterSet
from workers.channel_control import ChannelControl
from workers.channel_table import ChannelTable
from workers.periodic import Periodic
from workers.relay_canary import ChannelRound, RelayCanary, StreamRound
from workers.relay_channels import RelayChannels
from workers.relay_meter import CHANNEL_SESSION_BIT, RelayMeter
from workers.relay_ports import RelayPorts
from workers.relay_reports import RelayReports
from workers.relay_streams import RelayStreams

TICK_INTERVAL_S = 1.0
"""Between looks for channels that nobody uses."""


class Relay:
    """The relay of one worker: its channels, its stream relay, and the proof that both forward."""

    def __init__(
        self,
        *,
        meter: RelayMeter,
        reports: RelayReports,
        channels: RelayChannels,
        control: ChannelControl,
        streams: RelayStreams,
        canaries: Sequence[RelayCanary],
        canary_interval_s: float,
        enabled: bool,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.channels = channels
        self._meter = meter
        self._reports = reports
        self._control = control
        self._streams = streams
        self._canaries = canaries
        self._enabled = enabled
        self._periodics = [
            Periodic(TICK_INTERVAL_S, self._tick, loop),
            Periodic(canary_interval_s, self._try, loop),
        ]

    def start(self) -> None:
        """Begin to keep time, with the reading of the sockets."""
        for periodic in self._periodics:
            periodic.start()

    def stop(self) -> None:
        """Keep time no more; may be called twice."""
        for periodic in self._periodics:
            periodic.stop()
        for canary in self._canaries:
            canary.stop()
        self._reports.stop()

    def drain(self) -> None:
        """Take no session any more; channels that are there end with the process."""
        self.channels.accepting = False
        self._streams.drain()

    def collect(self) -> None:
        """Bring the counters up to date."""
        self._meter.collect()

    def handle_message(self, message: Message) -> None:
        """React to a message of the hub; what has nothing to do with relaying is ignored."""
        self._streams.handle_message(message)
        if isinstance(message, ChannelCreate):
            self.channels.create(message)
        elif isinstance(message, ChannelDestroy):
            self.channels.destroy(message)
        elif isinstance(message, ChannelOfferOut | ChannelOpenedOut | ChannelRefusedOut | ChannelClosedOut):
            self._control.tell_peer(message)
        elif isinstance(message, RelayRevoked):
            if message.session & CHANNEL_SESSION_BIT:
                self.channels.revoke(message.session, message.reason)
        elif isinstance(message, RelayRate):
            rate, burst = message.rate_bytes_per_s, message.burst_bytes
            self._meter.change_rate(message.session, rate, burst, time.monotonic())
        elif isinstance(message, LimitsChanged):
            settings = from_plain(message.settings).relay
            self.channels.max_channels = settings.max_sessions
            self._enabled = settings.enabled

    def _tick(self) -> None:
        self.channels.tick(time.monotonic())

    def _try(self) -> None:
        if self._enabled:
            for canary in self._canaries:
                canary.begin()


def build_relay(
    assign: Assign,
    settings: Settings,
    *,
    table: ChannelTable,
    control: ChannelControl,
    streams: RelayStreams,
    share: TokenBucket,
    counters: CounterSet,
    tell_hub: Callable[[Message], bool],
    loop: asyncio.AbstractEventLoop,
) -> Relay:
    """Build the relay of a worker around its table of channels and its stream relay."""
    relay = settings.relay
    meter = RelayMeter(counters, share)
    reports = RelayReports(tell_hub, meter.sessions, loop)
    channels = RelayChannels(
        table,
        meter=meter,
        reports=reports,
        tell_hub=tell_hub,
        max_channels=relay.max_sessions,
        monotonic_s=time.monotonic,
    )
    canaries: list[RelayCanary] = []
    if assign.sockets:
        host, port = assign.sockets[0].host, assign.sockets[0].port
        channel_round = ChannelRound(table, slot=assign.slot, worker_count=assign.worker_count, host=host, port=port)
        stream_round = StreamRound(RelayPorts(relay.port_range, secrets.randbelow), host=host)
        canaries = [
            RelayCanary(RelayMode.CHANNEL, channel_round, counters, loop),
            RelayCanary(RelayMode.STREAM, stream_round, counters, loop),
        ]
    return Relay(
        meter=meter,
        reports=reports,
        channels=channels,
        control=control,
        streams=streams,
        canaries=canaries,
        canary_interval_s=relay.canary_interval_s,
        enabled=relay.enabled,
        loop=loop,
    )
