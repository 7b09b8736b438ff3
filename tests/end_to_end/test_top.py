"""
``top`` in a real terminal, before a node under real load: its figures move, and they are those of the load.

The terminal is a pseudo terminal of the kernel; what the program writes to it is cut at every frame and stripped of its
control sequences, which is what somebody would see.
"""

import asyncio
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from support.load import UNLIMITED_RATES, LoadPeer, peers_of, run_clients
from support.node import REPOSITORY, Node, StartNode, node_environment, running_node
from support.waiting import wait_until

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow]

FRAME_START = b"\x1b[H"
CONTROL = re.compile(rb"\x1b\[[0-9;?]*[a-zA-Z]|\r")
PATIENCE_S = 30.0
PAYLOAD_BYTES = 100_000
RATE = re.compile(r"([\d.,]+) (B|kB|MB|GB)/s")
UNITS = {"B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9}


class Screen:
    """``antquic-server top`` in a pseudo terminal, ended at the end of the block."""

    def __init__(
        self, *arguments: str, columns: int = 120, lines: int = 40, environment: dict[str, str] | None = None
    ) -> None:
        self.master, slave = pty.openpty()
        self.resize(columns, lines)
        command = [sys.executable, "-m", "antquic_server", "top", *arguments]
        kept = {
            name: value for name, value in node_environment().items() if name not in ("NO_COLOR", "COLUMNS", "LINES")
        }
        self.process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=kept | {"TERM": "xterm-256color", "PYTHONUTF8": "1", **(environment or {})},
            cwd=REPOSITORY,
            start_new_session=True,
        )
        os.close(slave)
        self.output = b""

    def __enter__(self) -> "Screen":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.master)

    def resize(self, columns: int, lines: int) -> None:
        """Give the window another size, as a terminal program does."""
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def press(self, keys: bytes) -> None:
        """Press keys."""
        os.write(self.master, keys)

    def read(self) -> None:
        """Take in what has been written by now."""
        while select.select([self.master], [], [], 0.0)[0]:
            try:
                data = os.read(self.master, 65536)
            except OSError:
                return
            if not data:
                return
            self.output += data

    def frame(self) -> str:
        """What is to be seen: the last frame that is whole."""
        self.read()
        frames = self.output.split(FRAME_START)
        whole = frames[-1] if self.process.poll() is not None or len(frames) < 3 else frames[-2]
        return CONTROL.sub(b"", whole).decode(errors="replace")

    def wait(self, condition: Callable[[str], object], what: str) -> str:
        """Return the first frame that fulfils a condition."""
        seen = [""]

        def look() -> bool:
            assert self.process.poll() is None, self.frame()
            seen[0] = self.frame()
            return bool(condition(seen[0]))

        try:
            wait_until(look, timeout_s=PATIENCE_S, what=what)
        except AssertionError:
            raise AssertionError(f"no {what}; last frame:\n{seen[0]}") from None
        return seen[0]

    def end(self) -> int:
        """Return the exit code of a program that is about to end."""

        def ended() -> bool:
            self.read()
            return self.process.poll() is not None

        wait_until(ended, timeout_s=PATIENCE_S, what="end")
        self.read()
        return self.process.returncode


