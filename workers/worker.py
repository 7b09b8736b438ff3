"""Everything one worker consists of, built from the message that assigns its slot."""

import asyncio
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path
from typing import TextIO, cast

from aioquic.quic.configuration import QuicConfiguration
from aioquic.tls import load_pem_private_key
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.x509 import load_pem_x509_certificates

from antquic_server.config.model import Settings, from_plain
from antquic_server.errors import CertificateError
from antquic_server.ipc.messages import Assign, CertificateChanged
from antquic_server.keylog import open_key_log
from antquic_server.net.stray import StrayReceiver
from antquic_server.net.udp import PathAddress, UdpSocket
from antquic_server.pqc.pool import PqcPool
from antquic_server.pqc.select import load_provider
from antquic_server.protocol import coordination as coordination_protocol
from antquic_server.protocol import punch_report, relay_control
from antquic_server.protocol.limits import KeyedBuckets
from antquic_server.protocol.parameters import ExtensionParameters
from antquic_server.protocol.raw_public_key import peer_id
from antquic_server.protocol.retry_policy import RetryPolicy
from antquic_server.protocol.retry_token import RetryTokenSealer
from antquic_server.protocol.routing import CONNECTION_ID_LENGTH_BYTES, ConnectionIdLayout
from antquic_server.protocol.seam.connection import NodeQuicConnection
from antquic_server.protocol.seam.options import ConnectionOptions, Tally
from antquic_server.protocol.seam.tls_context import SigningKey, TlsOptions
from antquic_server.protocol.stateless_reset import reset_token
from antquic_server.stats.counters import CounterSet
from workers.admission import SUPPORTED_VERSIONS, Admission, Admitted
from workers.channel_control import ChannelControl
from workers.control_streams import ControlStreams, MessageKind
from workers.coordination import Coordination, Surroundings
from workers.echo import EchoService
from workers.endpoint import Endpoint
from workers.loop_watch import LoopWatch
from workers.punch_reports import PunchReports
from workers.qlog import QlogDesk
from workers.relay import Relay, build_relay
from workers.relay_setup import channel_table, relay_share, stream_relay
from workers.relay_streams import RelayStreams
from workers.service import BasicService, Service
from workers.strangers import Strangers
from workers.surroundings import EndpointLimits, Hooks
from workers.talkers import TalkerReports

HANDSHAKE_TIMEOUT_BASE_S = 5.0
"""Times ``pqc.handshake_timeout_multiplier``: long enough for three retransmissions of a lost Initial."""

MAX_DATAGRAM_FRAME_BYTES = 65535
"""As ant-quic peers advertise it; what fits a packet is less."""

NAT_TRAVERSAL_CONCURRENCY = 10
ADDRESS_DISCOVERY_BOTH = 2

RATE_TABLE_ENTRIES = 1 << 14
"""Buckets per table, about 2 MB; addresses that collide share one (``protocol.limits``)."""


@dataclass(slots=True, kw_only=True)
class Worker:
    """A worker that has a slot."""

    endpoint: Endpoint
    coordination: Coordination
    relay: Relay
    relay_streams: RelayStreams
    qlog: QlogDesk
    loop_watch: LoopWatch
    talkers: TalkerReports
    pool: PqcPool
    tally: Tally
    configuration: QuicConfiguration
    counters: CounterSet
    heartbeat_interval_s: float
    offloads: list[str]

    def use_certificate(self, message: CertificateChanged) -> None:
        """
        Present another X.509 certificate to connections that begin from now on.

        Raises:
            CertificateError: It cannot be used; the one before stays.
        """
        _set_certificate(self.configuration, message)

    def snapshot(self, loop_lag_s: float) -> dict[str, float]:
        """Return the counters with the gauges and the pool's figures of this moment."""
        self.endpoint.collect()
        self.relay.collect()
        values = self.counters.values
        values["active_connections"] = len(self.endpoint.connections)
        values["handshakes_in_flight"] = self.endpoint.half_open
        values["pqc_pool_hits"] = self.pool.hits
        values["pqc_pool_misses"] = self.pool.misses
        values["observed_addresses_sent"] = self.tally.observed_addresses_sent
        values[self.counters.declare("drops", "undecryptable")] = self.tally.undecryptable_packets
        values[self.counters.declare("drops", "key_unavailable")] = self.tally.packets_without_key
        values[self.counters.declare("drops", "datagram_frame_above_mtu")] = self.tally.mtu_datagram_frames_dropped
        values["mtu_probes_sent"] = self.tally.mtu_probes_sent
        values["mtu_probes_lost"] = self.tally.mtu_probes_lost
        values["mtu_black_holes"] = self.tally.mtu_black_holes
        connections = self.endpoint.connections.values()
        values["path_mtu_sum_bytes"] = sum(connection.quic.path_mtu_bytes for connection in connections)
        values["loop_lag_s"] = loop_lag_s
        return self.counters.snapshot()


