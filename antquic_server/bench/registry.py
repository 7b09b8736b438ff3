"""The benchmarks that come with the package, by name."""

from antquic_server.bench import connections, datagram, handshake, loopback, mtu, pool, relay, relay_plan, reuse
from antquic_server.bench.benchmark import Benchmark

__all__ = ["BENCHMARKS"]

BENCHMARKS: dict[str, Benchmark] = {
    "connections": Benchmark(
        summary="memory and CPU time of idle connections",
        ratio="node / aioquic.asyncio.serve",
        about_s=90,
        quick_s=10,
        options=connections.OPTIONS,
        quick=connections.QUICK,
        run=connections.run,
    ),
    "datagram": Benchmark(
        summary="echoes of DATAGRAM frames per second of server CPU time",
        ratio="node / aioquic.asyncio.serve",
        about_s=45,
        quick_s=10,
        options=datagram.OPTIONS,
        quick={"rounds": "1", "seconds": "1"},
        run=datagram.run,
    ),
    "handshake": Benchmark(
        summary="handshakes: bytes, server CPU time, primitives, latency",
        ratio="post-quantum / classical",
        about_s=60,
        quick_s=20,
        needs="liboqs, for its rows",
        options=handshake.OPTIONS,
        quick={"rounds": "10", "live_s": "1", "rtt_ms": "0,50", "dials": "1"},
        run=handshake.run,
    ),
    "loopback": Benchmark(
        summary="latency of an echo without load: p50 and p99",
        ratio="node / aioquic.asyncio.serve",
        about_s=30,
        quick_s=10,
        options=loopback.OPTIONS,
        quick=loopback.QUICK,
        run=loopback.run,
    ),
    "mtu": Benchmark(
        summary="streams with a node and peer to peer, by datagram size",
        ratio="path MTU discovery / 1200 bytes",
        about_s=60,
        quick_s=12,
        options=mtu.OPTIONS,
        quick={"rounds": "1", "seconds": "1"},
        run=mtu.run,
    ),
    "pool": Benchmark(
        summary="post-quantum operations by pqc.memory_pool_size",
        ratio="pool / new memory each time",
        about_s=15,
        quick_s=3,
        needs="liboqs, for its rows",
        options=pool.OPTIONS,
        quick=pool.QUICK,
        run=pool.run,
    ),
    "relay": Benchmark(
        summary="payloads relayed per second of relay CPU time",
        ratio="node / coturn, C forwarder, aioquic",
        about_s=180,
        quick_s=30,
        needs="root, coturn and cc for all",
        options=relay_plan.OPTIONS,
        quick=relay_plan.QUICK,
        run=relay.run,
    ),
    "reuse": Benchmark(
        summary="a request on a connection that is there, or on a new one",
        ratio="new connection / live one",
        about_s=20,
        quick_s=6,
        options=reuse.OPTIONS,
        quick=reuse.QUICK,
        run=reuse.run,
    ),
}
