"""Planted: a wrong configuration, an open admin endpoint and key, root, too little memory, swapping."""

from dataclasses import replace
from pathlib import Path

import pytest

from antquic_server.config.model import AdminSettings, EndpointSettings, Settings, TlsSettings
from antquic_server.doctor.finding import Verdict
from support.planted_machine import NODE_PID, NODE_UID, findings, healthy_case, not_ok, planted

KEY = "/var/lib/antquic-server/node.pem"


def test_a_configuration_that_does_not_load_is_found(tmp_path: Path) -> None:
    """In the loader's own words."""
    case = replace(healthy_case(tmp_path), configuration_error="node.toml: endpoint.workers = 65: expected …")

    assert not_ok(case) == {"configuration": Verdict.FAULT}
    assert findings(case)["configuration"].found.startswith("node.toml: endpoint.workers = 65")


def test_settings_that_the_node_has_told_are_not_said_to_load(tmp_path: Path) -> None:
    """No file was read."""
    case = healthy_case(tmp_path)
    assert findings(case)["configuration"].found == "it loads"

    told = findings(replace(case, settings_told=True))["configuration"]
    assert told.found == "that of the running node, as its /status tells"


def test_what_the_configuration_names_must_exist(tmp_path: Path) -> None:
    """Account and certificate."""
    endpoint = EndpointSettings(user="nobody-of-that-name")
    case = replace(healthy_case(tmp_path), settings=Settings(endpoint=endpoint))
    assert not_ok(case) == {"configuration": Verdict.FAULT}

    tls = TlsSettings(certificate="/etc/none.pem", private_key="/etc/none.key")
    case = replace(case, settings=Settings(tls=tls))
    assert not_ok(case) == {"configuration": Verdict.FAULT}
    planted(case).plant("/etc/none.pem", "")
    planted(case).plant("/etc/none.key", "")
    assert not_ok(case) == {}


def test_an_admin_endpoint_that_others_reach_is_found(tmp_path: Path) -> None:
    """Although it was wished for twice."""
    settings = Settings(admin=AdminSettings(listen="0.0.0.0:10001", allow_remote=True))

    assert not_ok(replace(healthy_case(tmp_path), settings=settings)) == {"admin-exposure": Verdict.WARNING}


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_a_key_that_others_may_read_is_found(tmp_path: Path, mode: int) -> None:
    """With its mode and the line that mends it."""
    case = healthy_case(tmp_path)
    planted(case).chmod(KEY, mode)

    assert not_ok(case) == {"node-key": Verdict.FAULT}
    assert f"{mode:04o}" in findings(case)["node-key"].found
    assert findings(case)["node-key"].fixes == (f"chmod 600 {KEY}",)


def test_a_key_of_somebody_else_is_found(tmp_path: Path) -> None:
    """The running node's account counts, else ours; root's key and any key for root are fine."""
    case = healthy_case(tmp_path)
    planted(case).owners = {KEY: NODE_UID + 1}
    assert not_ok(case) == {"node-key": Verdict.FAULT}

    stopped = replace(case, node_pid=None)
    assert findings(stopped)["node-key"].verdict is Verdict.FAULT
    planted(stopped).uid = 0
    assert findings(stopped)["node-key"].verdict is Verdict.OK
    planted(stopped).uid = NODE_UID
    planted(stopped).owners = {KEY: 0}
    assert findings(stopped)["node-key"].verdict is Verdict.OK


def test_a_directory_in_which_others_may_replace_the_key_is_found(tmp_path: Path) -> None:
    """Unless it has the sticky bit, as /tmp."""
    case = healthy_case(tmp_path)
    planted(case).chmod("/var/lib/antquic-server", 0o777)
    assert not_ok(case) == {"node-key": Verdict.WARNING}

    planted(case).chmod("/var/lib/antquic-server", 0o1777)
    assert not_ok(case) == {}


def test_a_missing_key_is_told(tmp_path: Path) -> None:
    """It is made at the first start."""
    case = healthy_case(tmp_path)
    planted(case).remove(KEY)

    assert not_ok(case) == {"node-key": Verdict.NOTE}


