"""End-to-end tests of the supervisor: a process of its own with fake workers, killed, frozen and told to stop."""

import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from antquic_server.supervisor.history import COLUMNS
from support.fake_node import FakeNode
from support.fake_worker import UNWANTED_LINE
from support.waiting import wait_until

pytestmark = pytest.mark.end_to_end

FAST = ("endpoint.heartbeat_interval_s=0.05", "endpoint.heartbeat_timeout_s=1.0")

PATIENCE_S = 20.0
"""For what takes a moment, and on a machine that does other things as well a few seconds."""


def received(node: FakeNode) -> float:
    """The counter that every fake worker drives up."""
    value: float = node.status()["totals"].get("datagrams_received", 0)
    return value


def test_ready_line_is_the_only_line_on_stdout() -> None:
    """It comes when every slot is served, and whatever a worker prints goes to stderr."""
    with FakeNode() as node:
        facts = node.ready
        assert facts["event"] == "ready"
        assert facts["workers"] == 2
        assert facts["pqc_provider"] == "fake"
        assert len(bytes.fromhex(facts["peer_id"])) == 32
        assert facts.keys() == {"event", "listen", "peer_id", "workers", "pqc_provider", "admin"}
        assert node.ask("/healthz") == (200, "ok\n")
        status = node.status()
        assert status["node"]["listen"] == facts["listen"]
        assert [row["slot"] for row in status["workers"]] == [0, 1]
        wait_until(lambda: node.status()["spares"], timeout_s=PATIENCE_S, what="spare")
        node.signal(signal.SIGTERM)
        assert node.wait() == 0

    assert len(node.output) == 1
    assert UNWANTED_LINE in node.errors


def test_killed_worker_is_replaced_by_the_spare_and_counters_do_not_go_back() -> None:
    """The slot is served again within a moment, by a process that was there already."""
    with FakeNode(FAST) as node:
        spare = wait_until(
            lambda: [each["pid"] for each in node.status()["spares"] if each["state"] == "spare"],
            timeout_s=PATIENCE_S,
            what="spare",
        )[0]
        victim, other = node.worker_pids()
        wait_until(lambda: received(node) > 50, timeout_s=PATIENCE_S, what="counting")
        before = received(node)
        os.kill(victim, signal.SIGKILL)
        replaced = node.wait_for_slots(2, besides=[victim], timeout_s=2)

        assert replaced == [spare, other]
        assert received(node) >= before - 1e-9
        row = node.status()["workers"][0]
        assert (row["generation"], row["restarts"]) == (2, 1)
        assert node.status()["totals"]["worker_restarts|crashed"] == 1
        assert node.ask("/peers/" + "00" * 32)[0] == 200


def test_history_grows_while_the_node_runs() -> None:
    """A point a second, with the rate of what the workers count; the rest can be asked for later."""
    with FakeNode(FAST) as node:

        def history(query: str = "") -> dict[str, Any]:
            document: dict[str, Any] = json.loads(node.ask(f"/history{query}")[1])
            return document

        wait_until(lambda: len(history()["t_s"]) >= 3, timeout_s=PATIENCE_S, what="points")
        first = history()
        assert {len(first[name]) for name in COLUMNS} == {len(first["t_s"])}
        assert first["t_s"] == sorted(first["t_s"])
        last_s = first["t_s"][-1]
        wait_until(lambda: history(f"?after={last_s}")["t_s"], timeout_s=PATIENCE_S, what="later points")
        assert min(history(f"?after={last_s}")["t_s"]) > last_s
        assert node.ask("/history?after=x")[0] == 400


def test_totals_never_decrease_under_repeated_kills() -> None:
    """Both workers die again and again while somebody watches the counter; their slots back off and return."""
    with FakeNode(FAST) as node:
        last = 0.0
        victims: list[int] = []
        for round_number in range(4):
            victims = node.wait_for_slots(2)
            for victim in victims:
                os.kill(victim, signal.SIGKILL)
            deadline_s = time.monotonic() + 0.3
            while time.monotonic() < deadline_s:
                now = received(node)
                assert now >= last, f"round {round_number}"
                last = now
        node.wait_for_slots(2, besides=victims)
        wait_until(lambda: received(node) > last, timeout_s=PATIENCE_S, what="more counting")


def test_frozen_worker_is_replaced() -> None:
    """A worker that does not even notice SIGKILL's politer cousins is seen by its silence."""
    with FakeNode(FAST) as node:
        frozen, other = node.wait_for_slots(2)
        os.kill(frozen, signal.SIGSTOP)
        replaced = node.wait_for_slots(2, besides=[frozen], timeout_s=PATIENCE_S)

        assert replaced[1] == other
        assert node.status()["totals"]["worker_restarts|frozen"] == 1
        with pytest.raises(ProcessLookupError):
            os.kill(frozen, 0)


