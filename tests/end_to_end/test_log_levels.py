"""Log levels of a running node: file, environment, flags and by hand, in supervisor, workers and their successors."""

import contextlib
import json
import os
import signal
import socket
import stat
from pathlib import Path
from typing import Any

import pytest

from support.control import command, control_answer
from support.load import connect_peers, run_clients, wait_healthy
from support.node import Node, StartNode
from support.waiting import wait_for_value, wait_until

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow]

PATIENCE_S = 20.0


def lines(node: Node, event: str) -> list[dict[str, Any]]:
    """Return the lines of one event in the node's log."""
    found = [json.loads(line) for line in node.log().splitlines() if line.startswith("{")]
    return [line for line in found if line["event"] == event]


def connect_once(node: Node) -> None:
    """Connect a peer and let it leave: two lines of level debug in its worker."""

    async def story() -> None:
        for peer in await connect_peers(node, 1):
            peer.leave()

    run_clients(story(), timeout_s=60)


def test_levels_change_in_every_process_and_in_those_to_come(start_node: StartNode) -> None:
    """By hand, without a restart: the worker that replaces a killed one has them, too, and reset takes them back."""
    node = start_node(workers=1, arguments=["--log-level", "warning", "--log-level", "workers.endpoint=info"])
    connect_once(node)
    shown = control_answer(node, "log", "set", "workers.endpoint=debug", "supervisor=debug")
    assert shown["changed"] == {"level": None, "modules": {"supervisor": "debug", "workers.endpoint": "debug"}}
    assert shown["configured"] == {"level": "warning", "modules": {"workers.endpoint": "info"}}
    connect_once(node)
    first = wait_until(lambda: lines(node, "connection established"), timeout_s=PATIENCE_S, what="debug line")
    (pid,) = node.worker_pids
    assert {line["pid"] for line in first} == {pid}

    os.kill(pid, signal.SIGKILL)
    wait_healthy(node, besides=[pid])
    connect_once(node)
    (successor,) = node.worker_pids
    wait_until(
        lambda: any(line["pid"] == successor for line in lines(node, "connection established")),
        timeout_s=PATIENCE_S,
        what="debug line of the successor",
    )
    # The supervisor's own level had changed before that.
    assert lines(node, "worker ready")

    mistake = command(node, "log", "set", "net=debug", "workers.relais=debug")
    assert (mistake.returncode, mistake.stdout) == (2, "")
    assert mistake.stderr == (
        "antquic-server: error: control socket: log.workers.relais = 'debug': expected a module that exists "
        "(did you mean workers.relay?)\n"
    )
    assert "net" not in control_answer(node, "log", "show")["modules"], "half of a mistake was applied"

    control_answer(node, "log", "reset")
    before = len(lines(node, "connection established"))
    connect_once(node)
    assert len(lines(node, "connection established")) == before


def test_file_environment_flags_and_overrides_in_this_order(
    start_node: StartNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each adds modules to those before it; on SIGHUP the file counts again, below what was changed by hand."""
    path = tmp_path / "node.toml"
    path.write_text('[log]\nlevel = "error"\nmodules = { net = "error", ipc = "error", stats = "error" }\n')
    monkeypatch.setenv("ANTQUIC_LOG", "warning,ipc=debug,stats=debug")
    node = start_node(arguments=["--config", str(path), "--log-level", "stats=info"])

    def holds() -> tuple[str, dict[str, str]]:
        shown = control_answer(node, "log", "show")
        return shown["level"], shown["modules"]

    assert holds() == ("warning", {"net": "error", "ipc": "debug", "stats": "info"})
    control_answer(node, "log", "set", "supervisor=info")
    path.write_text('[log]\nlevel = "error"\nmodules = { net = "info", quic = "warning" }\n')
    os.kill(node.pid, signal.SIGHUP)
    expected = {"net": "info", "quic": "warning", "ipc": "debug", "stats": "info", "supervisor": "info"}
    wait_until(lambda: holds() == ("warning", expected), timeout_s=PATIENCE_S, what="levels of the file")
    (line,) = lines(node, "configuration reloaded")
    assert (line["changed"], line["needs_restart"]) == (["log.modules"], [])


def test_control_socket_is_the_owners_alone_and_goes_with_the_node(start_node: StartNode, tmp_path: Path) -> None:
    """Mode 0600, shown in /status, removed at the end; one that was left over is taken away at the next start."""
    path = tmp_path / "control.sock"
    (tmp_path / "first").mkdir()
    killed = Node(tmp_path / "first", ["--workers", "1", "--set", f'admin.control="{path}"'])
    killed.kill()
    assert path.exists()

    node = start_node(settings=[f'admin.control="{path}"'])
    assert node.status()["control"] == str(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_ISSOCK(path.stat().st_mode)
    assert control_answer(node, "log", "show")["level"] == "info"
    assert node.stop() == 0
    assert not path.exists()


def test_flood_of_garbage_at_debug_does_not_fill_the_log(start_node: StartNode) -> None:
    """Ten thousand malformed datagrams and forty handshakes, everything at debug: a bounded log, and nothing lost."""
    node = start_node(
        workers=1,
        arguments=["--log-level", "debug,quic=debug"],
        settings=[
            "log.repeat_burst=5",
            "log.repeat_window_s=1",
            "limits.handshakes_per_address_per_s=1000000.0",
            "limits.handshakes_per_prefix_per_s=1000000.0",
        ],
    )
    size_before = len(node.log())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("127.0.0.1", node.port))
        for number in range(10_000):
            head = bytes((number % 256,)) + (bytes((0, 0, 0, 1, 8)) if number % 10 == 0 else b"") + os.urandom(20)
            with contextlib.suppress(OSError):
                sock.send(head.ljust(1200 if number % 10 == 0 else 40, b"\0"))
    wait_until(lambda: node.total("antquic_drops_total") > 1000, timeout_s=PATIENCE_S, what="drops")

    async def story() -> None:
        for peer in await connect_peers(node, 40):
            peer.leave()

    run_clients(story(), timeout_s=60)

    def told() -> int:
        return sum(line.get("repeated", 1) for line in lines(node, "connection established"))

    wait_for_value(told, 40, timeout_s=PATIENCE_S, what="every connection, written or summed up")
    assert any("repeated" in line for line in lines(node, "connection established"))
    assert len(node.log()) - size_before < 300_000