def build_worker(assign: Assign, hooks: Hooks, loop: asyncio.AbstractEventLoop) -> Worker:
    """
    Build a worker for its slot.

    Raises:
        CannotBootError: A provider, key or certificate cannot be used.
    """
    return _Builder(assign, hooks, loop).worker()


class _Builder:
    """Makes the parts of one worker, each once, and puts them together."""

    def __init__(self, assign: Assign, hooks: Hooks, loop: asyncio.AbstractEventLoop) -> None:
        self._assign = assign
        self._loop = loop
        self._settings = settings = from_plain(assign.settings)
        self._counters = CounterSet()
        provider = load_provider(settings.pqc.provider)  # type: ignore[arg-type]
        self._pool = PqcPool(provider, settings.pqc.memory_pool_size)
        node_key = self._pool.signing_key(assign.identity_seed)
        self._layout = ConnectionIdLayout(node_id=peer_id(node_key.public_key)[:2], worker_count=assign.worker_count)
        # Of the node key, not of this process, so that a successor can reset its predecessor's connections.
        self._reset_key = reset_key = _derive(assign.identity_seed, b"antquic-server stateless reset")
        self._qlog = QlogDesk(
            slot=assign.slot,
            generation=assign.generation,
            tell_hub=hooks.tell_hub,
            monotonic_s=time.monotonic,
            unix_s=time.time,
        )
        self._hooks = self._qlog.listen_to(hooks)
        self._configuration = _quic_configuration(settings, assign)
        self._options = replace(
            _connection_options(settings, self._pool, node_key),
            new_connection_id=self._new_connection_id,
            stateless_reset_token=lambda cid: reset_token(reset_key, cid),
        )
        self._sockets = _adopt_sockets(assign)
        self._share = relay_share(settings.relay, assign.worker_count)
        self._channels = channel_table(assign, settings, self._sockets, self._counters)

    def worker(self) -> Worker:
        """Return the whole, with the endpoint that all services send through."""
        surroundings = _surroundings(self._hooks, lambda: endpoint)
        coordination = _coordination(self._settings, self._counters, surroundings)
        channel_control = ChannelControl(surroundings, self._counters)
        punch_reports = PunchReports(self._hooks.tell_hub, time.monotonic, self._counters)
        relay_streams = self._relay_streams(lambda: endpoint)
        kinds = _message_kinds(coordination, channel_control, punch_reports)
        endpoint = self._endpoint(ControlStreams(kinds, relay_streams))
        loop_delay = self._counters.histogram("loop_delay_s")
        return Worker(
            endpoint=endpoint,
            coordination=coordination,
            relay_streams=relay_streams,
            qlog=self._qlog,
            talkers=TalkerReports(endpoint.connections, self._hooks.tell_hub, self._loop),
            relay=build_relay(
                self._assign,
                self._settings,
                table=self._channels,
                control=channel_control,
                streams=relay_streams,
                share=self._share,
                counters=self._counters,
                tell_hub=self._hooks.tell_hub,
                loop=self._loop,
            ),
            loop_watch=LoopWatch(loop_delay.observe, clock=time.monotonic, loop=self._loop),
            pool=self._pool,
            tally=self._options.tally,
            configuration=self._configuration,
            counters=self._counters,
            heartbeat_interval_s=self._settings.endpoint.heartbeat_interval_s,
            offloads=self._sockets[0].offloads if self._sockets else [],
        )

    def _endpoint(self, service: Service) -> Endpoint:
        return Endpoint(
            sockets=self._sockets,
            stray=StrayReceiver(_adopt_stray(self._assign.steering_fd)),
            counters=self._counters,
            make_strangers=self._make_strangers,
            make_quic=self._make_quic,
            service=service,
            channels=self._channels,
            hooks=self._hooks,
            limits=EndpointLimits(
                handshake_timeout_s=HANDSHAKE_TIMEOUT_BASE_S * self._settings.pqc.handshake_timeout_multiplier,
                keep_alive_s=self._settings.endpoint.keep_alive_s,
            ),
            loop=self._loop,
        )

    def _relay_streams(self, endpoint: Callable[[], Endpoint]) -> RelayStreams:
        return stream_relay(
            _application(self._settings, self._counters, echo=self._assign.echo),
            self._settings,
            sockets=self._assign.sockets,
            tell_hub=self._hooks.tell_hub,
            endpoint=endpoint,
            share=self._share,
            counters=self._counters,
            loop=self._loop,
            echo=self._assign.echo,
        )

    def _new_connection_id(self) -> bytes:
        return self._layout.new_connection_id(self._assign.slot, os.urandom)

    def _make_quic(self, admitted: Admitted) -> NodeQuicConnection:
        return self._qlog.watch(
            NodeQuicConnection(
                configuration=self._configuration,
                options=self._options,
                original_destination_connection_id=admitted.original_destination_cid,
                retry_source_connection_id=admitted.retry_source_cid,
            )
        )

    def _make_strangers(self, reply: Callable[[PathAddress, bytes], None]) -> Strangers:
        return Strangers(
            slot=self._assign.slot,
            layout=self._layout,
            stray_senders=[_adopt_stray(fd) for fd in self._assign.steering_fds],
            admission=_admission(self._settings, self._assign, self._counters, self._new_connection_id),
            counters=self._counters,
            reset_key=self._reset_key,
            resets_per_s=self._settings.limits.stateless_resets_per_s,
            random_bytes=os.urandom,
            reply=reply,
        )


