"""Which interface leads to the world."""

from pathlib import Path

import pytest

from antquic_server.doctor.machine import Machine
from antquic_server.doctor.routes import default_interface
from antquic_server.errors import CannotTellError
from support.planted_machine import PlantedMachine

ZERO = "0" * 32
HEADING = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n"


def test_the_default_route_of_ipv4_comes_first(tmp_path: Path) -> None:
    """Among routes to networks, and down ones."""
    machine = PlantedMachine(tmp_path)
    lines = "lan\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\ndown\t00000000\t0\t0002\t0\t0\t0\t00000000\n"
    machine.plant("/proc/net/route", f"{HEADING}{lines}wan\t00000000\t0\t0003\t0\t0\t0\t00000000\n")

    assert default_interface(machine) == "wan"


def test_ipv6_counts_where_there_is_no_ipv4(tmp_path: Path) -> None:
    """The reject route that the kernel keeps on lo does not."""
    machine = PlantedMachine(tmp_path)
    machine.plant("/proc/net/route", HEADING)
    rest = f"{ZERO} 00 {ZERO} 00000400 00000001 00000000"
    machine.plant("/proc/net/ipv6_route", f"{ZERO} 00 {rest} 00200200 lo\n{ZERO} 00 {rest} 00000003 wan6\n")

    assert default_interface(machine) == "wan6"


def test_without_a_default_route_it_cannot_be_told(tmp_path: Path) -> None:
    """Nor without the files."""
    with pytest.raises(CannotTellError, match="there is none"):
        default_interface(Machine(root=tmp_path))
