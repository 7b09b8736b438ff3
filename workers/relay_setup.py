"""Builds what a worker relays with from its settings."""

import asyncio
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from antquic_server.config.model import RelaySettings, Settings
from antquic_server.ipc.messages import Assign, Message, SocketDescriptor
from antquic_server.net.local_address import is_local_address
from antquic_server.net.packet_info import local_host
from antquic_server.net.udp import PathAddress, UdpSocket
from antquic_server.protocol.address import SocketAddress
from antquic_server.protocol.limits import TokenBucket
from antquic_server.protocol.relay_channel import channel_secret
from antquic_server.protocol.relay_targets import TargetPolicy, TargetRules
from antquic_server.stats.counters import CounterSet
from workers.channel_table import ChannelTable
from workers.connection import Connection
from workers.endpoint import Endpoint
from workers.relay_desk import RelayDesk, RelaySurroundings
from workers.relay_ports import RelayPorts
from workers.relay_session import RelayCounters
from workers.relay_streams import RelayStreams
from workers.service import Service


@dataclass(frozen=True, slots=True, kw_only=True)
class _OwnPlaces:
    """The ports that the node itself has, and the addresses that are named: to listen at, or as the public one."""

    ports: frozenset[int]
    session_hosts: frozenset[IPv4Address | IPv6Address]


def relay_share(settings: RelaySettings, worker_count: int) -> TokenBucket:
    """Return what all relay sessions of a worker may move together, until the hub says otherwise: an equal part."""
    rate = settings.bandwidth_bytes_per_s / worker_count
    return TokenBucket(rate, rate * settings.burst_s)


def channel_table(assign: Assign, settings: Settings, sockets: list[UdpSocket], counters: CounterSet) -> ChannelTable:
    """Build the table of channels, which is empty: those of a predecessor are unknown to this worker."""
    return ChannelTable(
        slot=assign.slot,
        worker_count=assign.worker_count,
        sockets=sockets,
        counters=counters,
        secret=channel_secret(assign.identity_seed),
        unknowns_per_s=settings.limits.stateless_resets_per_s,
    )


def target_policy(settings: Settings, listen: Iterable[tuple[str, int]]) -> TargetPolicy:
    """Return the rules of the configuration, for a node that listens at these addresses and ports."""
    return _policy(settings, _own_places(settings, listen))


def _policy(settings: Settings, own: _OwnPlaces) -> TargetPolicy:
    public = settings.relay.public_address

    def is_own(host: IPv4Address | IPv6Address) -> bool:
        return str(host) == public or is_local_address(host)

    return TargetPolicy(_rules(settings.relay, own), is_own)


def stream_relay(
    application: Service,
    settings: Settings,
    *,
    sockets: Sequence[SocketDescriptor],
    tell_hub: Callable[[Message], bool],
    endpoint: Callable[[], Endpoint],
    share: TokenBucket,
    counters: CounterSet,
    loop: asyncio.AbstractEventLoop,
    echo: bool,
) -> RelayStreams:
    """Build the service in front of ``application``; ``endpoint`` is asked for later, as it does not exist yet."""
    own = _own_places(settings, [(item.host, item.port) for item in sockets])
    policy = _policy(settings, own)

    def flush(connections: Iterable[Connection]) -> None:
        endpoint().flush(connections, time.monotonic())

    def reached_at(path: PathAddress) -> str:
        if not 0 <= path.socket_index < len(sockets):
            return ""
        return local_host(path.local) or sockets[path.socket_index].host

    desk = RelayDesk(
        RelaySurroundings(tell_hub=tell_hub, flush=flush, local_host=reached_at, loop=loop),
        settings=settings.relay,
        ports=RelayPorts(settings.relay.port_range, secrets.randbelow),
        policy=policy,
        share=share,
        counters=RelayCounters(counters),
        change_policy=lambda changed: policy.change(_rules(changed, own)),
    )
    return RelayStreams(application, desk, only_exact=echo)


def _own_places(settings: Settings, listen: Iterable[tuple[str, int]]) -> _OwnPlaces:
    listen = list(listen)
    named = [host for host, _ in listen if not ip_address(host).is_unspecified]
    if settings.relay.public_address:
        named.append(settings.relay.public_address)
    return _OwnPlaces(
        ports=frozenset(port for _, port in listen) | {int(settings.admin.listen.rpartition(":")[2])},
        session_hosts=frozenset(SocketAddress.from_host(host, 0).normalised().host for host in named),
    )


def _rules(settings: RelaySettings, own: _OwnPlaces) -> TargetRules:
    return TargetRules(
        allowed=settings.allowed_targets,
        denied=settings.denied_targets,
        own_ports=own.ports,
        session_ports=settings.port_range,
        session_hosts=own.session_hosts,
    )