def _derive(secret: bytes, purpose: bytes) -> bytes:
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=purpose).derive(secret)


def _quic_configuration(settings: Settings, assign: Assign) -> QuicConfiguration:
    configuration = QuicConfiguration(
        is_client=False,
        alpn_protocols=list(settings.endpoint.alpn) or None,
        connection_id_length=CONNECTION_ID_LENGTH_BYTES,
        idle_timeout=settings.endpoint.idle_timeout_s,
        max_datagram_size=settings.mtu.initial,
        max_datagram_frame_size=MAX_DATAGRAM_FRAME_BYTES,
        supported_versions=list(SUPPORTED_VERSIONS),
    )
    _set_certificate(configuration, assign)
    if settings.log.keylog:
        # Of a text file, aioquic needs what a KeyLog has.
        configuration.secrets_log_file = cast("TextIO", open_key_log(Path(settings.log.keylog)))
    return configuration


def _set_certificate(configuration: QuicConfiguration, source: Assign | CertificateChanged) -> None:
    try:
        # As the supervisor has read it: aioquic's own function takes no blank line at the end.
        certificate, *chain = load_pem_x509_certificates(source.certificate_pem)
        private_key = load_pem_private_key(source.certificate_key_pem)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise CertificateError(f"the X.509 certificate or its key cannot be used: {error}") from error
    # Together and at the end: connections share the configuration, and take all of it when their first packet comes.
    configuration.certificate, configuration.certificate_chain = certificate, chain
    configuration.private_key = private_key


