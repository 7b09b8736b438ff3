"""``doctor``: what the command line does with findings; the checks have their own tests."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from antquic_server import cli
from antquic_server.commands import doctor
from antquic_server.config.model import AdminSettings, EndpointSettings, Settings, TlsSettings, to_plain
from antquic_server.doctor import examination
from antquic_server.doctor.case import Case
from antquic_server.doctor.examination import CHECKS
from antquic_server.doctor.finding import Finding, Verdict
from antquic_server.net.port_lock import PortLock

CHECK = "python-build"
NOBODY = ["--admin", "http://127.0.0.1:9"]


def _find(monkeypatch: pytest.MonkeyPatch, verdict: Verdict) -> list[Case]:
    """Have every check find this verdict; returns the list of what they were given."""
    cases: list[Case] = []

    def ask(check: object, case: Case) -> Finding:
        cases.append(case)
        return Finding(verdict=verdict, found="planted", fixes=("antquic-server tune apply",))

    monkeypatch.setattr(examination, "_ask", ask)
    return cases


@pytest.mark.parametrize(
    ("verdict", "plain", "strict"),
    [(Verdict.OK, 0, 0), (Verdict.NOTE, 0, 0), (Verdict.WARNING, 0, 1), (Verdict.FAULT, 1, 1)],
)
def test_the_exit_code_tells_the_worst(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], verdict: Verdict, plain: int, strict: int
) -> None:
    """Warnings count with --strict only."""
    _find(monkeypatch, verdict)

    assert cli.main(["doctor", CHECK]) == plain
    assert cli.main(["doctor", "--strict", CHECK]) == strict
    capsys.readouterr()
    assert cli.main(["doctor", "--json", "--strict", CHECK]) == strict
    printed = json.loads(capsys.readouterr().out)
    assert (printed["exit_code"], printed["checks"][0]["verdict"]) == (strict, verdict)


def test_findings_are_printed_as_a_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Without colours where no terminal shows them."""
    _find(monkeypatch, Verdict.WARNING)
    cli.main(["doctor"])

    printed = capsys.readouterr().out
    assert all(f" {name} " in printed for name in CHECKS)
    assert printed.endswith(f"no faults, {len(CHECKS)} warnings, 0 ok\n")
    assert "\x1b" not in printed


def test_a_terminal_shows_colours_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """NO_COLOR is respected."""
    _find(monkeypatch, Verdict.FAULT)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    cli.main(["doctor", CHECK])
    assert "\x1b[1;31m" in capsys.readouterr().out

    monkeypatch.setenv("NO_COLOR", "1")
    cli.main(["doctor", CHECK])
    assert "\x1b" not in capsys.readouterr().out


