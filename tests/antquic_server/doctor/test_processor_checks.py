"""Planted: fewer CPUs than workers, quotas of both versions, slow CPUs, one CPU for all packets."""

from dataclasses import replace
from pathlib import Path

import pytest

from antquic_server.config.model import EndpointSettings, Settings
from antquic_server.doctor.case import Case
from antquic_server.doctor.finding import Verdict
from antquic_server.tuning.places import tuning_directory
from support.planted_machine import NODE_PID, findings, healthy_case, not_ok, planted


def _with_workers(case: Case, workers: int) -> Case:
    return replace(case, settings=Settings(endpoint=EndpointSettings(workers=workers)))


def test_more_workers_than_the_affinity_allows_are_found(tmp_path: Path) -> None:
    """With the number that fits."""
    case = _with_workers(healthy_case(tmp_path), 2)
    planted(case).cpu_numbers = (1,)

    assert not_ok(case) == {"cpus": Verdict.WARNING}
    assert "affinity allows 1 of 2" in findings(case)["cpus"].found
    assert findings(case)["cpus"].fixes == ("antquic-server serve --set endpoint.workers=1",)


def test_an_affinity_that_the_node_goes_by_is_told(tmp_path: Path) -> None:
    """It starts as many workers as it may; that there are more CPUs is worth knowing."""
    case = healthy_case(tmp_path)
    planted(case).cpu_numbers = (1,)

    assert not_ok(case) == {"cpus": Verdict.NOTE}
    assert findings(case)["cpus"].fixes == ()


def test_fewer_workers_than_cpus_are_told(tmp_path: Path) -> None:
    """But not those that no node would start."""
    case = _with_workers(healthy_case(tmp_path), 1)
    assert not_ok(case) == {"cpus": Verdict.NOTE}
    assert findings(case)["cpus"].fixes == ("antquic-server serve --set endpoint.workers=0",)

    many = healthy_case(tmp_path)
    planted(many).cpu_numbers = tuple(range(128))
    planted(many).cpu_total = 128
    assert findings(many)["cpus"].verdict is Verdict.OK


def test_a_quota_of_the_second_version_is_found(tmp_path: Path) -> None:
    """With the line for the unit that lifts it."""
    case = _with_workers(healthy_case(tmp_path), 2)
    planted(case).plant("/sys/fs/cgroup/system.slice/antquic-server.service/cpu.max", "100000 100000\n")

    assert not_ok(case) == {"cpus": Verdict.WARNING}
    finding = findings(case)["cpus"]
    assert "the control group grants the time of 1" in finding.found
    assert finding.fixes[1].endswith("CPUQuota=200%")


@pytest.mark.parametrize("mount", ["cpu", "cpu,cpuacct"])
def test_a_quota_of_the_first_version_is_found(tmp_path: Path, mount: str) -> None:
    """On whichever of the usual places it is mounted; that of a group above counts."""
    case = _with_workers(healthy_case(tmp_path), 2)
    planted(case).plant("/proc/self/cgroup", f"3:memory:/x\n2:{mount}:/docker/abc\n0::/\n")
    planted(case).plant(f"/sys/fs/cgroup/{mount}/docker/cpu.cfs_quota_us", "50000\n")
    planted(case).plant(f"/sys/fs/cgroup/{mount}/docker/cpu.cfs_period_us", "100000\n")
    planted(case).plant(f"/sys/fs/cgroup/{mount}/cpu.cfs_quota_us", "-1\n")
    planted(case).plant(f"/sys/fs/cgroup/{mount}/cpu.cfs_period_us", "100000\n")

    assert not_ok(case) == {"cpus": Verdict.WARNING}
    assert "the control group grants the time of 0.5" in findings(case)["cpus"].found


def test_a_quota_below_one_cpu_is_found(tmp_path: Path) -> None:
    """Even one worker stands still for part of each period."""
    case = healthy_case(tmp_path)
    planted(case).plant("/sys/fs/cgroup/system.slice/cpu.max", "20000 100000\n")

    assert not_ok(case) == {"cpus": Verdict.WARNING}
    assert findings(case)["cpus"].fixes[-1].endswith("CPUQuota=100%")


def test_a_running_node_is_judged_by_its_own_affinity_and_quota(tmp_path: Path) -> None:
    """As with ``taskset -c 0 antquic-server serve`` and CPUQuota= in its unit; the operator's shell has neither."""
    case = healthy_case(tmp_path)
    planted(case).cpu_numbers_of[NODE_PID] = (0,)
    assert not_ok(case) == {"cpus": Verdict.NOTE}
    assert findings(case)["cpus"].found == "1 worker on CPUs: the running node's affinity allows 1 of 2"
    assert findings(case)["packet-cpus"].found == "one CPU, which does it all"

    planted(case).plant(f"/proc/{NODE_PID}/cgroup", "2:cpu:/node\n0::/node\n")
    planted(case).plant("/sys/fs/cgroup/node/cpu.max", "50000 100000\n")
    assert not_ok(case) == {"cpus": Verdict.WARNING}
    assert findings(case)["cpus"].found.endswith(", the running node's control group grants the time of 0.5")
    planted(case).plant("/sys/fs/cgroup/cpu/node/cpu.cfs_quota_us", "20000\n")
    planted(case).plant("/sys/fs/cgroup/cpu/node/cpu.cfs_period_us", "100000\n")
    assert findings(case)["cpus"].found.endswith(" grants the time of 0.2")
    assert findings(replace(case, node_pid=None, status=None))["cpus"].found == "2 workers on CPUs: 2 of this machine"


def test_slow_cpus_are_found(tmp_path: Path) -> None:
    """But not where "powersave" is only a hint to a driver that lets the CPU speed up."""
    case = healthy_case(tmp_path)
    planted(case).plant("/sys/devices/system/cpu/cpu1/cpufreq/scaling_governor", "powersave\n")
    assert not_ok(case) == {"cpu-governor": Verdict.WARNING}

    planted(case).plant("/sys/devices/system/cpu/cpu1/cpufreq/scaling_driver", "intel_pstate\n")
    assert not_ok(case) == {}


def test_one_cpu_for_all_packets_is_told(tmp_path: Path) -> None:
    """Unless RPS spreads them."""
    case = healthy_case(tmp_path)
    planted(case).remove("/sys/class/net/eth0/queues/rx-1/rps_cpus")
    (tmp_path / "sys/class/net/eth0/queues/rx-1").rmdir()
    assert not_ok(case) == {"packet-cpus": Verdict.NOTE}
    script, mask = findings(case)["packet-cpus"].fixes
    assert script == f"sh {tuning_directory()}/linux/queues.sh apply eth0"
    assert mask == "echo 3 > /sys/class/net/eth0/queues/rx-0/rps_cpus"

    planted(case).plant("/sys/class/net/eth0/queues/rx-0/rps_cpus", "00000000,00000003\n")
    assert not_ok(case) == {}
