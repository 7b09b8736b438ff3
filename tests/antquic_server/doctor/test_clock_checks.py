"""Planted: a clock that nothing sets, that is slow to read, or years behind."""

import os
import time
from pathlib import Path

from antquic_server.doctor.finding import Verdict
from antquic_server.doctor.kernel_clock import KernelClock
from support.planted_machine import findings, healthy_case, not_ok, planted


def test_a_clock_that_nothing_sets_is_found(tmp_path: Path) -> None:
    """It drifts until every introduction has expired."""
    case = healthy_case(tmp_path)
    planted(case).clock = KernelClock(synchronised=False, max_error_s=16.0)

    assert not_ok(case) == {"clock-sync": Verdict.WARNING}
    assert findings(case)["clock-sync"].fixes[0] == "timedatectl set-ntp true"


def test_a_slow_clock_source_is_found(tmp_path: Path) -> None:
    """With the line that takes a faster one, if there is one."""
    case = healthy_case(tmp_path)
    directory = "/sys/devices/system/clocksource/clocksource0"
    planted(case).plant(f"{directory}/current_clocksource", "hpet\n")
    assert not_ok(case) == {"clock-source": Verdict.WARNING}
    assert findings(case)["clock-source"].fixes == (f"echo tsc > {directory}/current_clocksource",)

    planted(case).plant(f"{directory}/available_clocksource", "hpet acpi_pm\n")
    assert "offers no other" in findings(case)["clock-source"].found


def test_a_clock_that_is_behind_is_found(tmp_path: Path) -> None:
    """The node key cannot be of tomorrow."""
    case = healthy_case(tmp_path)
    planted(case).clock_s = 1_500_000_000.0

    assert not_ok(case) == {"clock-plausible": Verdict.FAULT}
    assert "2017-07-14" in findings(case)["clock-plausible"].found


def test_the_date_of_the_node_key_counts(tmp_path: Path) -> None:
    """And nothing else where there is no key yet."""
    case = healthy_case(tmp_path)
    key = tmp_path / "var/lib/antquic-server/node.pem"
    in_an_hour_s = time.time() + 3600
    os.utime(key, (in_an_hour_s, in_an_hour_s))
    assert "the node key is of 1.0 hours later" in findings(case)["clock-plausible"].found

    key.unlink()
    assert findings(case)["clock-plausible"].verdict is Verdict.OK
