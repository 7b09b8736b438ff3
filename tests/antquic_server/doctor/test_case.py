"""What is known of the node that is examined."""

from dataclasses import replace
from pathlib import Path

import pytest

from antquic_server.config.model import EndpointSettings, Settings
from antquic_server.supervisor.cpus import UsableCpus
from support.planted_machine import NODE_PID, healthy_case, planted


def test_workers_are_as_many_as_the_node_would_start(tmp_path: Path) -> None:
    """By affinity and quota, unless the settings say a number."""
    case = healthy_case(tmp_path)
    planted(case).cpu_numbers = (0, 1, 2, 3)
    assert case.workers() == 4

    planted(case).plant("/sys/fs/cgroup/system.slice/cpu.max", "250000 100000\n")
    assert case.workers() == 3
    assert replace(case, settings=Settings(endpoint=EndpointSettings(workers=8))).workers() == 8


def test_the_limits_of_the_running_node_count(tmp_path: Path) -> None:
    """Not those of the shell from which it is looked at; this process's only where the node's are not to be seen."""
    case = healthy_case(tmp_path)
    planted(case).cpu_numbers = (0, 1, 2, 3)
    assert (case.affinity(), case.control_groups()[1]) == (((0, 1, 2, 3), True), False)

    planted(case).cpu_numbers_of[NODE_PID] = (0, 1, 2)
    planted(case).plant(f"/proc/{NODE_PID}/cgroup", "0::/node\n")
    planted(case).plant("/sys/fs/cgroup/node/cpu.max", "150000 100000\n")
    assert case.affinity() == ((0, 1, 2), True)
    assert case.control_groups() == (["0::/node"], True)
    assert case.cpus() == UsableCpus(numbers=(0, 1, 2), quota=1.5)
    assert case.workers() == 2

    stopped = replace(case, node_pid=None, status=None)
    assert stopped.cpus() == UsableCpus(numbers=(0, 1, 2, 3), quota=None)
    planted(case).cpu_numbers_of[NODE_PID] = ()
    planted(case).remove(f"/proc/{NODE_PID}/cgroup")
    assert (case.affinity(), case.cpus()) == (((0, 1, 2, 3), False), stopped.cpus())


def test_a_system_without_control_groups_has_no_quota(tmp_path: Path) -> None:
    """As macOS."""
    case = healthy_case(tmp_path)
    planted(case).remove("/proc/self/cgroup")

    assert case.control_groups() == ([], False)
    assert case.cpus().quota is None


@pytest.mark.parametrize(("told", "workers"), [(1, 1), (3, 3), (0, 2), (65, 2), ("4", 2), (None, 2)])
def test_a_running_node_tells_how_many_workers_it_has(tmp_path: Path, told: object, workers: int) -> None:
    """Nonsense is not believed; a number that the settings say is what is examined."""
    case = replace(healthy_case(tmp_path), status={"node": {"workers": told}})

    assert case.workers() == workers
    assert replace(case, settings=Settings(endpoint=EndpointSettings(workers=8))).workers() == 8
    assert replace(case, status={"node": 3}).workers() == 2


def test_ports_are_named_once(tmp_path: Path) -> None:
    """Both families listen on the same."""
    settings = Settings(endpoint=EndpointSettings(listen=("0.0.0.0:1", "[::]:1", "127.0.0.1:2")))

    assert replace(healthy_case(tmp_path), settings=settings).listen_ports() == [1, 2]
