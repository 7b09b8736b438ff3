"""
``bench handshake``: what post-quantum handshakes cost this node, as ratios to a classical one in the same run.

Four measurements:

1. In memory, client and server connection side by side: bytes on the wire, and CPU time of the server's calls alone,
   from the first datagram to the confirmed handshake. Variants take turns, round by round, so that a busy machine
   slows all of them alike; the median counts.
2. The primitives by themselves, on the server's side of the exchange (``handshake_primitives``).
3. Over real sockets: a node with one worker, clients in processes of their own, and the worker's CPU time as the
   kernel counts it.
4. The time until a client is connected, at round-trip times of the network (``handshake_latency``).
"""

import os
import ssl
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from aioquic.buffer import Buffer
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.packet import pull_quic_header
from aioquic.tls import load_pem_private_key, load_pem_x509_certificates

from antquic_server.bench.handshake_latency import latency_table, measure_latencies
from antquic_server.bench.handshake_primitives import primitive_table
from antquic_server.bench.live import measure_live_handshakes
from antquic_server.bench.progress import Progress
from antquic_server.bench.report import Column, Report, Table, whole, whole_list
from antquic_server.bench.variants import Variant, available_pools, ed25519_certificate, variants
from antquic_server.errors import PqcError
from antquic_server.pqc.pool import PqcPool
from antquic_server.protocol.parameters import ExtensionParameters
from antquic_server.protocol.seam.connection import NodeQuicConnection
from antquic_server.protocol.seam.options import ConnectionOptions
from antquic_server.protocol.seam.tls_context import TlsOptions

OPTIONS: Mapping[str, str] = {"rounds": "200", "live_s": "3", "rtt_ms": "0,50,100", "dials": "5"}

_SERVER = ("192.0.2.1", 443)
_CLIENT = ("192.0.2.2", 4433)
_EXTENSIONS = ExtensionParameters(nat_traversal=10, rfc_nat_traversal=True, address_discovery=2)
_MAX_FLIGHTS = 12


@dataclass(slots=True)
class Sample:
    """What one variant has shown so far; bytes are UDP payload of the last handshake."""

    client_hello_bytes: int = 0
    server_flight_bytes: int = 0
    total_bytes: int = 0
    client_datagrams: int = 0
    server_datagrams: int = 0
    server_cpu_us: list[float] = field(default_factory=list)


def run(options: Mapping[str, str]) -> Report:
    """Run all four measurements."""
    rounds = whole(options, "rounds", 1)
    live_s = whole(options, "live_s", 0)
    dials = whole(options, "dials", 0)
    rtts_ms = whole_list(options, "rtt_ms", 0)
    pools = available_pools()
    chosen = variants(list(pools))
    progress = Progress(rounds + len(chosen) * (bool(live_s) + bool(dials)))
    laboratory = _Laboratory(pools)
    samples = {variant.label: Sample() for variant in chosen}
    for variant in chosen:
        laboratory.shake_hands(variant, Sample())  # warm up caches and imports
    for number in range(rounds):
        progress.step(f"round {number + 1} of {rounds}")
        for variant in chosen:
            laboratory.shake_hands(variant, samples[variant.label])
    tables = [_handshake_table(chosen, samples), primitive_table(chosen, laboratory.pools, rounds)]
    if live_s:
        tables.append(_live_table(chosen, live_s, progress))
    if dials:
        latencies = {}
        for variant in chosen:
            progress.step(f"latency: {variant.label}")
            latencies[variant.label] = measure_latencies(variant, rtts_ms, dials)
        tables.append(latency_table(latencies))
    return Report(tables=tables, notes=_notes(pools))


