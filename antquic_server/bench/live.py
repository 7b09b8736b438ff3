"""Handshakes and echoes against a server in another process, over loopback sockets."""

import asyncio
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvloop

from antquic_server.bench.load_client import ClientConnection, ClientSettings, LoadClient, random_node_key
from antquic_server.bench.node_process import ServerUnderTest, running_node
from antquic_server.bench.variants import POOL_CONTEXTS, Variant, ed25519_certificate
from antquic_server.pqc.pool import PqcPool
from antquic_server.pqc.select import load_provider

CONCURRENT_HANDSHAKES = 16
"""Enough to keep one worker busy from one client process; below any Retry threshold."""

_HANDSHAKE_TIMEOUT_S = 10.0
_STALL_S = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveHandshakes:
    """How many handshakes a worker completed, and the CPU time it took for all of them, retries included."""

    completed: int
    failed: int
    worker_cpu_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveEcho:
    """How much came back: DATAGRAM frames echoed, wall and server CPU time."""

    echoed: int
    wall_s: float
    server_cpu_s: float


@contextmanager
def running_node_for(variant: Variant) -> Iterator[ServerUnderTest]:
    """Run a node with one worker that shakes hands in this way, classically as well."""
    with _certificate_files() as (certificate, key):
        arguments = [
            *("--set", 'pqc.mode="any"', "--set", f'tls.certificate="{certificate}"'),
            *("--set", f'tls.private_key="{key}"'),
        ]
        if variant.provider != "-":
            arguments += ["--set", f'pqc.provider="{variant.provider}"']
        with running_node(*arguments) as server:
            yield server


def client_settings(variant: Variant, handshakes: int) -> ClientSettings:
    """Return how to dial in this way, with a pool for that many handshakes at a time."""
    provider = variant.provider if variant.provider != "-" else "auto"
    pool = PqcPool(load_provider(provider), handshakes + POOL_CONTEXTS)  # type: ignore[arg-type]
    return ClientSettings(
        pqc=pool,
        node_key=random_node_key(pool) if variant.mutual else None,
        profile=variant.profile,
        groups=(variant.group,),
        server_name="localhost",
    )


def measure_live_handshakes(variant: Variant, seconds: float) -> LiveHandshakes:
    """Shake hands with a node of ours for some seconds."""
    with running_node_for(variant) as server:
        return uvloop.run(_shake_hands(variant, server, seconds))


def measure_live_echo(server: ServerUnderTest, settings: ClientSettings, load: "EchoLoad") -> LiveEcho:
    """Echo DATAGRAM frames for some seconds over several connections, each with a fixed number in flight."""
    return uvloop.run(_echo(server, settings, load))


@dataclass(frozen=True, slots=True, kw_only=True)
class EchoLoad:
    """Connections, frames each keeps in flight, bytes per frame, and how long."""

    connections: int
    in_flight: int
    frame_bytes: int
    seconds: float


async def _shake_hands(variant: Variant, server: ServerUnderTest, seconds: float) -> LiveHandshakes:
    settings = client_settings(variant, CONCURRENT_HANDSHAKES)
    completed = failed = 0
    deadline_s = time.monotonic() + seconds

    async def client() -> None:
        nonlocal completed, failed
        endpoint = LoadClient()
        try:
            while time.monotonic() < deadline_s:
                connection = endpoint.connect("127.0.0.1", server.port, settings)
                try:
                    await connection.wait_connected(_HANDSHAKE_TIMEOUT_S)
                except ConnectionError:
                    failed += 1
                else:
                    completed += 1
                connection.close()
                endpoint.abandon_all()
        finally:
            endpoint.close()

    before_s = server.cpu_s()
    await asyncio.gather(*(client() for _ in range(CONCURRENT_HANDSHAKES)))
    return LiveHandshakes(completed=completed, failed=failed, worker_cpu_s=server.cpu_s() - before_s)


async def _echo(server: ServerUnderTest, settings: ClientSettings, load: EchoLoad) -> LiveEcho:
    pairs: list[tuple[LoadClient, ClientConnection]] = []
    for _ in range(load.connections):
        client = LoadClient()
        pairs.append((client, client.connect("127.0.0.1", server.port, settings)))
    try:
        for _, connection in pairs:
            await connection.wait_connected(_HANDSHAKE_TIMEOUT_S)
        return await _keep_in_flight(pairs, server, load)
    finally:
        for client, connection in pairs:
            connection.close()
            client.close()


async def _keep_in_flight(
    pairs: list[tuple[LoadClient, ClientConnection]], server: ServerUnderTest, load: EchoLoad
) -> LiveEcho:
    frame = os.urandom(load.frame_bytes)

    def send(client: LoadClient, connection: ClientConnection, count: int) -> None:
        for _ in range(count):
            connection.quic.send_datagram_frame(frame)
        client.flush([connection])

    echoed = 0
    started_s = time.monotonic()
    before_s = server.cpu_s()
    heard_s = [started_s] * len(pairs)
    for client, connection in pairs:
        send(client, connection, load.in_flight)
    while (now_s := time.monotonic()) < started_s + load.seconds:
        for index, (client, connection) in enumerate(pairs):
            arrived = len(connection.datagrams)
            if arrived:
                connection.datagrams.clear()
                echoed += arrived
                heard_s[index] = now_s
                send(client, connection, arrived)
            elif now_s - heard_s[index] > _STALL_S:
                # DATAGRAM frames are not repeated when lost; start over.
                heard_s[index] = now_s
                send(client, connection, load.in_flight)
        await asyncio.sleep(0)
    return LiveEcho(echoed=echoed, wall_s=time.monotonic() - started_s, server_cpu_s=server.cpu_s() - before_s)


@contextmanager
def _certificate_files() -> Iterator[tuple[Path, Path]]:
    with tempfile.TemporaryDirectory(prefix="antquic-bench-") as directory:
        certificate, key = Path(directory) / "certificate.pem", Path(directory) / "key.pem"
        pem, key_pem = ed25519_certificate()
        certificate.write_bytes(pem)
        key.write_bytes(key_pem)
        yield certificate, key
