"""What is looked at before a process is profiled: is it there, is it Python, may we."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from antquic_server.errors import ConfigurationError, ProfileError, ProfilerUnavailableError
from antquic_server.profiling import target
from antquic_server.profiling.target import check_rights, check_target, is_stopped, module_or_fail, program_or_fail
from support.waiting import wait_until


@pytest.fixture
def ended() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A program that is not Python."""
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def test_this_process_is_fine() -> None:
    """It is there, it is Python, and it may look at itself."""
    check_target(os.getpid())


def test_process_that_has_ended_cannot_be_profiled(ended: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks."""
    with pytest.raises(ProfileError, match="there is no such process"):
        check_target(ended)
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(ProfileError, match="there is no such process"):
        check_rights(ended)
    assert not is_stopped(ended)


def test_another_program_is_a_mistake(sleeper: subprocess.Popen[bytes]) -> None:
    """A number that was mistyped."""
    wait_until(
        lambda: b"sleep" in Path(f"/proc/{sleeper.pid}/cmdline").read_bytes(), timeout_s=10.0, what="other program"
    )
    with pytest.raises(ConfigurationError, match="expected the process id of a worker"):
        check_target(sleeper.pid)


def test_root_may_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """At everybody."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    check_rights(1)


def test_other_peoples_processes_need_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """The owner is named."""
    monkeypatch.setattr(os, "geteuid", lambda: 4_000_000)
    with pytest.raises(ProfilerUnavailableError, match=r"belongs to user \S+: run this as root"):
        check_rights(1)


@pytest.mark.parametrize(("scope", "allowed"), [("0\n", True), ("1\n", False), (None, True)])
def test_kernel_may_forbid_ones_own(
    scope: str | None, allowed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By kernel.yama.ptrace_scope, where it has that."""
    path = tmp_path / "ptrace_scope"
    if scope is not None:
        path.write_text(scope)
    monkeypatch.setattr(target, "PTRACE_SCOPE", path)
    # As another user than root, but the owner of the process.
    monkeypatch.setattr(os, "geteuid", lambda: 4_000_000)
    monkeypatch.setattr(Path, "stat", lambda *_, **__: os.stat_result((0, 0, 0, 0, 4_000_000, 0, 0, 0, 0, 0)))
    if allowed:
        check_rights(os.getpid())
    else:
        with pytest.raises(ProfilerUnavailableError, match="ptrace_scope is 1"):
            check_rights(os.getpid())


def test_programs_of_the_own_environment_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then those of the path; a missing one is named with how to get it."""
    program = tmp_path / "made-up"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert program_or_fail("made-up", "buy it") == str(program)
    assert program_or_fail(Path(sys.executable).name, "").startswith(str(Path(sys.executable).parent))
    with pytest.raises(ProfilerUnavailableError, match="the program nowhere is missing: buy it"):
        program_or_fail("nowhere", "buy it")


def test_missing_package_says_how_to_get_it() -> None:
    """With the extra that has it."""
    module_or_fail("json")
    with pytest.raises(ProfilerUnavailableError, match=r"no_such_package is missing: pip install 'antquic-server\["):
        module_or_fail("no_such_package")
