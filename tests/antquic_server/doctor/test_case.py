"""What is known of the node that is examined."""

from dataclasses import replace
from pathlib import Path

from antquic_server.config.model import EndpointSettings, Settings
from support.planted_machine import healthy_case, planted


def test_workers_are_as_many_as_the_node_would_start(tmp_path: Path) -> None:
    """By affinity and quota, unless the settings say a number."""
    case = healthy_case(tmp_path)
    planted(case).cpu_numbers = (0, 1, 2, 3)
    assert case.workers() == 4

    planted(case).plant("/sys/fs/cgroup/system.slice/cpu.max", "250000 100000\n")
    assert case.workers() == 3
    assert replace(case, settings=Settings(endpoint=EndpointSettings(workers=8))).workers() == 8


def test_ports_are_named_once(tmp_path: Path) -> None:
    """Both families listen on the same."""
    settings = Settings(endpoint=EndpointSettings(listen=("0.0.0.0:1", "[::]:1", "127.0.0.1:2")))

    assert replace(healthy_case(tmp_path), settings=settings).listen_ports() == [1, 2]