def test_stalled_supervisor_does_not_kill_its_workers() -> None:
    """After SIGSTOP and SIGCONT of the supervisor, the same workers serve on."""
    with FakeNode(FAST) as node:
        before = node.wait_for_slots(2)
        node.signal(signal.SIGSTOP)
        time.sleep(2.0)  # twice the heartbeat timeout: the stall itself is what is tested
        node.signal(signal.SIGCONT)
        counted = received(node)
        wait_until(lambda: received(node) > counted + 20, timeout_s=PATIENCE_S, what="counting")

        assert node.worker_pids() == before
        assert node.status()["totals"]["worker_restarts|frozen"] == 0


def test_node_without_spares_replaces_workers_too() -> None:
    """The slot waits for the start of a process, no longer."""
    with FakeNode((*FAST, "endpoint.standby_workers=0")) as node:
        victim, other = node.wait_for_slots(2)
        assert node.status()["spares"] == []
        os.kill(victim, signal.SIGKILL)

        assert node.wait_for_slots(2, besides=[victim], timeout_s=PATIENCE_S)[1] == other


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_signal_drains_within_the_deadline(number: signal.Signals) -> None:
    """Exit code 0, no worker left."""
    with FakeNode(("endpoint.shutdown_deadline_s=3",)) as node:
        pids = node.wait_for_slots(2)
        started_s = time.monotonic()
        node.signal(number)
        assert node.wait() == 0
        assert time.monotonic() - started_s < 3
        for pid in pids:
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)


def test_workers_that_ignore_the_drain_are_killed_in_time() -> None:
    """The deadline holds whatever the workers do."""
    with FakeNode(("endpoint.shutdown_deadline_s=8",), mode="ignore-drain") as node:
        frozen, _ = node.wait_for_slots(2)
        os.kill(frozen, signal.SIGSTOP)
        started_s = time.monotonic()
        node.signal(signal.SIGTERM)
        wait_until(lambda: "draining" in "".join(node.errors), timeout_s=PATIENCE_S, what="drain")
        assert node.wait() == 0
        assert 8 / 2 < time.monotonic() - started_s < 8


def test_second_stop_signal_kills_at_once() -> None:
    """An operator in a hurry does not wait for the deadline."""
    with FakeNode(("endpoint.shutdown_deadline_s=60",), mode="ignore-drain") as node:
        node.wait_for_slots(2)
        node.signal(signal.SIGTERM)
        wait_until(lambda: "draining" in "".join(node.errors), timeout_s=PATIENCE_S, what="drain")
        assert node.ask("/healthz") == (503, "draining\n")
        node.signal(signal.SIGTERM)
        assert node.wait() == 1


def test_second_node_on_the_same_port_is_refused_in_one_line() -> None:
    """The first one keeps serving."""
    with FakeNode() as node:
        address = node.ready["listen"][0]
        with FakeNode((f"endpoint.listen=['{address}']",)) as second:
            assert second.wait() == 3
        assert second.output == []
        assert len(second.errors) == 1
        assert address in second.errors[0]
        assert node.ask("/healthz")[0] == 200


