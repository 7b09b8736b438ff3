"""Reading a machine: what cannot be read is a reason, never another error."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from antquic_server.doctor import machine as module
from antquic_server.doctor.machine import Machine
from antquic_server.errors import CannotTellError


@pytest.fixture
def tree(tmp_path: Path) -> Machine:
    """A machine whose files are in an empty directory."""
    return Machine(root=tmp_path)


def test_files_are_read_below_the_root(tree: Machine, tmp_path: Path) -> None:
    """Text, numbers, sysctls and directories."""
    (tmp_path / "proc/sys/net").mkdir(parents=True)
    (tmp_path / "proc/sys/net/limit").write_text(" 42\n")

    assert tree.read("/proc/sys/net/limit") == " 42\n"
    assert tree.number("/proc/sys/net/limit") == 42
    assert tree.sysctl("net.limit") == 42
    assert tree.names("/proc/sys") == ["net"]
    assert tree.exists("/proc/sys/net/limit")
    assert not tree.exists("/proc/sys/net/other")


def test_what_cannot_be_read_is_a_reason(tree: Machine, tmp_path: Path) -> None:
    """Missing, a directory, or no number."""
    (tmp_path / "text").write_text("many\n")

    for read in (tree.read, tree.number, tree.names):
        with pytest.raises(CannotTellError, match="/none: No such file or directory"):
            read("/none")
    with pytest.raises(CannotTellError, match="Is a directory"):
        tree.read("/")
    with pytest.raises(CannotTellError, match="expected a number, found 'many'"):
        tree.number("/text")


def test_an_endless_file_is_read_up_to_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """A path of /proc or of the configuration may lead anywhere."""
    monkeypatch.setattr(module, "MAX_FILE_BYTES", 4 * module.READ_BYTES)

    assert len(Machine().read("/dev/zero")) == 4 * module.READ_BYTES


def test_facts_of_files_are_told(tree: Machine, tmp_path: Path) -> None:
    """None for a file that is not there, which is no error."""
    (tmp_path / "key").write_text("x")
    (tmp_path / "key").chmod(0o640)

    facts = tree.facts_of("/key")
    assert facts is not None
    assert (facts.mode, facts.uid) == (0o640, os.geteuid())
    assert tree.facts_of("/none") is None
    with pytest.raises(CannotTellError, match="Not a directory"):
        tree.facts_of("/key/inside")


def test_programs_are_run(tmp_path: Path) -> None:
    """Found in PATH; without one that is missing or fails."""
    program = tmp_path / "answer"
    program.write_text("#!/bin/sh\n[ $# = 0 ] || { echo 'no such option' >&2; exit 3; }\necho 42\n")
    program.chmod(0o755)
    machine = Machine(environment={"PATH": f"{tmp_path}:/usr/bin:/bin"})

    assert machine.run("answer") == "42\n"
    with pytest.raises(CannotTellError, match="answer: no such option"):
        machine.run("answer", "--bad")
    with pytest.raises(CannotTellError, match="nonsuch: not installed"):
        machine.run("nonsuch")


def test_a_program_that_does_not_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """One check less."""
    monkeypatch.setattr(module, "_COMMAND_TIMEOUT_S", 0.05)

    with pytest.raises(CannotTellError, match=r"sleep: no answer within 0\.05 s"):
        Machine().run("sleep", "60")


def test_ports_in_use_are_told_with_their_process() -> None:
    """Our own are always to be seen."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]

        assert Machine().udp_ports()[port] == os.getpid()
    assert f"(process {os.getpid()})" in Machine().process_name(os.getpid())
    assert Machine().process_name(2**22 + 1) == f"process {2**22 + 1}"


def test_this_machine_has_processors_memory_and_a_clock() -> None:
    """Plausible values, from the real thing."""
    machine = Machine()

    assert 1 <= len(machine.affinity()) <= max(machine.cpu_count(), 4096)
    assert machine.memory_bytes() > 1 << 26
    assert machine.descriptor_limits()[0] > 16
    assert machine.now_s() > 1.7e9
    machine.wait(0)
    assert machine.is_root == (os.geteuid() == 0)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="there is no affinity here")
def test_the_affinity_of_another_process_is_told() -> None:
    """While it runs, whoever asks."""
    last = max(os.sched_getaffinity(0))
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        os.sched_setaffinity(child.pid, {last})
        assert Machine().affinity(child.pid) == (last,)
        assert Machine().affinity() == tuple(sorted(os.sched_getaffinity(0)))
        child.kill()
    with pytest.raises(CannotTellError, match=f"the CPUs of process {child.pid}: No such process"):
        Machine().affinity(child.pid)


def test_the_interpreter_is_this_one() -> None:
    """As the tests run: a release build without switches, unless somebody tests with them."""
    interpreter = Machine().interpreter()

    assert interpreter.version == sys.version.split()[0]
    assert interpreter.dev_mode == sys.flags.dev_mode
    assert interpreter.optimize == sys.flags.optimize


def test_missing_uvloop_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """None in its place makes the import fail."""
    monkeypatch.setitem(sys.modules, "uvloop", None)

    assert Machine().interpreter().uvloop is None
