"""Tests of ``workers.worker``: what the settings become."""

import asyncio
import os
import socket
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from cryptography.x509 import load_pem_x509_certificate

import workers.worker
from antquic_server.certificates import self_signed_certificate
from antquic_server.config.model import Settings
from antquic_server.errors import CannotBootError, CertificateError, ProviderUnavailableError
from antquic_server.ipc.messages import Assign, CertificateChanged
from antquic_server.net.stray import make_stray_pairs
from antquic_server.protocol.profiles import HandshakeProfile
from antquic_server.protocol.raw_public_key import peer_id
from antquic_server.protocol.routing import ConnectionIdLayout
from antquic_server.stats.counters import METRICS, SEPARATOR
from support.in_process import Bench, close_worker, make_assign, run, running_worker, settings_with, until
from support.pair import node_key
from workers.admission import Admitted
from workers.control_streams import ControlStreams
from workers.service import BasicService
from workers.surroundings import Hooks
from workers.worker import HANDSHAKE_TIMEOUT_BASE_S, Worker, build_worker

ADMITTED = Admitted(destination_cid=bytes(8), original_destination_cid=bytes(8), retry_source_cid=None)
NOBODY = Hooks(peer_up=lambda _: None, peer_down=lambda _: None, tell_hub=lambda _: False)


def built(
    check: Callable[[Worker], None],
    settings: Settings | None = None,
    change: Callable[[Assign], Assign] = lambda assign: assign,
    *,
    worker_count: int = 1,
    slot: int = 0,
    echo: bool = True,
) -> None:
    """Build a worker, look at it, and take it down."""

    async def story() -> None:
        stray = make_stray_pairs(worker_count)
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(("127.0.0.1", 0))
        assign = make_assign(sock, stray, settings or settings_with(), slot=slot, echo=echo)
        adopted = [replace(item, fd=os.dup(item.fd)) for item in assign.sockets]
        try:
            worker = build_worker(change(replace(assign, sockets=adopted)), NOBODY, asyncio.get_running_loop())
            check(worker)
            close_worker(worker)
        finally:
            sock.close()
            for pair in stray:
                pair.receiver.close()
                pair.sender.close()

    run(story())


def test_settings_reach_the_connections() -> None:
    """Windows, candidates, idle timeout, protocols and packet size are those of the configuration."""
    settings = settings_with(
        endpoint={"idle_timeout_s": 12.5, "alpn": ("antquic",), "keep_alive_s": 3.0, "heartbeat_interval_s": 0.125},
        limits={"stream_window_bytes": 11_111, "connection_window_bytes": 22_222, "echo_buffer_bytes": 33_333},
        mtu={"initial": 1300, "min": 1250, "max": 1400},
        nat={"max_candidates": 17},
        pqc={"memory_pool_size": 3, "handshake_timeout_multiplier": 4.0},
    )

    def check(worker: Worker) -> None:
        quic = worker.endpoint._make_quic(ADMITTED)
        configuration = quic.configuration
        assert configuration.idle_timeout == 12.5
        assert configuration.alpn_protocols == ["antquic"]
        assert configuration.max_datagram_size == 1300
        assert not configuration.is_client
        options = quic._options
        assert (options.stream_window_bytes, options.connection_window_bytes) == (11_111, 22_222)
        assert options.max_backlog_bytes == 33_333
        assert (options.mtu_initial, options.mtu_min, options.mtu_max) == (1300, 1250, 1400)
        assert quic.path_mtu_bytes == 1300
        assert options.max_candidates == 17
        assert options.tls is not None
        assert not options.tls.allow_classical
        assert worker.endpoint._limits.keep_alive_s == 3.0
        assert worker.endpoint._limits.handshake_timeout_s == 4 * HANDSHAKE_TIMEOUT_BASE_S
        assert worker.heartbeat_interval_s == 0.125
        assert worker.pool.size == 3

    built(check, settings)


def test_connection_ids_lead_to_the_slot() -> None:
    """IDs carry the node's id and the slot; reset tokens depend on the node key, not on the process."""
    tokens = []

    def check(worker: Worker) -> None:
        quic = worker.endpoint._make_quic(ADMITTED)
        layout = ConnectionIdLayout(node_id=peer_id(node_key("server").public_key)[:2], worker_count=5)
        (cid,) = quic.issued_connection_ids
        assert layout.is_ours(cid)
        assert layout.slot_of(cid) == 3
        assert quic._options.stateless_reset_token is not None
        tokens.append(quic._options.stateless_reset_token(bytes(10)))

    built(check, worker_count=5, slot=3)
    built(check, worker_count=5, slot=3)
    built(
        lambda worker: tokens.append(worker.endpoint._make_quic(ADMITTED)._options.stateless_reset_token(bytes(10))),  # type: ignore[misc]
        change=lambda assign: replace(assign, identity_seed=b"another".ljust(32, b".")),
    )
    assert tokens[0] == tokens[1] != tokens[2]


def test_classical_clients_by_configuration() -> None:
    """``pqc.mode = "any"`` admits clients without ML-KEM, counted as classical."""

    async def story() -> None:
        async with running_worker(settings_with(pqc={"mode": "any"})) as bench:
            await bench.connected(profile=HandshakeProfile.X509, groups=(0x1D,))
            assert bench.counted("handshakes", "classical") == 1

    run(story())


