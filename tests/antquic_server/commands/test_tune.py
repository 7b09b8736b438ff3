"""``tune``: its arguments, what it prints and its exit codes, on a directory that stands for a system."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from antquic_server import cli
from antquic_server.tuning import actions, effects
from antquic_server.tuning.effects import Effects, Kept
from antquic_server.tuning.kernel import Kernel
from antquic_server.tuning.recordfile import RECORD_FILE
from support.tuned_system import STOCK, key_file, make_system, snapshot


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small and old machine; no configuration comes from the environment."""
    monkeypatch.delenv("ANTQUIC_CONFIG", raising=False)
    return make_system(tmp_path / "system")


def tune(*words: object) -> int:
    """Run the command; returns its exit code."""
    return cli.main(["tune", *map(str, words)])


def test_check_apply_check_revert(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """1 while something is to do, 0 once it is done, and everything as before in the end."""
    before = snapshot(root)

    assert tune("check", "--root", root) == 1
    assert "antquic-server tune apply (as root)" in capsys.readouterr().out
    assert tune("apply", "--root", root) == 0
    assert tune("check", "--root", root) == 0
    capsys.readouterr()
    assert tune("apply", "--root", root) == 0
    assert "nothing to change: every setting is as wanted" in capsys.readouterr().out
    assert tune("revert", "--root", root) == 0
    assert snapshot(root) == before
    capsys.readouterr()
    assert tune("revert", "--root", root) == 0
    assert capsys.readouterr().out == "nothing to revert: nothing is recorded\n"


def test_only_the_topics_by_default_are_applied(root: Path) -> None:
    """Busy polling costs processor time: only who names it gets it."""
    tune("apply", "--root", root)
    assert key_file(root, "net.core.busy_poll").read_text() == "0\n"
    tune("apply", "--root", root, "--topic", "busy-polling")
    assert key_file(root, "net.core.busy_poll").read_text() == "50\n"


def test_the_ports_of_a_configuration_are_reserved(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From --config, and from the environment like every other command."""
    file = tmp_path / "node.toml"
    file.write_text('[endpoint]\nlisten = ["0.0.0.0:4433"]\n[relay]\nport_range = [50000, 50999]\n')
    reserved = key_file(root, "net.ipv4.ip_local_reserved_ports")

    assert tune("apply", "--root", root, "--topic", "ports", "--config", file) == 0
    assert reserved.read_text() == "4433,50000-50999\n"
    assert tune("revert", "--root", root) == 0
    assert reserved.read_text() == "\n"
    monkeypatch.setenv("ANTQUIC_CONFIG", str(file))
    assert tune("apply", "--root", root, "--topic", "ports") == 0
    assert reserved.read_text() == "4433,50000-50999\n"


def test_json_has_one_object(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With all that the table has."""
    assert tune("check", "--root", root, "--json") == 1
    content = json.loads(capsys.readouterr().out)

    assert content["good"] is False
    assert content["changed"] is False
    assert {one["verdict"] for one in content["settings"]} == {"to do"}


def test_a_dry_run_changes_nothing(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And is no failure."""
    before = snapshot(root)

    assert tune("apply", "--root", root, "--dry-run") == 0
    assert "would set" in capsys.readouterr().out
    assert snapshot(root) == before


def test_what_was_changed_since_is_kept_without_force(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The exit code is 1, and the table says so."""
    tune("apply", "--root", root)
    key_file(root, "net.core.rmem_max").write_text("67108864\n")
    capsys.readouterr()

    assert tune("revert", "--root", root) == 1
    assert "changed by somebody since it was set to 26214400; --force restores it" in capsys.readouterr().out
    assert tune("revert", "--root", root, "--force") == 0
    assert not (root / RECORD_FILE).exists()


def test_the_list_needs_no_system(capsys: pytest.CaptureFixture[str]) -> None:
    """All topics, or those that are named."""
    assert tune("list") == 0
    assert "busy-polling: Busy polling" in capsys.readouterr().out
    assert tune("list", "--topic", "ports") == 0
    assert "busy-polling" not in capsys.readouterr().out
    assert tune("list", "--json", "--topic", "conntrack") == 0
    (topic,) = json.loads(capsys.readouterr().out)["topics"]
    assert topic["settings"][2]["rule"] == "range 20 60"


def test_measuring_prints_both_tables(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """For people or programs."""
    kept = Kept(asked_bytes=0, granted_bytes=1, kept=2, sent=3)
    found = Effects(buffers=(kept,), ports=10, ports_in_range=4, relay_ports=(1, 2))
    monkeypatch.setattr(effects, "measure_effects", lambda: found)

    assert tune("measure") == 0
    assert "4 (40 %) got one of 1-2" in capsys.readouterr().out
    assert tune("measure", "--json") == 0
    assert json.loads(capsys.readouterr().out)["ports_in_range"] == 4


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["tidy"], "command line: tune = 'tidy': expected one of check, apply, revert, list, measure"),
        (["revert", "--config", "x"], "command line: --config = 'revert': expected use with check or apply"),
        (["list", "--root", "/x"], "command line: --root = 'list': expected use with check or apply or revert"),
        (["check", "--force"], "command line: --force = 'check': expected use with revert"),
        (["check", "--dry-run"], "command line: --dry-run = 'check': expected use with apply or revert"),
        (
            ["measure", "--topic", "x"],
            "command line: --topic = 'measure': expected use with check or apply or revert or list",
        ),
        (
            ["check", "--root", "/nowhere"],
            "command line: --root = '/nowhere': expected a directory with proc/sys in it",
        ),
        (
            ["check", "--topic", "buffer"],
            "command line: --topic = 'buffer': expected one of backlog, buffers, conntrack, files, ports, busy-",
        ),
        (["check", "--config", "/nowhere.toml"], "command line: --config = '/nowhere.toml': expected a readable file"),
        ([], "command line: the following arguments are required"),
    ],
)
def test_a_mistake_is_one_line(words: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, what was given and what was expected."""
    assert tune(*words) == 2
    error = capsys.readouterr().err

    assert error.startswith(f"antquic-server: error: {line}")
    assert error.count("\n") == 1


def test_without_root_the_machine_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line, exit code 3."""

    def refuse(*arguments: object) -> None:
        pytest.fail("the machine of the tests would have been changed")

    monkeypatch.setattr(Kernel, "write", refuse)
    monkeypatch.setattr(actions, "make_directories", refuse)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    assert tune("apply") == 3
    assert "run it as root; --dry-run needs no rights" in capsys.readouterr().err


def test_other_platforms_have_their_script(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Which is started with the action; its exit code is ours."""
    started: list[list[str]] = []

    def run(command: list[str], *, check: bool) -> subprocess.CompletedProcess[str]:
        started.append(command)
        return subprocess.CompletedProcess(command, 1)

    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(subprocess, "run", run)
    assert tune("apply", "--dry-run") == 1
    assert started[0][-2:] == ["apply", "--dry-run"]
    assert tune("check", "--json") == 2
    assert "no options but --dry-run and --force here" in capsys.readouterr().err


@pytest.mark.parametrize(("platform", "key"), [("darwin", "kern.ipc.maxsockbuf"), ("win32", "DefaultSendWindow")])
def test_other_platforms_have_their_list(
    platform: str, key: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of what their script sets."""
    monkeypatch.setattr(sys, "platform", platform)

    assert tune("list") == 0
    assert f"  {key} = 8388608" in capsys.readouterr().out


def test_a_script_that_cannot_be_started_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As on a Windows without PowerShell."""

    def run(command: list[str], *, check: bool) -> None:
        raise FileNotFoundError(2, "ignored")

    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(subprocess, "run", run)
    assert tune("check") == 3
    assert "cannot run powershell.exe: No such file or directory" in capsys.readouterr().err


def test_every_stock_value_is_one_of_the_catalogue() -> None:
    """The stand-in has no key that nothing is said about."""
    assert len(STOCK) == 23