class Load:
    """Peers that echo without a pause, on a thread of its own; a context manager."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: run_clients(self._run(), timeout_s=120.0))
        self.peers: list[LoadPeer] = []
        self.sent_bytes = 0

    def __enter__(self) -> "Load":
        self._thread.start()
        wait_until(lambda: self.sent_bytes, timeout_s=PATIENCE_S, what="load")
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    async def _run(self) -> None:
        async with peers_of(self._node, 2) as peers:
            self.peers = peers
            await asyncio.gather(*map(self._echo, peers, (PAYLOAD_BYTES, PAYLOAD_BYTES // 10)))

    async def _echo(self, peer: LoadPeer, size: int) -> None:
        data = os.urandom(size)
        while not self._stop.is_set():
            assert await peer.connection.echo(data, 20.0) == data
            self.sent_bytes = sum(each.client.traffic["bytes_sent"] for each in self.peers)
            # Far from what the machine can do, so that it is the same rate for a while.
            await asyncio.sleep(0.1)


def rates(line: str) -> list[float]:
    """All rates of a line, in bytes per second."""
    return [float(value.replace(",", "")) * UNITS[unit] for value, unit in RATE.findall(line)]


def line_of(frame: str, start: str) -> str:
    """The line of a frame that begins so; empty if there is none."""
    return next((line for line in frame.splitlines() if line.startswith(start)), "")


def received_rate(frame: str) -> float:
    """What the frame says the node receives, bytes per second; 0 while it does not know."""
    return sum(rates(line_of(frame, "received"))[:1])


def test_figures_are_those_of_the_load(start_node: StartNode) -> None:
    """Throughput within what the clients have really sent, and both of them among the talkers, the busier first."""
    node = start_node(workers=2, echo=True, settings=UNLIMITED_RATES)
    with Load(node) as load, Screen("--admin", node.admin, "--interval", "0.5") as screen:
        screen.wait(lambda frame: received_rate(frame) > 0, "throughput")
        screen.wait(lambda frame: all(peer.peer_id[:15] in frame for peer in load.peers), "talkers")
        began_s, began_bytes = time.monotonic(), load.sent_bytes
        seen: list[float] = []

        def collect(frame: str) -> bool:
            rate = received_rate(frame)
            if not seen or rate != seen[-1]:
                seen.append(rate)
            return len(seen) >= 9

        frame = screen.wait(collect, "nine different figures")
        sent_per_s = (load.sent_bytes - began_bytes) / (time.monotonic() - began_s)
        assert sum(seen) / len(seen) == pytest.approx(sent_per_s, rel=0.4)
        talkers = frame.partition("TOP TALKERS")[2].splitlines()[2:4]
        assert [line[:15] for line in talkers] == [peer.peer_id[:15] for peer in load.peers]
        assert rates(talkers[0])[0] > 2 * rates(talkers[1])[0]
        assert "▁" in line_of(frame, "received") or "█" in line_of(frame, "received")
        assert len(re.findall(r"\d ready ", frame.replace("  ", " "))) == 2
        screen.press(b"q")
        assert screen.end() == 0


def test_keys_resize_and_the_end_of_the_terminal_mode(start_node: StartNode) -> None:
    """Sorted, paused and resized while it runs; at the end the screen is as it was."""
    node = start_node(workers=1)
    with Screen("--admin", node.admin, "--interval", "0.3") as screen:
        screen.wait(lambda frame: "WORKERS  by slot" in frame and "PID" in frame, "first frame")
        screen.press(b"w")
        screen.wait(lambda frame: "WORKERS  by cpu" in frame, "other order")
        screen.press(b"\x1b[A")
        screen.wait(lambda frame: "WORKERS  by slot" in frame, "order of before")
        screen.press(b"p")
        screen.wait(lambda frame: "PAUSED" in frame, "pause")
        screen.press(b" ")
        screen.wait(lambda frame: "PAUSED" not in frame, "end of the pause")
        screen.resize(45, 16)
        os.kill(screen.process.pid, signal.SIGWINCH)
        narrow = screen.wait(lambda frame: "WORKERS" in frame and "PID" not in frame, "narrow frame")
        assert max(map(len, narrow.splitlines())) <= 45
        assert len(narrow.splitlines()) <= 16
        screen.press(b"q")
        assert screen.end() == 0
        # Back to the screen of before, with its cursor.
        assert b"\x1b[?1049h" in screen.output
        assert screen.output.rindex(b"\x1b[?1049l") > screen.output.rindex(b"\x1b[?1049h")
        assert screen.output.rindex(b"\x1b[?25h") > screen.output.rindex(b"\x1b[?25l")


def test_node_that_goes_away_is_waited_for(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Said to be away, with its last figures, and shown again when it is back at the same address."""
    with (
        running_node(tmp_path_factory.mktemp("first")) as node,
        Screen("--admin", node.admin, "--interval", "0.3") as screen,
    ):
        screen.wait(lambda frame: "serving" in frame and "ready" in frame, "first frame")
        address = node.admin.removeprefix("http://")
        assert node.stop() == 0
        away = screen.wait(lambda frame: "not answering" in frame, "node away")
        assert "Connection refused" in away
        assert "WORKERS" in away
        arguments = ["--admin", address]
        with running_node(tmp_path_factory.mktemp("second"), arguments=arguments) as again:
            assert again.admin == node.admin
            screen.wait(lambda frame: again.peer_id[:12] in frame and "not answering" not in frame, "node back")
            os.kill(screen.process.pid, signal.SIGINT)
            assert screen.end() == 130


def test_no_color_means_no_colour(start_node: StartNode) -> None:
    """Bold and faint are no colours; without the variable there are some."""
    node = start_node(workers=1)
    coloured = re.compile(rb"\x1b\[[0-9;]*3[0-9]m|\x1b\[[0-9;]*38;")
    for environment, expected in (({"NO_COLOR": "1"}, False), ({}, True)):
        with Screen("--admin", node.admin, "--interval", "0.3", environment=environment) as screen:
            screen.wait(lambda frame: "ready" in frame, "frame")
            assert bool(coloured.search(screen.output)) is expected, environment


def test_redirected_output_is_one_plain_frame(start_node: StartNode, tmp_path: Path) -> None:
    """As for a file or a pipe: nothing to be cleaned up."""
    node = start_node(workers=1)
    path = tmp_path / "frame.txt"
    command = [sys.executable, "-m", "antquic_server", "top", "--admin", node.admin, "--interval", "0.3"]
    with path.open("wb") as file:
        subprocess.run(command, stdout=file, env=node_environment(), cwd=REPOSITORY, check=True, timeout=60)
    text = path.read_text(encoding="utf-8")
    assert "\x1b" not in text
    assert text.startswith("antquic-server")
    assert f"  {node.status()['workers'][0]['pid']}  ready" in text
