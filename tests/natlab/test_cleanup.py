"""A lab leaves nothing behind, however it ends, and touches nothing that is not its own."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from antquic_server import cli
from antquic_server.natlab.lab import Lab
from antquic_server.natlab.namespaces import LabError, NamespaceName, find_tools, in_namespace, run_tool
from support.node import node_environment

pytestmark = [pytest.mark.end_to_end, pytest.mark.usefixtures("_lab_is_possible")]

NAMESPACES = Path("/run/netns")
DEADLINE_S = 10.0
IMPATIENCE_S = 60.0
PREFACE = """
import signal, sys, time
# Whoever runs the tests in the background may have these ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
"""

SCRIPT = (
    PREFACE
    + """
from antquic_server.natlab.lab import Lab
from antquic_server.natlab.model import Nat
with Lab() as lab:
    lab.carrier("A", Nat())
    sleeper = lab.popen("a", ["sleep", "600"])
    print(sleeper.pid, flush=True)
    {body}
"""
)


def names_of(pid: int) -> list[str]:
    """Return the namespaces of the labs of a process."""
    names = [NamespaceName.parse(path.name) for path in NAMESPACES.iterdir()] if NAMESPACES.exists() else []
    return [str(name) for name in names if name is not None and name.pid == pid]


def is_alive(pid: int) -> bool:
    """Whether a process exists and is not merely waiting to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until_dead(pid: int) -> None:
    """Wait for the end of a process that is not a child of this one."""
    deadline_s = time.monotonic() + DEADLINE_S
    while is_alive(pid) and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert not is_alive(pid)


def send_until_it_ends(process: "subprocess.Popen[str]", number: signal.Signals, *, pause_s: float) -> None:
    """Be impatient."""
    deadline_s = time.monotonic() + IMPATIENCE_S
    while process.poll() is None:
        assert time.monotonic() < deadline_s, "it does not end"
        process.send_signal(number)
        time.sleep(pause_s)


class LabProcess:
    """A process with a lab, which waits in ``body``; ``sleeper_pid`` runs inside the lab."""

    def __init__(self, body: str = "time.sleep(600)") -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT.format(body=body)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            # Coverage would take SIGTERM for itself, and a lab respects a handler that is there before it.
            env=node_environment(traced=False),
            text=True,
        )
        assert self.process.stdout is not None
        self.sleeper_pid = int(self.process.stdout.readline())

    def close(self) -> None:
        """Kill what is left of it."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


@pytest.fixture
def lab_process() -> Iterator[LabProcess]:
    """Return a process with a lab; whatever it leaves behind is removed."""
    running = LabProcess()
    yield running
    running.close()
    cli.main(["natlab", "clean"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_removes_everything(lab_process: LabProcess, number: signal.Signals) -> None:
    """Ctrl-C, SIGTERM and SIGHUP take the namespaces and the processes in them away."""
    pid = lab_process.process.pid
    assert len(names_of(pid)) == 8

    lab_process.process.send_signal(number)

    assert lab_process.process.wait(DEADLINE_S) != 0
    assert names_of(pid) == []
    assert not is_alive(lab_process.sleeper_pid)


MATRIX = (
    PREFACE
    + """
from antquic_server.natlab.matrix import all_cells, run_matrix
from antquic_server.natlab.model import KINDS

def trial(lab, cell):
    sleeper = lab.popen("a", ["sleep", "600"])
    sys.stdout.write(f"{sleeper.pid}\\n")
    sys.stdout.flush()
    sleeper.wait()
    lab.popen("a", ["sleep", "600"])
    raise AssertionError("a program could be started in a lab that is closed")

list(run_matrix(all_cells([KINDS["cgnat"], KINDS["full-cone"]]), trial,
                prediction=True, at_once=3))