class _Laboratory:
    """Everything that handshakes in memory share."""

    def __init__(self, pools: dict[str, PqcPool]) -> None:
        self.pools = pools
        self._any_pool = next(iter(pools.values()))
        certificate, key = ed25519_certificate()
        self._server_configuration = QuicConfiguration(is_client=False, supported_versions=[1])
        self._server_configuration.certificate = load_pem_x509_certificates(certificate)[0]
        self._server_configuration.private_key = load_pem_private_key(key)
        self._client_configuration = QuicConfiguration(
            is_client=True, supported_versions=[1], server_name="localhost", verify_mode=ssl.CERT_NONE
        )
        seeds = (os.urandom(32), os.urandom(32))
        self.server_keys = {name: pool.signing_key(seeds[0]) for name, pool in pools.items()}
        self.client_keys = {name: pool.signing_key(seeds[1]) for name, pool in pools.items()}

    def pool(self, variant: Variant) -> PqcPool:
        """Return the pool of the variant's provider; classical handshakes never use theirs."""
        return self.pools.get(variant.provider, self._any_pool)

    def shake_hands(self, variant: Variant, sample: Sample) -> None:
        """Complete one handshake and add what it took to the sample."""
        client, server_options = self._client(variant), self._server_options(variant)
        now_s = 0.0
        client.connect(_SERVER, now_s)
        server: NodeQuicConnection | None = None
        cpu_ns = 0
        sample.total_bytes = sample.client_datagrams = sample.server_datagrams = 0
        for flight in range(_MAX_FLIGHTS):
            upstream = client.datagrams_to_send(now_s)
            started_ns = time.thread_time_ns()
            if server is None:
                server = self._server(upstream[0][0], server_options)
            for data, _ in upstream:
                server.receive_datagram(data, _CLIENT, now_s)
            downstream = server.datagrams_to_send(now_s)
            cpu_ns += time.thread_time_ns() - started_ns
            if flight == 0:
                sample.client_hello_bytes = _size(upstream)
                sample.server_flight_bytes = _size(downstream)
            sample.total_bytes += _size(upstream) + _size(downstream)
            sample.client_datagrams += len(upstream)
            sample.server_datagrams += len(downstream)
            for data, _ in downstream:
                client.receive_datagram(data, _SERVER, now_s)
            if server.handshake_complete and client.handshake_confirmed:
                sample.server_cpu_us.append(cpu_ns / 1000)
                return
            now_s += 0.001
        raise PqcError(f"handshake of {variant.label} did not complete: {client.close_reason}")

    def _client(self, variant: Variant) -> NodeQuicConnection:
        pool = self.pool(variant)
        return NodeQuicConnection(
            configuration=self._client_configuration,
            options=ConnectionOptions(
                tls=TlsOptions(
                    pqc=pool,
                    node_key=self.client_keys.get(variant.provider) if variant.mutual else None,
                    client_profile=variant.profile,
                    client_groups=(variant.group,),
                ),
                extensions=_EXTENSIONS,
            ),
        )

    def _server_options(self, variant: Variant) -> ConnectionOptions:
        return ConnectionOptions(
            tls=TlsOptions(
                pqc=self.pool(variant), node_key=self.server_keys.get(variant.provider), allow_classical=True
            ),
            extensions=_EXTENSIONS,
        )

    def _server(self, first: bytes, options: ConnectionOptions) -> NodeQuicConnection:
        header = pull_quic_header(Buffer(data=first), host_cid_length=8)
        return NodeQuicConnection(
            configuration=self._server_configuration,
            options=options,
            original_destination_connection_id=header.destination_cid,
        )


def _handshake_table(chosen: list[Variant], samples: dict[str, Sample]) -> Table:
    base_bytes = samples[chosen[0].label].total_bytes
    base_us = statistics.median(samples[chosen[0].label].server_cpu_us)
    table = Table(
        title="handshake in memory: UDP bytes and server CPU time",
        columns=(
            "handshake",
            Column(name="ClientHello B", unit="B", better="lower"),
            Column(name="server flight B", unit="B", better="lower"),
            Column(name="total B", unit="B", better="lower"),
            Column(name="x bytes", unit="x", better="lower"),
            Column(name="datagrams up", better="lower"),
            Column(name="datagrams down", better="lower"),
            Column(name="CPU us", unit="us", better="lower"),
            Column(name="+-", unit="us"),
            Column(name="x CPU", unit="x", better="lower"),
        ),
        chart="x CPU",
    )
    for variant in chosen:
        sample = samples[variant.label]
        median_us = statistics.median(sample.server_cpu_us)
        quartiles = statistics.quantiles(sample.server_cpu_us, n=4) if len(sample.server_cpu_us) > 1 else [0.0] * 3
        table.rows.append(
            (
                variant.label,
                sample.client_hello_bytes,
                sample.server_flight_bytes,
                sample.total_bytes,
                sample.total_bytes / base_bytes,
                sample.client_datagrams,
                sample.server_datagrams,
                median_us,
                (quartiles[2] - quartiles[0]) / 2,
                median_us / base_us,
            )
        )
    return table


def _live_table(chosen: list[Variant], seconds: int, progress: Progress) -> Table:
    table = Table(
        title="handshakes over real sockets, one worker",
        columns=(
            "handshake",
            Column(name="completed"),
            Column(name="failed", better="lower"),
            Column(name="per CPU second", unit="1/s", better="higher"),
            Column(name="CPU us each", unit="us", better="lower"),
            Column(name="x CPU", unit="x", better="lower"),
        ),
        chart="x CPU",
    )
    base_us = 0.0
    for variant in chosen:
        progress.step(f"real sockets: {variant.label}")
        result = measure_live_handshakes(variant, seconds)
        # The kernel counts CPU time in steps of 10 ms.
        worker_cpu_s = max(result.worker_cpu_s, 0.01)
        each_us = 1e6 * worker_cpu_s / max(1, result.completed)
        base_us = base_us or each_us
        table.rows.append(
            (
                variant.label,
                result.completed,
                result.failed,
                result.completed / worker_cpu_s,
                each_us,
                each_us / base_us,
            )
        )
    return table


def _notes(pools: dict[str, PqcPool]) -> list[str]:
    notes = [
        "CPU is server time only; x is the ratio to the classical row of the same table, from the same run.",
        "key generation makes a client's key share; key exchange is the server's whole answer to one.",
        "bytes are UDP payload with Initial padding and acknowledgements, from first datagram to HANDSHAKE_DONE.",
        "latency is the client's, from its first datagram to its handshake completed; half of the RTT each way.",
    ]
    if "liboqs" not in pools:
        notes.append("liboqs is not installed, so only the cryptography provider was measured.")
    return notes


def _size(datagrams: list[tuple[bytes, object]]) -> int:
    return sum(len(data) for data, _ in datagrams)
