"""Planted: small buffers, full sockets, a short queue, few descriptors."""

from dataclasses import replace
from pathlib import Path

import pytest

from antquic_server.config.model import RelaySettings, Settings
from antquic_server.doctor.finding import Verdict
from support.planted_machine import NODE_PID, findings, healthy_case, not_ok, planted


@pytest.mark.parametrize(("check", "sysctl"), [("receive-buffer", "rmem_max"), ("send-buffer", "wmem_max")])
@pytest.mark.parametrize(
    ("limit", "verdict"), [(212_992, Verdict.FAULT), (4 << 20, Verdict.WARNING), (8 << 20, Verdict.OK)]
)
def test_a_small_buffer_is_found(tmp_path: Path, check: str, sysctl: str, limit: int, verdict: Verdict) -> None:
    """With the setting that caps it, and the line that changes it."""
    case = healthy_case(tmp_path)
    planted(case).plant(f"/proc/sys/net/core/{sysctl}", f"{limit}\n")

    finding = findings(case)[check]
    assert finding.verdict is verdict
    if verdict is not Verdict.OK:
        assert not_ok(case) == {check: verdict}
        assert f"net.core.{sysctl} is {limit:,}" in finding.found
        assert finding.fixes == ("antquic-server tune apply", f"sysctl -w net.core.{sysctl}=26214400")


def test_root_may_take_more_than_others(tmp_path: Path) -> None:
    """Which is told, since the node may run as somebody else."""
    case = healthy_case(tmp_path)
    planted(case).plant("/proc/sys/net/core/rmem_max", "212992\n")
    planted(case).may_force_buffers = True

    assert not_ok(case) == {"receive-buffer": Verdict.NOTE}
    assert "other accounts get 208 KiB" in findings(case)["receive-buffer"].found


@pytest.mark.parametrize(
    ("buffers", "check", "verdict"),
    [
        ("rb425984,t0,tb16777216", "receive-buffer", Verdict.FAULT),
        ("rb16777216,t0,tb8388608", "send-buffer", Verdict.WARNING),
    ],
)
def test_the_buffers_of_the_running_node_count(tmp_path: Path, buffers: str, check: str, verdict: Verdict) -> None:
    """Whatever this process would get; the smallest of all its sockets."""
    case = healthy_case(tmp_path)
    line = "UNCONN 0 0 0.0.0.0:10000 0.0.0.0:* skmem:(r0,{},f0,w0,o0,bl0,d0)\n"
    planted(case).commands["ss"] = line.format("rb16777216,t0,tb16777216") + line.format(buffers)

    assert not_ok(case) == {check: verdict}
    assert "by the running node" in findings(case)[check].found


def test_without_ss_the_probe_counts(tmp_path: Path) -> None:
    """Or with one that answers in another form."""
    case = healthy_case(tmp_path)
    for answer in ("", "skmem:(what)", "rb1"):
        planted(case).commands["ss"] = answer
        assert findings(case)["receive-buffer"].found == "8 MiB obtained of 8 MiB wanted"


def test_macos_has_another_setting(tmp_path: Path) -> None:
    """The fix names that of the system."""
    case = healthy_case(tmp_path)
    planted(case).platform = "darwin"
    planted(case).buffer_limit = 786_432

    assert "sysctl -w kern.ipc.maxsockbuf=26214400" in findings(case)["receive-buffer"].fixes


def test_datagrams_lost_while_a_node_runs_are_found(tmp_path: Path) -> None:
    """Those of the last second, however many there were before."""
    case = healthy_case(tmp_path)
    text = "Udp: InDatagrams RcvbufErrors\nUdp: 1000100 20\n"
    planted(case).waiting["/proc/net/snmp"] = text

    finding = findings(case)["receive-errors"]
    assert finding.verdict is Verdict.WARNING
    assert finding.found == "17 datagrams lost to full sockets within 1 s"
    assert findings(case)["receive-errors"].verdict is Verdict.OK, "nothing more was lost the second time"


def test_datagrams_lost_long_ago_are_told(tmp_path: Path) -> None:
    """They may have been another program's."""
    case = healthy_case(tmp_path, running=False)
    planted(case).plant("/proc/net/snmp", "Udp: InDatagrams RcvbufErrors\nUdp: 1000 2\n")

    assert findings(case)["receive-errors"].verdict is Verdict.NOTE
    planted(case).plant("/proc/net/snmp", "Udp: InDatagrams RcvbufErrors\nUdp: 0 0\n")
    assert findings(case)["receive-errors"].verdict is Verdict.OK


def test_a_short_queue_is_told_and_a_full_one_found(tmp_path: Path) -> None:
    """Drops count, in hexadecimal, over all CPUs."""
    case = healthy_case(tmp_path)
    planted(case).plant("/proc/sys/net/core/netdev_max_backlog", "1000\n")
    assert not_ok(case) == {"backlog": Verdict.NOTE}

    planted(case).plant("/proc/net/softnet_stat", "00 0000000a 00\n00 00000001 00\n")
    assert not_ok(case) == {"backlog": Verdict.WARNING}
    assert "11 were dropped" in findings(case)["backlog"].found


def test_few_descriptors_of_the_running_node_are_found(tmp_path: Path) -> None:
    """Its own limit counts, and its hard one, which workers take."""
    case = healthy_case(tmp_path)
    planted(case).plant(f"/proc/{NODE_PID}/limits", "Max open files            512                  1024       files\n")

    assert not_ok(case) == {"file-descriptors": Verdict.WARNING}
    finding = findings(case)["file-descriptors"]
    assert finding.found.startswith(f"the node (process {NODE_PID}) may open 1,024; a worker needs up to 1,072")
    assert "[Service] LimitNOFILE=65536" in finding.fixes[0]
    assert finding.fixes[2] == "antquic-server serve --set relay.max_sessions=952"


def test_few_descriptors_of_a_node_to_be_started_are_found(tmp_path: Path) -> None:
    """The limit of this process counts, since a node started from here would have it."""
    case = healthy_case(tmp_path, running=False)
    planted(case).descriptors = (1024, 1024)
    assert findings(case)["file-descriptors"].verdict is Verdict.WARNING

    planted(case).descriptors = (16, 32)
    assert findings(case)["file-descriptors"].verdict is Verdict.FAULT

    planted(case).descriptors = (1024, -1)
    assert findings(case)["file-descriptors"].verdict is Verdict.OK


def test_without_a_relay_few_descriptors_are_enough(tmp_path: Path) -> None:
    """Connections are no descriptors."""
    settings = Settings(relay=RelaySettings(enabled=False))
    case = replace(healthy_case(tmp_path, running=False), settings=settings)
    planted(case).descriptors = (256, 256)

    assert findings(case)["file-descriptors"].verdict is Verdict.OK
