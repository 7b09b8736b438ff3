"""Planted: a full table of connections, a short memory of it, no IPv6, a small MTU."""

import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from antquic_server.config.model import EndpointSettings, RelaySettings, Settings
from antquic_server.doctor import network_checks
from antquic_server.doctor.case import Case
from antquic_server.doctor.finding import Verdict
from antquic_server.tuning.places import tuning_directory
from support.planted_machine import findings, healthy_case, not_ok, planted
from support.require import require

TRACKING = "/proc/sys/net/netfilter/nf_conntrack"


@pytest.mark.parametrize(
    ("used", "largest", "verdict"),
    [(100, 6096, Verdict.OK), (100, 6095, Verdict.WARNING), (240_000, 262_144, Verdict.FAULT)],
)
def test_a_small_or_full_table_is_found(tmp_path: Path, used: int, largest: int, verdict: Verdict) -> None:
    """4,096 connections, and two sides of 1,000 relay sessions."""
    case = healthy_case(tmp_path)
    planted(case).plant(f"{TRACKING}_count", f"{used}\n")
    planted(case).plant(f"{TRACKING}_max", f"{largest}\n")

    assert findings(case)["conntrack-table"].verdict is verdict
    if verdict is not Verdict.OK:
        assert "sysctl -w net.netfilter.nf_conntrack_max=262144" in findings(case)["conntrack-table"].fixes


def _small_table(root: Path, settings: Settings) -> Case:
    case = replace(healthy_case(root), settings=settings)
    planted(case).plant(f"{TRACKING}_max", "1000\n")
    return case


@pytest.mark.parametrize(
    ("listen", "relay", "ports"),
    [
        (("0.0.0.0:10000", "[::]:10000"), RelaySettings(), "{ 10000, 49152-65535 }"),
        (("0.0.0.0:443",), RelaySettings(enabled=False), "443"),
        (("0.0.0.0:443", "0.0.0.0:50000"), RelaySettings(port_range=(50_000, 50_099)), "{ 443, 50000-50099 }"),
    ],
)
def test_no_tracking_can_be_had_on_any_ruleset(
    tmp_path: Path, listen: tuple[str, ...], relay: RelaySettings, ports: str
) -> None:
    """The line works as it stands where nft has no rules at all, for the node's own ports."""
    require(os.geteuid() == 0 and shutil.which("unshare") and shutil.which("nft"), "needs root, unshare and nft")
    case = _small_table(tmp_path, Settings(endpoint=EndpointSettings(listen=listen), relay=relay))
    fix = findings(case)["conntrack-table"].fixes[-1]

    command = ["unshare", "--net", "sh", "-ec", f"{fix}\nnft list ruleset"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert f"udp dport {ports} notrack" in run.stdout
    assert f"udp sport {ports} notrack" in run.stdout


def test_no_tracking_is_proposed_only_where_it_can_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not for ports that nobody knows yet, nor without the file; whose own ports are those that are taken for it."""
    anywhere = Settings(endpoint=EndpointSettings(listen=("0.0.0.0:0",)), relay=RelaySettings(enabled=False))
    assert len(findings(_small_table(tmp_path, anywhere))["conntrack-table"].fixes) == 2

    text = (tuning_directory() / "linux" / "notrack.nft").read_text()
    assert f"\ndefine node_ports = {network_checks.NOTRACK_PORTS}\n" in text
    monkeypatch.setattr(network_checks, "tuning_file", lambda name: None)
    assert len(findings(_small_table(tmp_path, Settings()))["conntrack-table"].fixes) == 2


def test_a_kernel_that_tracks_nothing_is_left_in_peace(tmp_path: Path) -> None:
    """No table cannot be full."""
    case = healthy_case(tmp_path)
    for suffix in ("max", "count", "udp_timeout_stream"):
        planted(case).remove(f"{TRACKING}_{suffix}")

    assert not_ok(case) == {}
    assert findings(case)["conntrack-table"].found == "the kernel tracks no connections"


@pytest.mark.parametrize(("stream_s", "keep_alive_s"), [(10, 15.0), (15, 15.0), (120, 0.0)])
def test_a_short_memory_is_found(tmp_path: Path, stream_s: int, keep_alive_s: float) -> None:
    """Shorter than the silence between two pings, which may have no end."""
    settings = Settings(endpoint=EndpointSettings(keep_alive_s=keep_alive_s))
    case = replace(healthy_case(tmp_path), settings=settings)
    planted(case).plant(f"{TRACKING}_udp_timeout_stream", f"{stream_s}\n")

    assert not_ok(case) == {"conntrack-timeout": Verdict.WARNING}


def test_missing_ipv6_is_told(tmp_path: Path) -> None:
    """Switched off, without an address, or not in the kernel: IPv4 peers are served all the same."""
    case = healthy_case(tmp_path)
    planted(case).plant("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1\n")
    assert not_ok(case) == {"ipv6": Verdict.NOTE}
    assert findings(case)["ipv6"].fixes == ("sysctl -w net.ipv6.conf.all.disable_ipv6=0",)

    planted(case).plant("/proc/sys/net/ipv6/conf/all/disable_ipv6", "0\n")
    planted(case).plant("/proc/net/if_inet6", "fe800000000000000000000000000001 02 40 20 80 eth0\n")
    assert "no interface has a global IPv6 address" in findings(case)["ipv6"].found

    planted(case).remove("/proc/net/if_inet6")
    assert findings(case)["ipv6"].found == "this kernel has no IPv6"


@pytest.mark.parametrize("disabled", [True, False])
def test_a_node_that_serves_ipv6_only_needs_it(tmp_path: Path, disabled: bool) -> None:
    """It does not start without."""
    settings = Settings(endpoint=EndpointSettings(listen=("[::]:10000",)))
    case = replace(healthy_case(tmp_path), settings=settings)
    if disabled:
        planted(case).plant("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1\n")
    else:
        planted(case).remove("/proc/net/if_inet6")

    assert not_ok(case) == {"ipv6": Verdict.FAULT}


def test_a_node_that_serves_ipv4_only_is_told(tmp_path: Path) -> None:
    """By choice or oversight."""
    settings = Settings(endpoint=EndpointSettings(listen=("0.0.0.0:10000",)))

    assert not_ok(replace(healthy_case(tmp_path), settings=settings)) == {"ipv6": Verdict.NOTE}


@pytest.mark.parametrize(("mtu", "verdict"), [(1400, Verdict.NOTE), (1200, Verdict.FAULT), (9000, Verdict.OK)])
def test_a_small_mtu_is_found(tmp_path: Path, mtu: int, verdict: Verdict) -> None:
    """Below what QUIC needs nothing works at all."""
    case = healthy_case(tmp_path)
    planted(case).plant("/sys/class/net/eth0/mtu", f"{mtu}\n")

    finding = findings(case)["mtu"]
    assert finding.verdict is verdict
    if verdict is Verdict.NOTE:
        assert finding.fixes == ("antquic-server serve --set mtu.max=1352",)