def test_taken_admin_port_is_refused_in_one_line() -> None:
    """The error names the admin address."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with FakeNode((f"admin.listen='{address}'",)) as node:
            assert node.wait() == 3

    assert len(node.errors) == 1
    assert address in node.errors[0]


@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        ("exit-3", "worker ended before it was ready (exit code 3)"),
        ("boot-failed", "the fake provider is missing"),
        ("wrong-version", "version 9999"),
    ],
)
def test_workers_that_cannot_boot_stop_the_node_with_the_reason(mode: str, reason: str) -> None:
    """One line, exit code 3, nothing on stdout, no restart."""
    with FakeNode(mode=mode) as node:
        assert node.wait() == 3

    assert node.output == []
    lines = [line for line in node.errors if line != UNWANTED_LINE and "serving as root" not in line]
    assert len(lines) == 1
    assert reason in lines[0]


def test_workers_that_crash_at_start_stop_the_node_after_some_attempts() -> None:
    """A broken installation is reported, not restarted for ever."""
    with FakeNode(mode="crash-at-start") as node:
        assert node.wait(20) == 3

    assert node.output == []
    assert node.errors[-1] == "error: worker ended before it was ready (exit code 1)\n"


def test_workers_that_die_young_are_restarted_ever_more_slowly() -> None:
    """The node says ready once, and stays reachable for its operator while its workers keep dying."""
    with FakeNode(FAST, mode="die-young") as node:
        assert node.ready["workers"] == 2
        wait_until(
            lambda: node.status()["totals"]["worker_restarts|crashed"] >= 4, timeout_s=PATIENCE_S, what="restarts"
        )
        waits = [json.loads(line)["wait_s"] for line in node.errors if '"worker lost"' in line]
        assert waits[:4] == [0.0, 0.1, 0.2, 0.4]
        assert len(node.output) == 1


def test_worker_that_talks_nonsense_is_replaced() -> None:
    """One mad worker does not take the hub with it."""
    with FakeNode(FAST, mode="speak-nonsense") as node:
        assert node.ready["workers"] == 2
        wait_until(
            lambda: node.status()["totals"]["worker_restarts|protocol"] >= 2, timeout_s=PATIENCE_S, what="restarts"
        )


def test_workers_leave_when_the_supervisor_is_killed() -> None:
    """Nobody keeps the sockets of a node that is gone."""
    with FakeNode() as node:
        pids = node.wait_for_slots(2)
        address = node.ready["listen"][0]
        node.process.kill()
        node.wait()

    def gone() -> bool:
        return not any(Path(f"/proc/{pid}").exists() for pid in pids)

    wait_until(gone, timeout_s=PATIENCE_S, what="end of the workers")
    with FakeNode((f"endpoint.listen=['{address}']",)) as successor:
        assert successor.ready["listen"] == [address]


@contextmanager
def configured(tmp_path: Path, text: str, mode: str = "relay") -> Iterator[tuple[FakeNode, Path]]:
    """A node with a configuration file, serving."""
    path = tmp_path / "node.toml"
    path.write_text(text)
    with FakeNode(FAST, mode=mode, environment={"ANTQUIC_CONFIG": str(path)}) as node:
        node.wait_for_slots(2)
        yield node, path


def relay(node: FakeNode) -> dict[str, Any]:
    """What the node says of its relay."""
    document: dict[str, Any] = node.status()["relay"]
    return document


def said(node: FakeNode, words: str) -> list[str]:
    """Lines of the log with these words."""
    return [line for line in node.errors if words in line]


def test_limits_change_while_the_node_runs(tmp_path: Path) -> None:
    """SIGHUP: sessions beyond the new limit end, workers are told, one line says what changed and what did not."""
    with configured(tmp_path, "[relay]\nmax_sessions = 50\n") as (node, path):
        before = node.worker_pids()
        wait_until(lambda: relay(node)["sessions"]["stream"] == 2, timeout_s=5, what="sessions")
        assert relay(node)["limits"]["max_sessions"] == 50
        path.write_text("[relay]\nmax_sessions = 1\nmax_sessions_per_peer = 1\nport_range = [50000, 50009]\n")
        node.signal(signal.SIGHUP)
        wait_until(lambda: relay(node)["sessions"]["stream"] == 1, timeout_s=5, what="session to end")
        (line,) = wait_until(lambda: said(node, "configuration reloaded"), timeout_s=5, what="log line")
        wait_until(lambda: node.status()["totals"].get("messages_echoed") == 2, timeout_s=5, what="workers to hear")

        assert relay(node)["limits"]["max_sessions"] == 1
        assert relay(node)["limits"]["port_range"] == [49152, 65535]
        configuration, changes = (node.status()[part] for part in ("configuration", "configuration_changes"))
        assert configuration["relay"]["max_sessions"] == 1
        assert changes["relay.max_sessions"] == 1000
        assert "relay.port_range" not in changes, "what waits for a restart is not in force"
        assert "relay.max_sessions" in line
        assert "relay.port_range" in line
        assert node.worker_pids() == before


def test_wrong_configuration_changes_nothing(tmp_path: Path) -> None:
    """The log says what is wrong, as the command line would, and the next right one counts."""
    with configured(tmp_path, "") as (node, path):
        path.write_text("[relay]\nmax_sessions = 7\nenabled = 3\n")
        node.signal(signal.SIGHUP)
        (line,) = wait_until(lambda: said(node, "configuration not reloaded"), timeout_s=5, what="log line")
        assert "relay.enabled" in line
        assert relay(node)["limits"]["max_sessions"] == 1000

        path.write_text("[relay]\nenabled = false\n")
        node.signal(signal.SIGHUP)
        wait_until(lambda: not relay(node)["enabled"], timeout_s=5, what="relay to be off")
        wait_until(lambda: relay(node)["sessions"]["peers"] == 0, timeout_s=5, what="sessions to end")
        assert node.ask("/healthz") == (200, "ok\n")


def test_used_up_quota_ends_sessions_and_is_seen(tmp_path: Path) -> None:
    """Bytes that workers report count, and what is refused later names the limit."""
    with configured(tmp_path, "[relay]\nmax_bytes = 100\n") as (node, _):
        wait_until(lambda: relay(node)["quota"]["used_bytes"] >= 100, timeout_s=5, what="bytes")
        wait_until(lambda: relay(node)["sessions"]["peers"] == 0, timeout_s=5, what="sessions to end")
        os.kill(node.worker_pids()[0], signal.SIGKILL)
        refused = {"stream": {"node_bytes": 1}, "channel": {}}
        wait_until(lambda: relay(node)["refusals"] == refused, timeout_s=10, what="refusal")


def test_node_that_drains_does_not_read_its_configuration(tmp_path: Path) -> None:
    """It is about to end."""
    with configured(tmp_path, "", mode="ignore-drain") as (node, _):
        node.signal(signal.SIGTERM)
        wait_until(lambda: said(node, "draining"), timeout_s=5, what="drain")
        node.signal(signal.SIGHUP)
        wait_until(lambda: said(node, "configuration not read again"), timeout_s=5, what="log line")


class Manager:
    """A service manager's socket: what the node has said to it, one list of lines for each datagram."""

    def __init__(self, path: Path) -> None:
        self.said: list[list[str]] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()

    def heard(self, first_line: str) -> list[list[str]]:
        """Return the messages that begin with this line, by now."""
        with suppress(BlockingIOError):
            while True:
                self.said.append(self._socket.recv(4096).decode().split("\n"))
        return [lines for lines in self.said if lines[0].startswith(first_line)]