def _connection_options(settings: Settings, pool: PqcPool, node_key: SigningKey) -> ConnectionOptions:
    return ConnectionOptions(
        tls=TlsOptions(pqc=pool, node_key=node_key, allow_classical=settings.pqc.mode == "any"),
        extensions=ExtensionParameters(
            nat_traversal=NAT_TRAVERSAL_CONCURRENCY,
            rfc_nat_traversal=True,
            address_discovery=ADDRESS_DISCOVERY_BOTH,
            # Whether relaying is enabled may change while the connection lasts: the hub's answer says it.
            relay_channels=True,
        ),
        max_candidates=settings.nat.max_candidates,
        stream_window_bytes=settings.limits.stream_window_bytes,
        connection_window_bytes=settings.limits.connection_window_bytes,
        max_backlog_bytes=settings.limits.echo_buffer_bytes,
        mtu_initial=settings.mtu.initial,
        mtu_min=settings.mtu.min,
        mtu_max=settings.mtu.max,
    )


def _admission(
    settings: Settings, assign: Assign, counters: CounterSet, new_connection_id: Callable[[], bytes]
) -> Admission:
    limits = settings.limits
    burst_s = limits.handshake_burst_s
    # The kernel spreads the connections of one address over all slots, so each slot grants its share.
    share = 1 / assign.worker_count
    address_rate = limits.handshakes_per_address_per_s * share
    prefix_rate = limits.handshakes_per_prefix_per_s * share
    return Admission(
        counters=counters,
        sealer=RetryTokenSealer(assign.root_secret),
        retry_policy=RetryPolicy(mode=limits.retry, half_open_threshold=limits.half_open_retry_threshold),
        address_rates=KeyedBuckets(address_rate, max(1.0, address_rate * burst_s), RATE_TABLE_ENTRIES),
        prefix_rates=KeyedBuckets(prefix_rate, max(1.0, prefix_rate * burst_s), RATE_TABLE_ENTRIES),
        max_connections=settings.endpoint.max_connections,
        new_connection_id=new_connection_id,
        random_bytes=os.urandom,
    )


def _application(settings: Settings, counters: CounterSet, *, echo: bool) -> Service:
    if echo:
        return EchoService(counters, max_message_bytes=settings.limits.max_message_bytes)
    return BasicService(counters)


def _surroundings(hooks: Hooks, endpoint: Callable[[], Endpoint]) -> Surroundings:
    """``endpoint`` is asked for later: it does not exist yet, since its service is made from this."""
    return Surroundings(
        tell_hub=hooks.tell_hub,
        find=lambda number: endpoint().find(number),
        flush=lambda connection: endpoint().flush_soon(connection),
        monotonic_s=time.monotonic,
        unix_s=time.time,
    )


def _coordination(settings: Settings, counters: CounterSet, surroundings: Surroundings) -> Coordination:
    rates = KeyedBuckets(settings.nat.coordination_rate_per_s, settings.nat.coordination_burst, RATE_TABLE_ENTRIES)
    return Coordination(surroundings, counters=counters, rates=rates)


def _message_kinds(coordination: Coordination, channels: ChannelControl, punches: PunchReports) -> list[MessageKind]:
    return [
        MessageKind(
            prefix=coordination_protocol.PREFIX,
            max_message_bytes=coordination_protocol.MAX_MESSAGE_BYTES,
            handle=coordination.handle_message_untrusted,
            count_malformed=coordination.count_malformed,
        ),
        MessageKind(
            prefix=relay_control.PREFIX,
            max_message_bytes=relay_control.MAX_MESSAGE_BYTES,
            handle=channels.handle_message_untrusted,
            count_malformed=channels.count_malformed,
        ),
        MessageKind(
            prefix=punch_report.PREFIX,
            max_message_bytes=punch_report.MAX_MESSAGE_BYTES,
            handle=punches.handle_message_untrusted,
            count_malformed=punches.count_malformed,
        ),
    ]


def _adopt_sockets(assign: Assign) -> list[UdpSocket]:
    """Wrap the inherited descriptors; detached again at exit, they are the supervisor's."""
    adopted = []
    for index, item in enumerate(assign.sockets):
        sock = socket.socket(item.family, socket.SOCK_DGRAM, fileno=item.fd)
        sock.setblocking(False)
        adopted.append(UdpSocket(sock, wildcard=ip_address(item.host).is_unspecified, socket_index=index, batches=True))
    return adopted


def _adopt_stray(fd: int) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM, fileno=os.dup(fd))
    sock.setblocking(False)
    return sock
