"""Planted: an old kernel, no trains, no filter, a filter that does not steer."""

from pathlib import Path

import pytest

from antquic_server.doctor.finding import Verdict
from antquic_server.doctor.socket_probes import STEERED_DATAGRAMS
from support.planted_machine import findings, healthy_case, not_ok, planted


def test_an_old_kernel_is_found(tmp_path: Path) -> None:
    """Older than the last thing the node uses."""
    case = healthy_case(tmp_path)
    planted(case).plant("/proc/sys/kernel/osrelease", "4.19.0-27-amd64\n")

    assert not_ok(case) == {"kernel": Verdict.WARNING}


def test_a_release_that_is_none_cannot_be_told(tmp_path: Path) -> None:
    """It is shown instead."""
    case = healthy_case(tmp_path)
    planted(case).plant("/proc/sys/kernel/osrelease", "strange\n")

    assert "found 'strange'" in findings(case)["kernel"].found
    assert not findings(case)["kernel"].known


@pytest.mark.parametrize(("trains", "missing"), [((False, True), "gso"), ((True, False), "gro")])
def test_a_kernel_without_trains_is_found(tmp_path: Path, trains: tuple[bool, bool], missing: str) -> None:
    """Each way by itself."""
    case = healthy_case(tmp_path)
    planted(case).trains = trains

    assert not_ok(case) == {missing: Verdict.WARNING}


@pytest.mark.parametrize(
    ("steered", "verdict"),
    [((False, 0), Verdict.WARNING), ((True, 8), Verdict.FAULT), ((True, STEERED_DATAGRAMS), Verdict.OK)],
)
def test_missing_steering_is_found(tmp_path: Path, steered: tuple[bool, int], verdict: Verdict) -> None:
    """A filter that is there and steers wrongly is worse than none."""
    case = healthy_case(tmp_path)
    planted(case).steered = steered

    assert findings(case)["steering"].verdict is verdict
