"""The key log: Wireshark's own dissector reads the traffic with it, and there is none that nobody asked for."""

import os
import shutil
import stat
import struct
import subprocess
import threading
from pathlib import Path

import pytest

from antquic_server.bench.load_client import ClientSettings, random_node_key
from support.forwarder import UdpForwarder
from support.load import WatchedClient, client_pool, connect_peers, run_clients, until
from support.node import Node, StartNode
from support.require import require

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow]

TIMEOUT_S = 30.0
CLIENT_PORT, SERVER_PORT = 40000, 10000
"""Made up: the capture shows one flow, whatever ports the forwarder had."""

_RAW_IPV4 = 228
"""LINKTYPE_IPV4 of the capture format: packets begin with their IPv4 header."""


class Capture:
    """Datagrams as a forwarder sees them, written as a capture file."""

    def __init__(self) -> None:
        self._datagrams: list[tuple[bool, bytes]] = []
        self._lock = threading.Lock()

    def __call__(self, to_server: bool, data: bytes) -> None:
        """Note one datagram."""
        with self._lock:
            self._datagrams.append((to_server, data))

    def write(self, path: Path) -> None:
        """Write what there is; times are made up."""
        with path.open("wb") as file:
            file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, _RAW_IPV4))
            for number, (to_server, data) in enumerate(self._datagrams):
                packet = _ip_packet(to_server, data)
                file.write(struct.pack("<IIII", 1 + number // 1000, number % 1000 * 1000, len(packet), len(packet)))
                file.write(packet)


def _ip_packet(to_server: bool, data: bytes) -> bytes:
    ends = (bytes((192, 0, 2, 1)), CLIENT_PORT), (bytes((192, 0, 2, 2)), SERVER_PORT)
    (source, source_port), (target, target_port) = ends if to_server else ends[::-1]
    udp = struct.pack(">HHHH", source_port, target_port, 8 + len(data), 0) + data
    return struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0) + source + target + udp


def _tshark(capture: Path, keys: Path, field: str) -> list[str]:
    program = shutil.which("tshark")
    require(program, "tshark is not installed")
    done = subprocess.run(
        [
            *(str(program), "-r", str(capture), "-o", f"tls.keylog_file:{keys}", "-d", f"udp.port=={SERVER_PORT},quic"),
            *("-T", "fields", "-e", field, "-E", "occurrence=a"),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env={**os.environ, "HOME": str(capture.parent)},
    )
    return [word for line in done.stdout.splitlines() for word in line.replace(",", " ").split()]


def _converse(node: Node, capture: Path, text: bytes) -> None:
    tap = Capture()

    async def story(port: int) -> None:
        client = WatchedClient(workers=1)
        settings = ClientSettings(pqc=client_pool(), node_key=random_node_key(client_pool()), server_name="peer")
        connection = client.connect("127.0.0.1", port, settings)
        await connection.wait_connected(TIMEOUT_S)
        # Wireshark stops at a frame that it does not know: let those of address discovery pass first.
        assert await connection.echo(b"first", TIMEOUT_S) == b"first"
        assert await connection.echo(text, TIMEOUT_S) == text
        connection.close()
        client.close()

    with UdpForwarder(("127.0.0.1", node.port), tap=tap) as forwarder:
        run_clients(story(forwarder.port), timeout_s=60)
    tap.write(capture)


def test_wireshark_reads_the_traffic_with_the_key_log_and_not_without(start_node: StartNode, tmp_path: Path) -> None:
    """Frames of 1-RTT packets and the echoed text show, both ways; without the file there is nothing to be seen."""
    keys, capture = tmp_path / "keys.log", tmp_path / "capture.pcap"
    require(shutil.which("tshark"), "tshark is not installed")
    text = b"for the eyes of the operator only"
    node = start_node(echo=True, arguments=["--keylog", str(keys)])
    _converse(node, capture, text)

    assert stat.S_IMODE(keys.stat().st_mode) == 0o600
    labels = [line.split()[0] for line in keys.read_text().splitlines()]
    assert sorted(set(labels)) == [
        "CLIENT_HANDSHAKE_TRAFFIC_SECRET",
        "CLIENT_TRAFFIC_SECRET_0",
        "SERVER_HANDSHAKE_TRAFFIC_SECRET",
        "SERVER_TRAFFIC_SECRET_0",
    ]
    streams = _tshark(capture, keys, "quic.stream_data")
    assert streams.count(text.hex()) == 2
    assert {"6", "8"} & {str(int(kind, 0)) for kind in _tshark(capture, keys, "quic.frame_type")}
    nothing = tmp_path / "empty.log"
    nothing.touch()
    assert _tshark(capture, nothing, "quic.stream_data") == []


def test_lines_of_all_workers_are_whole_and_the_node_says_that_it_writes_them(
    start_node: StartNode, tmp_path: Path
) -> None:
    """Two workers append to one file: every line has its three parts, four lines for each connection. Loudly."""
    keys = tmp_path / "keys.log"
    node = start_node(workers=2, arguments=["--keylog", str(keys)])

    assert '"level": "warning"' in next(line for line in node.log().splitlines() if "TLS SECRETS ARE WRITTEN" in line)
    assert node.status()["keylog"] == str(keys)

    async def story() -> None:
        peers = await connect_peers(node, 24)
        # The last line of a connection comes with the client's Finished, after the client thinks it is connected.
        await until(lambda: keys.read_text().count("\n") >= 4 * 24, timeout_s=TIMEOUT_S, what="all lines")
        for peer in peers:
            peer.leave()

    run_clients(story(), timeout_s=60)
    lines = [line.split(" ") for line in keys.read_text().splitlines()]
    assert len(lines) == 4 * 24
    assert all(len(label) > 20 and len(random) == 64 and len(secret) in (64, 96) for label, random, secret in lines)


def test_environment_alone_makes_no_key_log(
    start_node: StartNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SSLKEYLOGFILE may have been set for a browser, long ago."""
    keys = tmp_path / "keys.log"
    monkeypatch.setenv("SSLKEYLOGFILE", str(keys))
    node = start_node()

    async def story() -> None:
        for peer in await connect_peers(node, 1):
            peer.leave()

    run_clients(story(), timeout_s=60)
    assert not keys.exists()
    assert node.status()["keylog"] is None