"""
)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_all_meetings_that_go_on(number: signal.Signals) -> None:
    """Each has a lab, and threads wait for its programs; impatience makes no difference."""
    environment = {name: value for name, value in node_environment().items() if not name.startswith("COVERAGE_")}
    process = subprocess.Popen(
        [sys.executable, "-c", MATRIX], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, text=True
    )
    try:
        assert process.stdout is not None
        sleepers = [int(process.stdout.readline()) for _ in range(3)]
        assert len(names_of(process.pid)) >= 3 * 7

        send_until_it_ends(process, number, pause_s=0.05)
        assert names_of(process.pid) == []
        for sleeper in sleepers:
            wait_until_dead(sleeper)
    finally:
        process.kill()
        process.communicate()
        cli.main(["natlab", "clean"])


def test_labs_that_overlap_put_the_handlers_back_with_the_last() -> None:
    """Whichever was opened first: until the last is closed, a signal must unwind."""
    found = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        first, second = Lab(), Lab()
        first.__enter__()
        second.__enter__()
        first.close()
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        second.close()
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, found)


def test_an_impatient_second_signal_does_not_interrupt_the_removal(lab_process: LabProcess) -> None:
    """However often Ctrl-C is pressed, the namespaces go."""
    process = lab_process.process
    send_until_it_ends(process, signal.SIGINT, pause_s=0.001)

    assert names_of(process.pid) == []


def test_an_exception_removes_everything() -> None:
    """An error in the block passes through and leaves nothing."""
    sleepers = []

    def fail_inside() -> None:
        with Lab() as lab:
            sleepers.append(lab.popen("b", ["sleep", "600"]))
            assert names_of(os.getpid()) != []
            raise LabError("in the middle")

    with pytest.raises(LabError, match="in the middle"):
        fail_inside()
    assert names_of(os.getpid()) == []
    assert sleepers[0].returncode == -signal.SIGTERM


def test_a_half_built_lab_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the kernel refuses something halfway, what was made before goes too."""

    def refuse(*_arguments: object, **_options: object) -> str:
        raise LabError("refused")

    monkeypatch.setattr("antquic_server.natlab.lab.nat_rules", refuse)
    with pytest.raises(LabError, match="refused"):
        Lab().__enter__()

    assert names_of(os.getpid()) == []


def test_signal_handlers_are_put_back() -> None:
    """After the lab SIGTERM does what it did before."""
    found = signal.signal(signal.SIGTERM, signal.SIG_DFL)  # under coverage that is a handler of coverage's
    try:
        with Lab():
            assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, found)


def test_clean_removes_what_a_killed_run_left(lab_process: LabProcess, capsys: pytest.CaptureFixture[str]) -> None:
    """After SIGKILL the namespaces stay and their process runs on; clean ends both."""
    pid = lab_process.process.pid
    lab_process.process.kill()
    lab_process.process.wait()
    left = names_of(pid)
    assert len(left) == 8

    assert cli.main(["natlab", "clean"]) == 0

    assert set(left) <= {line.removeprefix("removed ") for line in capsys.readouterr().out.splitlines()}
    assert names_of(pid) == []
    wait_until_dead(lab_process.sleeper_pid)


def test_clean_leaves_the_living_and_strangers_alone(lab_process: LabProcess) -> None:
    """The namespaces of a run that is alive, and those with other names, stay."""
    tools = find_tools()
    foreign = f"not-antlab-{os.getpid()}"
    run_tool([tools.ip, "netns", "add", foreign])
    try:
        assert cli.main(["natlab", "clean"]) == 0

        assert (NAMESPACES / foreign).exists()
        assert len(names_of(lab_process.process.pid)) == 8
        assert is_alive(lab_process.sleeper_pid)
    finally:
        run_tool([tools.ip, "netns", "del", foreign])


def test_the_lab_of_another_process_cannot_be_entered(lab_process: LabProcess) -> None:
    """A name alone opens no door."""
    name = NamespaceName.parse(names_of(lab_process.process.pid)[0])
    assert name is not None

    with pytest.raises(LabError, match="not a namespace of this process"):
        in_namespace(name, lambda: None)


def test_nothing_is_added_to_the_machine_itself() -> None:
    """Neither interfaces, routes, rules nor settings of the machine's own namespace change."""

    def state() -> list[str]:
        tools = find_tools()
        shown = [
            run_tool([tools.ip, "-o", "link"]),
            run_tool([tools.ip, "route"]),
            run_tool([tools.nft, "list tables"]),
        ]
        return [*shown, Path("/proc/sys/net/ipv4/ip_forward").read_text()]

    before = state()
    with Lab(ipv6=True) as lab:
        during = state()
        lab.run("a", ["true"])

    assert during == before == state()


def test_labs_can_stand_side_by_side() -> None:
    """Two labs of one process have the same addresses and do not see each other."""
    with Lab() as one, Lab() as two:
        server_one, server_two = (lab.udp_socket("node", ("198.18.0.1", 5000)) for lab in (one, two))
        one.udp_socket("a").sendto(b"hello", server_one.getsockname())
        server_one.settimeout(2.0)
        server_two.setblocking(False)

        assert server_one.recv(16) == b"hello"
        with pytest.raises(BlockingIOError):
            server_two.recv(16)