def test_a_node_that_is_root_is_found(tmp_path: Path) -> None:
    """The one that runs, or the one that would."""
    case = healthy_case(tmp_path)
    planted(case).plant(f"/proc/{NODE_PID}/status", "Uid:\t0\t0\t0\t0\n")
    assert not_ok(case) == {"account": Verdict.WARNING}

    stopped = replace(case, node_pid=None)
    assert findings(stopped)["account"].verdict is Verdict.OK
    planted(stopped).uid = 0
    assert findings(stopped)["account"].verdict is Verdict.NOTE
    with_user = replace(stopped, settings=Settings(endpoint=EndpointSettings(user="root")))
    assert findings(with_user)["account"].found == "the node would become root"


def test_too_little_memory_is_found(tmp_path: Path) -> None:
    """With the number of connections that fit: 473 MB is what the defaults may take."""
    case = healthy_case(tmp_path)
    planted(case).memory = 500_000_000
    assert not_ok(case) == {"memory": Verdict.WARNING}

    planted(case).memory = 400_000_000
    finding = findings(case)["memory"]
    assert finding.verdict is Verdict.FAULT
    assert finding.fixes == ("antquic-server serve --set endpoint.max_connections=1357",)
    fitting = Settings(endpoint=EndpointSettings(max_connections=1357))
    assert not_ok(replace(case, settings=fitting)) == {}


@pytest.mark.parametrize(
    ("membership", "path"),
    [
        ("0::/system.slice/antquic-server.service\n", "/sys/fs/cgroup/system.slice/memory.max"),
        ("4:memory:/docker/x\n0::/\n", "/sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes"),
    ],
)
def test_a_memory_limit_of_the_control_group_is_found(tmp_path: Path, membership: str, path: str) -> None:
    """Of both versions, and of a group above."""
    case = healthy_case(tmp_path)
    planted(case).plant("/proc/self/cgroup", membership)
    planted(case).plant(path, "268435456\n")

    assert not_ok(case) == {"memory": Verdict.FAULT}
    assert "the control group allows 268 MB" in findings(case)["memory"].found
    assert "MemoryMax=" in findings(case)["memory"].fixes[1]


def test_a_running_node_is_judged_by_its_own_memory_limit(tmp_path: Path) -> None:
    """MemoryMax= of its unit; the shell's group has its own, which does not count."""
    case = healthy_case(tmp_path)
    planted(case).plant("/proc/self/cgroup", "0::/user.slice\n")
    planted(case).plant("/sys/fs/cgroup/user.slice/memory.max", "1000000\n")
    planted(case).plant(f"/proc/{NODE_PID}/cgroup", "0::/system.slice/antquic-server.service\n")
    assert not_ok(case) == {}

    planted(case).plant("/sys/fs/cgroup/system.slice/antquic-server.service/memory.max", "268435456\n")
    assert not_ok(case) == {"memory": Verdict.FAULT}
    assert findings(case)["memory"].found.endswith("; the running node's control group allows 268 MB")


def test_swapping_is_found_and_killing_told(tmp_path: Path) -> None:
    """Half of the swap is a machine that lacks memory."""
    case = healthy_case(tmp_path)
    planted(case).plant("/proc/vmstat", "oom_kill 3\n")
    assert not_ok(case) == {"swap": Verdict.NOTE}
    assert "killed 3 processes" in findings(case)["swap"].found

    planted(case).plant("/proc/meminfo", "SwapTotal:  1000000 kB\nSwapFree:  300000 kB\n")
    assert not_ok(case) == {"swap": Verdict.WARNING}
    assert "killed 3 processes" in findings(case)["swap"].found

    planted(case).plant("/proc/meminfo", "SwapTotal:  0 kB\nSwapFree:  0 kB\n")
    planted(case).plant("/proc/vmstat", "oom_kill 0\n")
    assert findings(case)["swap"].found == "no swap"
