"""Planted: ports that are taken, forbidden, too few, or given to others."""

import errno
from dataclasses import replace
from pathlib import Path

import pytest

from antquic_server.config.model import EndpointSettings, RelaySettings, Settings
from antquic_server.doctor.finding import Verdict
from antquic_server.errors import CannotTellError
from support.planted_machine import findings, healthy_case, planted

SMALL = Settings(relay=RelaySettings(port_range=(50_000, 50_099), max_sessions=100))


def test_a_taken_port_is_found(tmp_path: Path) -> None:
    """With the process that has it, if that can be seen."""
    case = healthy_case(tmp_path, running=False)
    planted(case).refusals["0.0.0.0:10000"] = errno.EADDRINUSE
    assert "another process, which only root may see" in findings(case)["listen-port"].found

    planted(case).ports[10_000] = 77
    finding = findings(case)["listen-port"]
    assert finding.verdict is Verdict.FAULT
    assert finding.found == "0.0.0.0:10000 is taken by named (process 77)"


def test_the_node_itself_may_have_the_port(tmp_path: Path) -> None:
    """That is what it is for."""
    case = healthy_case(tmp_path)
    planted(case).refusals |= {"0.0.0.0:10000": errno.EADDRINUSE, "tcp 127.0.0.1:10001": errno.EADDRINUSE}

    assert findings(case)["listen-port"].verdict is Verdict.OK
    assert findings(case)["admin-port"].verdict is Verdict.OK


def test_the_admin_port_is_the_nodes_only_where_it_has_answered(tmp_path: Path) -> None:
    """A node that answers elsewhere has not got this one; of one that does not answer nothing is known."""
    case = replace(healthy_case(tmp_path), admin_port=20_001)
    assert findings(case)["admin-port"].found == "127.0.0.1:10001: free"

    planted(case).refusals["tcp 127.0.0.1:10001"] = errno.EADDRINUSE
    proxied = findings(case)["admin-port"]
    assert proxied.verdict is Verdict.NOTE
    assert (
        proxied.found == "127.0.0.1:10001 is taken, by the node (process 4711) or another; it was asked at port 20001"
    )
    silent = findings(replace(case, status=None, status_error="no answer"))["admin-port"]
    assert silent.verdict is Verdict.NOTE
    assert silent.found == "127.0.0.1:10001 is taken, by the node (process 4711) or another; it did not answer"


@pytest.mark.parametrize("number", [errno.EACCES, errno.EADDRNOTAVAIL])
def test_a_port_that_cannot_be_had_is_found(tmp_path: Path, number: int) -> None:
    """For want of a right, or of the address."""
    settings = Settings(endpoint=EndpointSettings(listen=("192.0.2.1:443",)))
    case = replace(healthy_case(tmp_path, running=False), settings=settings)
    planted(case).refusals["192.0.2.1:443"] = number

    assert findings(case)["listen-port"].verdict is Verdict.FAULT


def test_the_right_to_a_low_port_is_given_to_the_node_alone(tmp_path: Path) -> None:
    """By its unit: the interpreter, as a file, is every Python program's."""
    settings = Settings(endpoint=EndpointSettings(listen=("0.0.0.0:443",)))
    case = replace(healthy_case(tmp_path, running=False), settings=settings)
    planted(case).refusals["0.0.0.0:443"] = errno.EACCES

    fixes = findings(case)["listen-port"].fixes
    assert fixes[0] == (
        "systemctl edit antquic-server   # [Service] AmbientCapabilities=CAP_NET_BIND_SERVICE and "
        "CapabilityBoundingSet=CAP_NET_BIND_SERVICE and PrivateUsers=no"
    )
    assert not any("setcap" in fix for fix in fixes)


def test_a_machine_without_ipv6_serves_ipv4(tmp_path: Path) -> None:
    """As the node does, where both wildcards are listed."""
    case = healthy_case(tmp_path, running=False)
    planted(case).refusals["[::]:10000"] = errno.EAFNOSUPPORT

    assert findings(case)["listen-port"].verdict is Verdict.OK


@pytest.mark.parametrize("number", [errno.EADDRINUSE, errno.EADDRNOTAVAIL])
def test_a_taken_admin_port_is_found(tmp_path: Path, number: int) -> None:
    """It keeps the node from starting as well."""
    case = healthy_case(tmp_path, running=False)
    planted(case).refusals["tcp 127.0.0.1:10001"] = number

    assert findings(case)["admin-port"].verdict is Verdict.FAULT


def test_too_few_relay_ports_are_found(tmp_path: Path) -> None:
    """Too small a range, or too many of it in use; those of a running node are its own."""
    case = replace(healthy_case(tmp_path, running=False), settings=SMALL)
    assert findings(case)["relay-ports"].verdict is Verdict.OK

    planted(case).ports = {50_000: None, 50_001: 3}
    finding = findings(case)["relay-ports"]
    assert finding.verdict is Verdict.WARNING
    assert finding.found == "98 of 100 ports from 50000 to 50099 are free, for 100 sessions"

    planted(case).ports = dict.fromkeys(range(50_000, 50_100))
    assert findings(case)["relay-ports"].verdict is Verdict.FAULT
    assert findings(replace(case, node_pid=1))["relay-ports"].verdict is Verdict.OK


def test_a_small_range_is_found_where_ports_in_use_are_not_to_be_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on macOS without root."""
    case = replace(healthy_case(tmp_path, running=False), settings=SMALL)

    def hidden() -> None:
        raise CannotTellError("UDP sockets", "Permission denied")

    monkeypatch.setattr(case.machine, "udp_ports", hidden)
    finding = findings(case)["relay-ports"]
    assert finding.verdict is Verdict.OK
    assert finding.found.endswith("(those in use are not to be seen: UDP sockets: Permission denied)")
    planted(case).refusals["0.0.0.0:10000"] = errno.EADDRINUSE
    assert "another process" in findings(case)["listen-port"].found


def test_relay_ports_that_others_may_get_are_found(tmp_path: Path) -> None:
    """A fault only where those that nobody else gets are too few."""
    case = healthy_case(tmp_path)
    planted(case).plant("/proc/sys/net/ipv4/ip_local_reserved_ports", "8080\n")
    finding = findings(case)["relay-reserved"]
    assert finding.verdict is Verdict.NOTE
    assert finding.fixes[1] == "sysctl -w net.ipv4.ip_local_reserved_ports=8080,49152-65535"

    assert findings(replace(case, settings=SMALL))["relay-reserved"].verdict is Verdict.WARNING
    planted(case).plant("/proc/sys/net/ipv4/ip_local_reserved_ports", "50000-50099,8080\n")
    assert findings(replace(case, settings=SMALL))["relay-reserved"].verdict is Verdict.OK


def test_without_a_relay_its_ports_do_not_matter(tmp_path: Path) -> None:
    """Whatever they are."""
    case = replace(healthy_case(tmp_path), settings=Settings(relay=RelaySettings(enabled=False)))
    planted(case).plant("/proc/sys/net/ipv4/ip_local_reserved_ports", "\n")

    for name in ("relay-ports", "relay-reserved", "firewall-relay"):
        assert findings(case)[name].found == "the relay is off"
