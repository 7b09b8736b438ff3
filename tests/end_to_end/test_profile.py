"""
Profiles of a worker under real load: the pictures name the functions that the documentation does, and the worker lives.

"Lives" means that the same process serves the same generation of its slot afterwards, that its clients have lost
nothing, and that nothing is left of the profiler in it.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from antquic_server.profiling.frames import heaviest, stacks_of_flamegraph
from antquic_server.profiling.target import is_stopped
from support.node import REPOSITORY, Node, node_environment, running_node
from support.profiled import AMONG_THE_HEAVIEST, NodeLoad, documented_frames, echo_load, handshake_load
from support.require import require
from support.waiting import hold_for, wait_until

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow]

PATIENCE_S = 60.0
LEAST_SHARE = 0.02
"""Of the worker's time: half of what the documentation says of the lightest function that it names."""

NO_LIMITS = (
    "limits.handshakes_per_address_per_s=1000000.0",
    "limits.handshakes_per_prefix_per_s=1000000.0",
    'limits.retry="off"',
)


@pytest.fixture
def profilers(root: None) -> None:
    """The programs and packages that profiles are made with."""
    bin_directory = Path(sys.executable).parent
    require((bin_directory / "py-spy").exists(), "py-spy is missing: pip install 'antquic-server[profile]'")


@pytest.fixture
def gdb(profilers: None) -> None:
    """The debugger that brings memray into a worker."""
    pytest.importorskip("memray")
    require(any((Path(place) / "gdb").exists() for place in os.get_exec_path()), "gdb is missing: apt-get install gdb")


@pytest.fixture(scope="module")
def busy_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node with one worker, as fast as a user's; whatever is done to it, it is the same at the end."""
    with running_node(tmp_path_factory.mktemp("node"), echo=True, settings=NO_LIMITS, traced=False) as node:
        before = Unharmed(node)
        yield node
        before.check()


class Unharmed:
    """A context manager: the node's worker is the same after the block as before, and goes on serving."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.before = self._worker()

    def __enter__(self) -> "Unharmed":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.check()

    def check(self) -> None:
        """Now."""
        assert self._worker() == self.before, self.node.log()[-3000:]
        hold_for(lambda: not is_stopped(self.before[0]), duration_s=0.5, what="running worker")
        assert self.node.healthy()

    def _worker(self) -> tuple[int, int, int]:
        (worker,) = self.node.status()["workers"]
        return worker["pid"], worker["generation"], worker["restarts"]


def profile(node: Node, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``antquic-server profile`` to its end."""
    command = [sys.executable, "-m", "antquic_server", "profile", *arguments, "--admin", node.admin]
    return subprocess.run(
        command, env=node_environment(), cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False
    )


def tracked(pid: int) -> list[str]:
    """What is left of memory profiles in a process: files it has open, and directories of theirs."""
    names = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            names.append(str(link.readlink()))
    return [name for name in names if "antquic-memory-" in name]


def files_in(directory: Path) -> list[str]:
    """The names of what is there."""
    return sorted(item.name for item in directory.iterdir())


@pytest.mark.parametrize("load", [echo_load, handshake_load], ids=["echo", "handshake"])
def test_flame_graph_of_a_loaded_worker_has_the_documented_frames(
    load: Callable[[Node], NodeLoad], busy_node: Node, profilers: None, tmp_path: Path
) -> None:
    """Each function that docs/profiling.md names for this load is among the heaviest of the SVG that was written."""
    expected = documented_frames(load.__name__)
    assert len(expected) >= 3
    path = tmp_path / "cpu.svg"
    with load(busy_node) as running, Unharmed(busy_node):
        done = profile(busy_node, "cpu", "--seconds", "5", "--output", str(path))
        assert done.returncode == 0, done.stderr
        assert running.going_on()

    svg = path.read_text(encoding="utf-8")
    assert svg.startswith("<?xml")
    stacks = stacks_of_flamegraph(svg)
    shares = {
        frame.name.partition(" (")[0]: frame.total_share for frame in heaviest(stacks, AMONG_THE_HEAVIEST, total=True)
    }
    assert {name: shares.get(name) for name in expected if shares.get(name, 0.0) < LEAST_SHARE} == {}
    # A narrow terminal cuts the file off.
    assert heaviest(stacks, 1)[0].name.partition(" (")[0] in done.stdout
    assert files_in(tmp_path) == ["cpu.svg"]


