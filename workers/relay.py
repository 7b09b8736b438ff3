"""Everything of one worker that has to do with relaying, towards the hub and towards the clock."""

import asyncio
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
    RelayShare,
)
from antquic_server.net.udp import UdpSocket
from antquic_server.protocol.limits import TokenBucket
from antquic_server.protocol.relay_channel import channel_secret
from antquic_server.protocol.relay_limits import RelayMode
from antquic_server.stats.counters import CounterSet
from workers.channel_control import ChannelControl
from workers.channel_table import ChannelTable
from workers.periodic import Periodic
from workers.relay_canary import ChannelRound, RelayCanary
from workers.relay_channels import RelayChannels
from workers.relay_meter import CHANNEL_SESSION_BIT, RelayMeter

TICK_INTERVAL_S = 1.0
"""Between reports of usage, and between looks for channels that nobody uses."""


class Relay:
    """The relay of one worker; ``share`` is what all its sessions may move together."""

    def __init__(
        self,
        *,
        meter: RelayMeter,
        share: TokenBucket,
        channels: RelayChannels,
        control: ChannelControl,
        canaries: Sequence[RelayCanary],
        canary_interval_s: float,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.channels = channels
        self._meter = meter
        self._share = share
        self._control = control
        self._canaries = canaries
        self._periodics = [
            Periodic(TICK_INTERVAL_S, self._tick, loop),
            *(Periodic(canary_interval_s, canary.begin, loop) for canary in canaries),
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

    def drain(self) -> None:
        """Take no channel any more; those that are there end with the process."""
        self.channels.accepting = False

    def collect(self) -> None:
        """Bring the counters up to date."""
        self._meter.collect()

    def handle_message(self, message: Message) -> None:
        """React to a message of the hub; what has nothing to do with channels, shares or limits is ignored."""
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
        elif isinstance(message, RelayShare):
            self._share.change(message.rate_bytes_per_s, message.burst_bytes, time.monotonic())
        elif isinstance(message, LimitsChanged):
            self.channels.max_channels = from_plain(message.settings).relay.max_sessions

    def _tick(self) -> None:
        self.channels.tick(time.monotonic())
        self._meter.report()


def build_channel_table(
    assign: Assign, settings: Settings, sockets: list[UdpSocket], counters: CounterSet
) -> ChannelTable:
    """Make the table of channels, which is empty: those of a predecessor are unknown to this worker."""
    return ChannelTable(
        slot=assign.slot,
        worker_count=assign.worker_count,
        sockets=sockets,
        counters=counters,
        secret=channel_secret(assign.identity_seed),
        unknowns_per_s=settings.limits.stateless_resets_per_s,
    )


def build_relay(
    assign: Assign,
    settings: Settings,
    *,
    share: TokenBucket,
    table: ChannelTable,
    control: ChannelControl,
    counters: CounterSet,
    tell_hub: Callable[[Message], bool],
    loop: asyncio.AbstractEventLoop,
) -> Relay:
    """Make the relay of a worker around its table of channels; ``share`` is the stream relay's as well."""
    relay = settings.relay
    meter = RelayMeter(counters, tell_hub, share)
    channels = RelayChannels(
        table, meter=meter, tell_hub=tell_hub, max_channels=relay.max_sessions, monotonic_s=time.monotonic
    )
    canaries: list[RelayCanary] = []
    if assign.sockets:
        bound = assign.sockets[0]
        attempt = ChannelRound(
            table, slot=assign.slot, worker_count=assign.worker_count, host=bound.host, port=bound.port
        )
        canaries.append(RelayCanary(RelayMode.CHANNEL, attempt, counters, loop))
    return Relay(
        meter=meter,
        share=share,
        channels=channels,
        control=control,
        canaries=canaries,
        canary_interval_s=relay.canary_interval_s,
        loop=loop,
    )
