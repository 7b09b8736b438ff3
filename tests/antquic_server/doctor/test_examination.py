"""The examination as a whole: a good machine is left in peace, an odd one is no reason to fail."""

from dataclasses import replace
from pathlib import Path

import pytest

from antquic_server.config.model import Settings
from antquic_server.doctor.case import Case
from antquic_server.doctor.examination import CHECKS, Result, count_by_verdict, examine, worst_verdict
from antquic_server.doctor.finding import Verdict, fault, note, ok
from antquic_server.doctor.machine import Machine
from antquic_server.errors import CannotTellError, ConfigurationError
from support.planted_machine import findings, healthy_case, not_ok, planted


def test_a_good_machine_is_left_in_peace(tmp_path: Path) -> None:
    """Every single check says ok, and none proposes anything."""
    found = findings(healthy_case(tmp_path))

    assert {name: each.found for name, each in found.items() if each.verdict is not Verdict.OK} == {}
    assert {name for name, each in found.items() if each.fixes or not each.known} == set()
    assert list(found) == list(CHECKS)


def test_a_good_machine_without_a_node_is_left_in_peace_too(tmp_path: Path) -> None:
    """Only what would be asked of the node cannot be told."""
    found = findings(healthy_case(tmp_path, running=False))

    unknown = {name for name, each in found.items() if not each.known}
    assert unknown == {"node-health", "node-restarts", "node-lag", "relay-canary"}
    assert {each.verdict for name, each in found.items() if name not in unknown} == {Verdict.OK}


@pytest.mark.parametrize("text", ["", "nonsense", "\0\xff" * 500, "-1", "9" * 5000, "a b c d e f g h i j"])
def test_files_in_a_form_nobody_has_seen_are_no_reason_to_fail(tmp_path: Path, text: str) -> None:
    """Whatever the files hold, every check answers."""
    case = healthy_case(tmp_path)
    for path in [each for each in tmp_path.rglob("*") if each.is_file()]:
        path.write_text(text)

    assert set(findings(case)) == set(CHECKS)


def test_a_machine_without_any_file_is_examined(tmp_path: Path) -> None:
    """As on a system without /proc: what cannot be read is told as such."""
    case = replace(healthy_case(tmp_path), machine=Machine(root=tmp_path / "nothing"), node_pid=None)

    found = findings(case)
    assert set(found) == set(CHECKS)
    assert not found["backlog"].known
    assert "No such file" in found["backlog"].found


def test_another_system_is_examined(tmp_path: Path) -> None:
    """On macOS, checks of Linux say that they do not apply, and none calls it a fault."""
    case = healthy_case(tmp_path)
    planted(case).platform = "darwin"
    for path in [each for each in tmp_path.rglob("*") if each.is_file() and each.name != "node.pem"]:
        path.unlink()
    planted(case).buffer_limit = 8 << 20

    found = findings(case)
    assert {each.verdict for each in found.values()} <= {Verdict.OK, Verdict.NOTE}
    assert "darwin" in found["steering"].found


def test_checks_are_chosen_by_name(tmp_path: Path) -> None:
    """In the order of the table, whatever the order on the command line; and each is announced."""
    announced: list[str] = []
    results = examine(healthy_case(tmp_path), ["uvloop", "receive-buffer"], before=announced.append)

    assert [result.check.name for result in results] == ["receive-buffer", "uvloop"] == announced


def test_an_unknown_check_is_a_mistake(tmp_path: Path) -> None:
    """With the name that was probably meant."""
    with pytest.raises(ConfigurationError, match=r"CHECK = 'uvlop': expected a check \(did you mean uvloop\?\)"):
        examine(healthy_case(tmp_path), ["uvlop"])
    with pytest.raises(ConfigurationError, match="expected a check, one of receive-buffer, "):
        examine(healthy_case(tmp_path), ["quux"])


def test_a_check_that_cannot_look_says_why(tmp_path: Path) -> None:
    """The reason is told, and that nothing is known."""

    class Blind(Machine):
        def sysctl(self, name: str) -> int:
            raise CannotTellError(name, "Permission denied")

    (result,) = examine(Case(machine=Blind(root=tmp_path), settings=Settings()), ["backlog"])

    assert result.finding.found == "cannot tell: net.core.netdev_max_backlog: Permission denied"
    assert not result.finding.known
    assert result.finding.verdict is Verdict.NOTE


def test_verdicts_are_counted() -> None:
    """For the summary and the exit code."""
    check = CHECKS["uvloop"]
    results = [Result(check=check, finding=each) for each in (ok("a"), note("b"), fault("c"), ok("d"))]

    assert count_by_verdict(results) == {Verdict.OK: 2, Verdict.NOTE: 1, Verdict.WARNING: 0, Verdict.FAULT: 1}
    assert worst_verdict(results) is Verdict.FAULT
    assert worst_verdict([]) is Verdict.OK


def test_every_check_explains_itself() -> None:
    """Names for a command line; each says what it looks at and why."""
    for name, check in CHECKS.items():
        assert name == check.name == name.lower()
        assert " " not in name
        assert check.looks_at
        assert check.why
        assert (check.examine.__doc__ or "").strip()


def test_not_ok_tells_what_was_planted(tmp_path: Path) -> None:
    """The helper of the other tests can fail."""
    case = healthy_case(tmp_path)
    planted(case).plant("/sys/class/net/eth0/mtu", "1400\n")

    assert not_ok(case) == {"mtu": Verdict.NOTE}