@pytest.mark.parametrize(("form", "suffix"), [("speedscope", "json"), ("raw", "txt")])
def test_other_forms_and_exact_samples(
    form: str, suffix: str, busy_node: Node, profilers: None, tmp_path: Path
) -> None:
    """Held for each sample, the worker still answers its supervisor."""
    path = tmp_path / f"cpu.{suffix}"
    with echo_load(busy_node) as running, Unharmed(busy_node):
        done = profile(busy_node, "cpu", "--seconds", "2", "--format", form, "--exact", "--output", str(path))
        assert done.returncode == 0, done.stderr
        assert running.going_on()
    assert "Endpoint._flush_one" in path.read_text(encoding="utf-8")


def test_memory_of_a_loaded_worker(busy_node: Node, gdb: None, tmp_path: Path) -> None:
    """A page that stands alone, with the functions that allocate; the tracking is over and its files are gone."""
    path = tmp_path / "memory.html"
    pid = busy_node.worker_pids[0]
    with echo_load(busy_node) as running, Unharmed(busy_node):
        done = profile(busy_node, "memory", "--seconds", "3", "--output", str(path))
        assert done.returncode == 0, done.stderr
        assert running.going_on()
        assert tracked(pid) == []

    html = path.read_text(encoding="utf-8")
    assert "_flush_one" in html
    assert "datagrams_to_send" in html
    assert not re.search(r"<script[^>]*src=|<link[^>]*href=\"http", html)
    assert "(aioquic/quic/" in done.stdout
    assert float(re.search(r"stood still for (\d+) ms", done.stdout)[1]) < 1100  # type: ignore[index]


Interrupt = Callable[[str, signal.Signals], tuple[int, str]]


@pytest.fixture
def interrupted(busy_node: Node, gdb: None, tmp_path: Path) -> Iterator[Interrupt]:
    """Begin a long profile and end it with a signal once it has begun; returns exit code and standard error."""
    processes = []

    def act(kind: str, number: signal.Signals) -> tuple[int, str]:
        command = [
            sys.executable,
            "-m",
            "antquic_server",
            "profile",
            kind,
            "--seconds",
            "60",
            "--admin",
            busy_node.admin,
        ]
        process = subprocess.Popen(
            [*command, "--output", str(tmp_path / "never")],
            env=node_environment(),
            cwd=REPOSITORY,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        pid = busy_node.worker_pids[0]
        if kind == "memory":
            wait_until(lambda: tracked(pid), timeout_s=PATIENCE_S, what="tracking")
        else:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
            wait_until(children.read_text, timeout_s=PATIENCE_S, what="py-spy")
            time.sleep(0.5)
        process.send_signal(number)
        return process.wait(PATIENCE_S), process.communicate()[1]

    yield act
    for process in processes:
        if process.poll() is None:
            process.kill()
            process.wait()


@pytest.mark.parametrize(
    ("kind", "number"),
    [("cpu", signal.SIGINT), ("memory", signal.SIGINT), ("memory", signal.SIGKILL)],
)
def test_interrupted_profile_leaves_nothing_behind(
    kind: str, number: signal.Signals, busy_node: Node, tmp_path: Path, interrupted: Interrupt
) -> None:
    """Ctrl-C, or worse: the worker runs on, untracked, and there is no file."""
    pid = busy_node.worker_pids[0]
    with echo_load(busy_node) as running, Unharmed(busy_node):
        exit_code, said = interrupted(kind, number)
        assert exit_code == (130 if number is signal.SIGINT else -signal.SIGKILL)
        assert said == ""
        wait_until(lambda: not tracked(pid), timeout_s=PATIENCE_S, what="end of the tracking")
        assert running.going_on()
    assert files_in(tmp_path) == []


def test_idle_worker_has_no_profile(busy_node: Node, profilers: None, tmp_path: Path) -> None:
    """One line says why; memray on an idle worker waits for its next heartbeat and works."""
    done = profile(busy_node, "cpu", "--seconds", "1", "--rate", "5", "--output", str(tmp_path / "cpu.svg"))
    assert done.returncode in (0, 1)
    if done.returncode:
        assert done.stderr.count("\n") == 1
        assert "did nothing all the time" in done.stderr
        assert files_in(tmp_path) == []
