"""The real admin endpoint over a node that is whatever a test says, for what real nodes do rarely or never."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from antquic_server.config.model import Settings, to_plain
from antquic_server.supervisor.admin import AdminServer
from antquic_server.supervisor.history import COLUMNS

__all__ = ["AdminStandIn", "admin_stand_in", "calm_document", "worker_row"]

START_TIMEOUT_S = 10.0


def worker_row(slot: int, **changes: Any) -> dict[str, Any]:
    """Return one healthy worker as ``/status`` has it, with what the test changes."""
    row = {
        "slot": slot,
        "generation": 1,
        "restarts": 0,
        "state": "ready",
        "pid": 4000 + slot,
        "uptime_s": 100.0,
        "heartbeat_age_s": 0.1,
        "connections": 12,
        "counters": {},
        "handshakes_in_flight": 0,
        "loop_lag_s": 0.001,
        "cpu_percent": 12.5,
        "rss_bytes": 60_000_000,
        "open_files": 40,
    }
    return row | changes


def calm_document() -> dict[str, Any]:
    """Return the ``/status`` of a healthy node with two workers, in which every optional part is there."""
    mode = {"bytes": 5_000_000, "datagrams": 5000}
    return {
        "node": {
            "peer_id": "ab" * 32,
            "version": "0.1.0",
            "pid": 3999,
            "uptime_s": 4000.0,
            "listen": ["0.0.0.0:10000", "[::]:10000"],
            "steered": True,
            "workers": 2,
            "pqc_provider": "liboqs",
            "healthy": True,
            "draining": False,
        },
        "workers": [worker_row(0), worker_row(1)],
        "spares": [{"pid": 4100, "state": "spare"}],
        "totals": {"active_connections": 24, "drops|not_quic": 17, "relay_refusals|channel|open_rate": 3},
        "directory": {"peers": 20, "connections": 24, "dropped": 0},
        "relay": {
            "enabled": True,
            "draining": False,
            "sessions": {"channel": 7, "stream": 2, "peers": 9},
            "delivered": {"channel": mode, "stream": mode},
            "introductions": {"direct": 80, "relayed": 20},
            "refusals": {"channel": {"open_rate": 3}, "stream": {}},
            "canary": {"channel": {"ok": 20, "latency_s": 0.0004}, "stream": {"latency_s": None}},
            "quota": {"used_bytes": 9_000_000, "peers": 9, "ends_in_s": 3600.0},
            "limits": {"max_sessions": 10, "bandwidth_bytes_per_s": 1_000_000, "max_bytes": 10_000_000},
        },
        "punches": {
            "successful": 30,
            "failed": 10,
            "by_nat_pair": [
                {"initiator": "endpoint_independent", "target": "endpoint_independent", "successful": 28, "failed": 2},
                {"initiator": "endpoint_independent", "target": "dependent", "successful": 2, "failed": 2},
                {"initiator": "dependent", "target": "dependent", "successful": 0, "failed": 6},
            ],
        },
        "talkers": [
            {
                "peer_id": "cd" * 32,
                "slot": 1,
                "host": "2001:db8::7",
                "port": 4433,
                "bytes_sent": 1_000_000,
                "bytes_received": 2_000_000,
                "sent_bytes_per_s": 1000.0,
                "received_bytes_per_s": 2000.0,
            }
        ],
        "configuration": to_plain(Settings()),
        "configuration_changes": {},
    }


class AdminStandIn:
    """``document`` is the answer of ``/status``, to be changed at will; ``points`` those of ``/history``."""

    def __init__(self) -> None:
        self.document_to_tell = calm_document()
        self.points: list[tuple[float, ...]] = [tuple(float(second) for _ in COLUMNS) for second in range(1, 40)]
        self.url = ""

    def unhealthy(self) -> str | None:
        """Never."""
        return None

    def document(self) -> dict[str, object]:
        """What the test says."""
        return self.document_to_tell

    def history(self, after_s: float) -> dict[str, object]:
        """The points the test says."""
        points = [point for point in self.points if point[0] > after_s]
        document: dict[str, object] = {"interval_s": 1.0, "kept_s": 300.0}
        return document | {name: [point[index] for point in points] for index, name in enumerate(COLUMNS)}

    def metrics(self) -> bytes:
        """An empty page."""
        return b""

    def peer(self, peer_id: bytes) -> list[dict[str, object]]:
        """Nobody is connected."""
        return []

    def nat_mapping(self, peer_id: bytes) -> str:
        """Nothing is known."""
        return "unknown"


@contextmanager
def admin_stand_in() -> Iterator[AdminStandIn]:
    """Serve a stand-in on a free port of 127.0.0.1, from a thread, during the ``with`` block."""
    node = AdminStandIn()
    ready, loop = threading.Event(), asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve(sock: socket.socket) -> None:
        server = AdminServer(node)
        await server.start(sock)
        ready.set()
        await stop.wait()
        await server.stop()

    with socket.create_server(("127.0.0.1", 0)) as sock:
        sock.setblocking(False)
        node.url = f"http://127.0.0.1:{sock.getsockname()[1]}"
        thread = threading.Thread(target=lambda: loop.run_until_complete(serve(sock)), name="admin stand-in")
        thread.start()
        try:
            assert ready.wait(START_TIMEOUT_S), "the stand-in does not serve"
            yield node
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join(START_TIMEOUT_S)
            loop.close()
