"""Names of namespaces, and the refusal to touch those of others."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from antquic_server.natlab import namespaces
from antquic_server.natlab.namespaces import (
    LabError,
    LabUnavailableError,
    NamespaceName,
    Tools,
    find_tools,
    in_namespace,
    leftovers,
    own_run,
    remove,
    run_tool,
)

NO_TOOLS = Tools(ip="/nonexistent/ip", nft="/nonexistent/nft")


def own_name(role: str = "a") -> NamespaceName:
    """Return a name of this process that no namespace has."""
    pid, started_ticks = own_run()
    return NamespaceName(pid=pid, started_ticks=started_ticks, number=999_999, role=role)


def name_of_a_dead_process() -> NamespaceName:
    """Return a name whose process has ended."""
    process = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], stdout=subprocess.PIPE, check=True
    )
    return replace(own_name(), pid=int(process.stdout), started_ticks=1)


def test_names_can_be_read_back() -> None:
    """What was composed is found again in its parts, and belongs to this process."""
    name = own_name()

    assert NamespaceName.parse(str(name)) == name
    assert name.is_own
    assert not name.is_orphan


@pytest.mark.parametrize(
    "text",
    ["", "antlab", "antlab-1-2-3", "xantlab-1-2-3-a", "antlab-1-2-3-a ", "antlab-1-2-3-a/..", "antlab-0-2-3-a", "vpn0"],
)
def test_other_names_are_none_of_ours(text: str) -> None:
    """A name of any other form is nobody's."""
    assert NamespaceName.parse(text) is None


def test_a_process_id_used_again_does_not_hide_a_leftover() -> None:
    """The same process id with another start time is another process."""
    older = replace(own_name(), started_ticks=1)

    assert not older.is_own
    assert older.is_orphan
    assert name_of_a_dead_process().is_orphan


def test_the_namespaces_of_a_living_run_are_refused() -> None:
    """Neither removing nor entering works with what belongs to another process that is alive; no program is run."""
    parent = os.getppid()
    other = replace(own_name(), pid=parent, started_ticks=namespaces._started_ticks(parent) or 0)

    with pytest.raises(LabError, match=f"process {parent}, which is alive"):
        remove([own_name(), other], NO_TOOLS)
    with pytest.raises(LabError, match="not a namespace of this process"):
        in_namespace(other, lambda: None)


def test_removing_what_is_gone_is_harmless() -> None:
    """Names without a namespace are passed over without running a program."""
    remove([own_name(), name_of_a_dead_process()], NO_TOOLS)


def test_entering_what_is_gone_is_an_error() -> None:
    """A namespace that does not exist is named in the error."""
    with pytest.raises(LabError, match="no namespace antlab"):
        in_namespace(own_name(), lambda: None)


def test_leftovers_are_only_those_of_dead_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Foreign names and those of living processes are left out."""
    dead = name_of_a_dead_process()
    monkeypatch.setattr(namespaces, "NAMESPACES", tmp_path)
    for entry in (str(dead), str(own_name()), "vpn0", "antlab-x"):
        (tmp_path / entry).touch()

    assert leftovers() == [dead]


def test_no_directory_of_namespaces_means_no_leftovers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that never had a namespace has no leftovers."""
    monkeypatch.setattr(namespaces, "NAMESPACES", Path("/nonexistent"))

    assert leftovers() == []


def test_missing_programs_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The line says which program is missing and which package has it; the exit code is 3."""
    monkeypatch.setattr(namespaces, "_find_program", lambda name: None if name == "nft" else f"/sbin/{name}")

    with pytest.raises(LabUnavailableError, match=r"nft \(package nftables\)") as caught:
        find_tools()
    assert caught.value.exit_code == 3


def test_missing_rights_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the capabilities the line says which are needed."""
    monkeypatch.setattr(namespaces, "_find_program", lambda name: f"/sbin/{name}")
    monkeypatch.setattr(namespaces, "_may_make_namespaces", lambda: False)

    with pytest.raises(LabUnavailableError, match="needs root, or CAP_NET_ADMIN and CAP_SYS_ADMIN"):
        find_tools()


def test_a_failing_program_is_quoted() -> None:
    """The error has the command and its first complaint; a missing program is an error of ours as well."""
    script = "import sys; sys.stderr.write('\\nno such thing\\nmore\\n'); sys.exit(1)"

    with pytest.raises(LabError, match=r"failed: no such thing$"):
        run_tool([sys.executable, "-c", script])
    with pytest.raises(LabError, match="/nonexistent/ip failed"):
        run_tool([NO_TOOLS.ip])
    assert run_tool([sys.executable, "-c", "print(input())"], stdin="text\n") == "text\n"