def test_without_echo_the_basic_service() -> None:
    """Nothing comes back from a node without ``--echo``, except answers to probes."""

    async def story() -> None:
        async with running_worker(echo=False) as bench:
            assert isinstance(bench.endpoint._service, ControlStreams)
            assert bench.endpoint._service._application is bench.worker.relay_streams
            assert isinstance(bench.worker.relay_streams._application, BasicService)
            connection = await bench.connected()
            tag = bytes(16)
            assert await connection.echo_message(b"ANQProR1" + tag, 5.0) == b"ANQAckC1" + tag + bytes(2)
            with pytest.raises(ConnectionError):
                await connection.echo_datagram(b"x", 0.2)

    run(story())


@pytest.mark.parametrize("worker_count", [1, 4])
def test_rates_are_shared_between_slots(worker_count: int) -> None:
    """The kernel spreads an address over the slots, so each grants its part of the whole rate."""
    settings = settings_with(limits={"handshakes_per_address_per_s": 8.0, "handshake_burst_s": 2.0})

    def check(worker: Worker) -> None:
        rates = worker.endpoint._strangers._admission._address_rates
        granted = [rates.take(b"\xc0\x00\x02\x01", 100.0) for _ in range(40)]
        assert granted.count(True) == 16 / worker_count

    built(check, settings, worker_count=worker_count)


def test_snapshot_names_are_declared() -> None:
    """Every figure a worker reports is one the supervisor knows."""

    async def story() -> None:
        async with running_worker() as bench:
            connection = await bench.connected()
            await connection.echo(b"x", 5.0)
            await until(lambda: bench.counted("path_mtu_sum_bytes") == 1452, "acknowledged probe")
            figures(bench)

    def figures(bench: Bench) -> None:
        snapshot = bench.worker.snapshot(0.5)
        assert all(key.split(SEPARATOR)[0] in METRICS for key in snapshot)
        assert snapshot["loop_lag_s"] == 0.5
        assert snapshot["active_connections"] == 1
        assert snapshot["handshakes_in_flight"] == 0
        assert snapshot["pqc_pool_hits"] > 0
        assert snapshot["observed_addresses_sent"] >= 1
        assert snapshot["mtu_probes_sent"] == 1
        assert snapshot["mtu_probes_lost"] == snapshot["mtu_black_holes"] == 0
        snapshot["retries"] = 99
        assert bench.worker.snapshot(0.0)["retries"] == 0

    run(story())


@pytest.mark.parametrize(
    ("section", "host", "wildcard"), [("endpoint", "0.0.0.0", True), ("endpoint", "127.0.0.1", False)]
)
def test_wildcard_sockets_learn_their_local_address(section: str, host: str, wildcard: bool) -> None:
    """A socket bound to every address must answer from the one it was asked at."""

    def on_host(assign: Assign) -> Assign:
        return replace(assign, sockets=[replace(item, host=host) for item in assign.sockets])

    built(lambda worker: check_wildcard(worker, wildcard), change=on_host)


def check_wildcard(worker: Worker, wildcard: bool) -> None:
    """The one socket is, or is not, a wildcard."""
    (sock,) = worker.endpoint._sockets
    assert sock.wildcard is wildcard


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda assign: replace(assign, certificate_pem=b"garbage"), id="certificate"),
        pytest.param(lambda assign: replace(assign, certificate_key_pem=b"garbage"), id="key"),
    ],
)
def test_unusable_certificate_is_a_reason_not_to_start(change: Callable[[Assign], Assign]) -> None:
    """What cannot be used is said as CannotBootError, which Control reports."""
    with pytest.raises(CannotBootError):
        built(lambda _worker: None, change=change)


def test_renewed_certificate_is_for_new_connections() -> None:
    """Connections made from then on present it; what cannot be used leaves the one before, whole."""
    leaf, key = self_signed_certificate("renewed")
    issuer, _ = self_signed_certificate("issuer")

    def check(worker: Worker) -> None:
        configuration = worker.endpoint._make_quic(ADMITTED).configuration
        before = configuration.certificate
        for wrong in (CertificateChanged(certificate_pem=b"x", certificate_key_pem=key), replaced(key_pem=b"x")):
            with pytest.raises(CertificateError):
                worker.use_certificate(wrong)
            assert configuration.certificate is before
        worker.use_certificate(replaced(key_pem=key))
        configuration = worker.endpoint._make_quic(ADMITTED).configuration
        assert configuration.certificate == load_pem_x509_certificate(leaf)
        assert configuration.certificate_chain == [load_pem_x509_certificate(issuer)]
        assert configuration.private_key.public_key() == configuration.certificate.public_key()

    def replaced(*, key_pem: bytes) -> CertificateChanged:
        # A blank line and a comment, as files put together by hand have them.
        chain = leaf + b"\n# issuer\n" + issuer + b"\n"
        return CertificateChanged(certificate_pem=chain, certificate_key_pem=key_pem)

    built(check)


def test_unavailable_provider_is_a_reason_not_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """A provider that is missing is said as CannotBootError."""

    def missing(_name: str) -> Any:
        raise ProviderUnavailableError("liboqs is not installed")

    monkeypatch.setattr(workers.worker, "load_provider", missing)
    with pytest.raises(CannotBootError):
        built(lambda _worker: None)