@contextmanager
def managed(tmp_path: Path, *settings: str) -> Iterator[tuple[FakeNode, Manager]]:
    """A node that a service manager with a watchdog of 0.4 s has started, serving."""
    path = tmp_path / "notify"
    manager = Manager(path)
    environment = {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "400000", "ANTQUIC_CONFIG": str(tmp_path / "node.toml")}
    (tmp_path / "node.toml").write_text("")
    try:
        with FakeNode((*FAST, *settings), environment=environment) as node:
            node.wait_for_slots(2)
            yield node, manager
    finally:
        manager.close()


def test_service_manager_hears_ready_reload_and_stop(tmp_path: Path) -> None:
    """Once each, in order; ready not before the ready line's moment, and again after a reload."""
    with managed(tmp_path) as (node, manager):
        ((ready, status),) = wait_until(lambda: manager.heard("READY=1"), timeout_s=PATIENCE_S, what="ready")
        assert ready == "READY=1"
        assert status.startswith("STATUS=2 workers serve on 127.0.0.1:")
        node.signal(signal.SIGHUP)
        wait_until(lambda: len(manager.heard("READY=1")) == 2, timeout_s=PATIENCE_S, what="second ready")
        ((_, monotonic),) = manager.heard("RELOADING=1")
        assert 0 < int(monotonic.removeprefix("MONOTONIC_USEC=")) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        node.signal(signal.SIGTERM)
        assert node.wait() == 0
        (stopping,) = manager.heard("STOPPING=1")
        assert stopping[1:] == ["STATUS=draining", "EXTEND_TIMEOUT_USEC=5000000"]


def test_watchdog_is_fed_from_the_loop_only(tmp_path: Path) -> None:
    """While the loop turns, signs of life come; a supervisor that is frozen gives none."""
    with managed(tmp_path) as (node, manager):
        wait_until(lambda: len(manager.heard("WATCHDOG=1")) >= 3, timeout_s=PATIENCE_S, what="signs of life")
        node.signal(signal.SIGSTOP)
        wait_until(lambda: _state_of(node.process.pid) == "T", timeout_s=PATIENCE_S, what="the process to stand still")
        before = len(manager.heard("WATCHDOG=1"))
        time.sleep(1.2)  # three periods: long enough for six more
        assert len(manager.heard("WATCHDOG=1")) == before
        node.signal(signal.SIGCONT)
        wait_until(lambda: len(manager.heard("WATCHDOG=1")) > before, timeout_s=PATIENCE_S, what="signs of life again")


def test_service_manager_is_told_of_a_lost_worker(tmp_path: Path) -> None:
    """The status line changes, and changes back; workers know nothing of the manager."""
    # Without a spare the slot is vacant for as long as a process takes to start: more than one look.
    with managed(tmp_path, "endpoint.standby_workers=0") as (node, manager):
        victim = node.worker_pids()[0]
        assert b"NOTIFY_SOCKET" not in Path(f"/proc/{victim}/environ").read_bytes()
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: manager.heard("STATUS=no ready worker for slot 0"), timeout_s=PATIENCE_S, what="bad news")
        wait_until(lambda: manager.heard("STATUS=2 workers serve"), timeout_s=PATIENCE_S, what="good news")


def _state_of(pid: int) -> str:
    """Return the state letter of a process, as /proc has it."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