def test_checks_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """With what each looks at, and none is made."""
    assert cli.main(["doctor", "--list"]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(CHECKS)


def test_the_settings_reach_the_checks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the file and from --set, with the node key that they name."""
    path = tmp_path / "node.toml"
    path.write_text('[identity]\nfile = "/somewhere/node.pem"\n[endpoint]\nworkers = 3\n')
    cases = _find(monkeypatch, Verdict.OK)

    cli.main(["doctor", "--config", str(path), "--set", "mtu.max=1300", CHECK, *NOBODY])
    (case,) = cases
    assert (case.settings.endpoint.workers, case.settings.mtu.max) == (3, 1300)
    assert case.node_key == "/somewhere/node.pem"
    assert case.configuration_error is None
    assert case.status is None
    assert case.admin_given
    assert case.status_error.startswith("no node answers at http://127.0.0.1:9: ")


def test_a_node_that_answers_tells_its_settings(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where no file is named; --set counts more, and a file instead."""
    node = Settings(endpoint=EndpointSettings(workers=3, max_connections=77), admin=AdminSettings(listen="127.0.0.1:0"))
    answer = {"node": {}, "workers": [], "totals": {}, "directory": {}, "configuration": to_plain(node)}
    monkeypatch.setattr(doctor, "fetch_status", lambda host, port: answer)
    monkeypatch.delenv("ANTQUIC_CONFIG", raising=False)
    cases = _find(monkeypatch, Verdict.OK)
    path = tmp_path / "node.toml"
    path.write_text("[endpoint]\nworkers = 5\n")

    cli.main(["doctor", "--set", "endpoint.max_connections=78", CHECK, *NOBODY])
    cli.main(["doctor", "--config", str(path), CHECK, *NOBODY])
    monkeypatch.setenv("ANTQUIC_CONFIG", str(path))
    cli.main(["doctor", CHECK, *NOBODY])
    monkeypatch.delenv("ANTQUIC_CONFIG")
    del answer["configuration"]
    cli.main(["doctor", CHECK, *NOBODY])
    endpoints = [(case.settings.endpoint.workers, case.settings.endpoint.max_connections) for case in cases]
    assert endpoints == [(3, 78), (5, 4096), (5, 4096), (0, 4096)]
    assert [case.settings_told for case in cases] == [True, False, False, False]
    assert (cases[0].settings.admin.listen, cases[0].admin_port) == ("127.0.0.1:9", 9)


def test_settings_of_which_half_can_be_taken_over_are_no_mistake(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The node runs with them; a relative path begins where it was started, which is not here."""
    node = replace(Settings(), tls=TlsSettings(certificate="/etc/node.pem", private_key="node.key"))
    answer = {"node": {}, "workers": [], "totals": {}, "directory": {}, "configuration": to_plain(node)}
    monkeypatch.setattr(doctor, "fetch_status", lambda host, port: answer)
    monkeypatch.delenv("ANTQUIC_CONFIG", raising=False)
    cases = _find(monkeypatch, Verdict.OK)

    cli.main(["doctor", CHECK, *NOBODY])
    assert cases[0].configuration_error is None
    assert cases[0].settings.tls.certificate == "/etc/node.pem"


@pytest.mark.skipif(sys.platform != "linux", reason="the lock is of Linux")
def test_a_running_node_is_found_by_its_lock(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """However its address is written; here this test claims to be the node."""
    cases = _find(monkeypatch, Verdict.OK)
    lock = PortLock("[::1]:9")
    try:
        cli.main(["doctor", "--set", 'endpoint.listen=["127.0.0.1:9", "[0:0:0:0:0:0:0:1]:9"]', CHECK, *NOBODY])
    finally:
        lock.release()

    assert cases[0].node_pid == os.getpid()


def test_a_wrong_file_is_a_finding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And no reason to look at nothing else."""
    path = tmp_path / "node.toml"
    path.write_text("[endpoint]\nworkers = 65\n")

    assert cli.main(["doctor", "--json", "--config", str(path), "configuration", CHECK]) == 1
    checks = {check["name"]: check for check in json.loads(capsys.readouterr().out)["checks"]}
    assert "endpoint.workers = 65: expected an integer from 0 to 64" in checks["configuration"]["found"]
    assert checks[CHECK]["verdict"] == "ok"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["nonsense"], "command line: CHECK = 'nonsense': expected a check, one of receive-buffer, "),
        (["uvlop"], "command line: CHECK = 'uvlop': expected a check (did you mean uvloop?)"),
        (["--set", "endpoint.workers=65"], "--set: endpoint.workers = 65: expected an integer from 0 to 64"),
        (["--config", "/none.toml"], "command line: --config = '/none.toml': expected a readable file"),
        (["--admin", "ftp://x"], "command line: --admin = 'ftp://x': expected a URL like"),
        (["--reach", "x"], "command line: --reach = 'x': expected HOST:PORT, like"),
        (["--reach", "127.0.0.1:1", "uvloop"], "command line: --reach looks at another machine"),
        (["--strictly"], "command line: unknown option '--strictly' (did you mean --strict?)"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, before anything is examined."""
    assert cli.main(["doctor", *arguments]) == 2

    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"antquic-server: error: {line}")
    assert printed.err.count("\n") == 1


def test_a_node_on_a_port_of_its_own_choice_is_not_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Port 0 is no address; --admin has to name it."""
    cases = _find(monkeypatch, Verdict.OK)
    cli.main(["doctor", "--set", 'admin.listen="127.0.0.1:0"', CHECK])

    assert cases[0].status_error == "admin.listen has no fixed port, and --admin is not given"
    assert not cases[0].admin_given


def test_a_system_that_is_not_examined_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rather than failing at the first module that only Unix has."""
    monkeypatch.delattr("os.geteuid")

    assert cli.main(["doctor"]) == 2
    assert "tuning/windows" in capsys.readouterr().err


def test_the_summary_is_in_the_help() -> None:
    """As every command's."""
    assert doctor.SUMMARY.startswith("find what keeps this machine from full speed")
