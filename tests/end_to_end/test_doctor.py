"""``antquic-server doctor`` as a process, on machines with faults that are really there."""

import ctypes.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from antquic_server.doctor.examination import CHECKS
from antquic_server.doctor.finding import Verdict
from antquic_server.net.port_lock import PortLock
from support.node import StartNode, node_environment
from support.require import require
from support.veth import in_namespace, veth_pair
from support.waiting import wait_until

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow]

TIMEOUT_S = 60.0

Checks = dict[str, dict[str, Any]]


def _free_port(kind: socket.SocketKind) -> int:
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


PORT = _free_port(socket.SOCK_DGRAM)
ADMIN_PORT = _free_port(socket.SOCK_STREAM)
OWN_PORTS = (
    *("--set", f'endpoint.listen=["0.0.0.0:{PORT}", "[::]:{PORT}"]'),
    *("--set", f'admin.listen="127.0.0.1:{ADMIN_PORT}"'),
)


def run_doctor(
    *arguments: str,
    prefix: Sequence[str] = (),
    options: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """
    Run the command to its end.

    Args:
        arguments: What follows ``doctor``.
        prefix: A command that runs it, like ``taskset -c 0``.
        options: Options of the interpreter.
        environment: Variables beside those of this process.
    """
    command = [*prefix, sys.executable, *options, "-m", "antquic_server", "doctor", *arguments]
    variables = {**node_environment(traced=False), **(environment or {})}
    return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, env=variables, check=False)


def examine(*arguments: str, **options: Any) -> Checks:
    """
    Run the command, and return its findings by check; the exit code must be that of the worst of them.

    It is asked about ports of its own: a node that somebody runs on the usual ones is not to be examined.
    """
    ports = () if "--reach" in arguments else OWN_PORTS
    done = run_doctor("--json", *ports, *arguments, **options)
    assert done.stderr == ""
    document = json.loads(done.stdout)
    checks: Checks = {check["name"]: check for check in document["checks"]}
    assert done.returncode == document["exit_code"] == int(any(each["verdict"] == "fault" for each in checks.values()))
    return checks


def mounted(path: str, text: str) -> list[str]:
    """Return a prefix that puts another text in the place of a kernel's file, for one command."""
    script = f"f=$(mktemp) && echo '{text}' > $f && mount --bind $f {path} && rm $f"
    return ["unshare", "--mount", "sh", "-ec", f'{script}\nexec "$@"', "sh"]


def control_group(file: str, text: str) -> list[str]:
    """Return a prefix that puts a hierarchy of control groups with this one file in the place of the real one."""
    script = f"mount -t tmpfs none /sys/fs/cgroup && echo {text} > /sys/fs/cgroup/{file}"
    return ["unshare", "--mount", "sh", "-ec", f'{script}\nexec "$@"', "sh"]


def networked(script: str) -> list[str]:
    """Return a prefix that runs one command in a network of its own, after this script."""
    # The files of /sys show the network of whoever has mounted it.
    mount = "mount -t sysfs none /sys && ip link set lo up"
    return ["unshare", "--net", "--mount", "sh", "-ec", f'{mount}\n{script}\nexec "$@"', "sh"]


def firewall(rules: str) -> list[str]:
    """Return a prefix that runs one command behind a chain that drops what these rules do not let in."""
    chain = f"type filter hook input priority 0; policy drop; iifname lo accept; {rules}"
    return networked(f"printf '%s' 'table inet filter {{ chain input {{ {chain}\n}}\n}}\n' | nft -f -")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plant:
    """A fault, the check that must find it, how badly, and a part of its words."""

    check: str
    verdict: Verdict
    words: str
    prefix: Sequence[str] = ()
    arguments: Sequence[str] = ()
    options: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    as_root: bool = False


NOTE, WARNING, FAULT = Verdict.NOTE, Verdict.WARNING, Verdict.FAULT
CLOCK = "/sys/devices/system/clocksource/clocksource0/current_clocksource"
SLOW_LINK = (
    "ip link add d0 type veth peer name d1 && ip link set d0 mtu {} up && ip address add 192.0.2.1/24 dev d0 && "
    "ip route add default via 192.0.2.2"
)
SMALL_RANGE = ("--set", "relay.port_range=[50000, 50099]", "--set", "relay.max_sessions=100")

PLANTS = {
    "few_descriptors": Plant(
        check="file-descriptors",
        verdict=WARNING,
        words="may open 300;",
        prefix=["prlimit", "--nofile=300:300"],
    ),
    "hardly_any_descriptors": Plant(
        check="file-descriptors", verdict=FAULT, words="may open 50;", prefix=["prlimit", "--nofile=50:50"]
    ),
    "short_queue": Plant(
        check="backlog",
        verdict=NOTE,
        words="42 packets may wait",
        prefix=mounted("/proc/sys/net/core/netdev_max_backlog", "42"),
        as_root=True,
    ),
    "affinity": Plant(
        check="cpus",
        verdict=WARNING,
        words="2 workers on CPUs: affinity allows 1 of ",
        prefix=["taskset", "-c", str(min(os.sched_getaffinity(0)))],
        arguments=["--set", "endpoint.workers=2"],
    ),
    "quota": Plant(
        check="cpus",
        verdict=WARNING,
        words="the control group grants the time of 0.5",
        prefix=control_group("cpu.max", "50000 100000"),
        as_root=True,
    ),
    "memory_limit": Plant(
        check="memory",
        verdict=FAULT,
        words="the control group allows 100 MB",
        prefix=control_group("memory.max", "100000000"),
        as_root=True,
    ),
    "too_many_connections": Plant(
        check="memory",
        verdict=FAULT,
        words="for 1,000,000 connections",
        arguments=["--set", "endpoint.max_connections=1000000"],
    ),
    "old_kernel": Plant(
        check="kernel",
        verdict=WARNING,
        words="Linux 4.19.0-27-amd64",
        prefix=mounted("/proc/sys/kernel/osrelease", "4.19.0-27-amd64"),
        as_root=True,
    ),
    "asyncio_debug": Plant(
        check="asyncio-debug",
        verdict=WARNING,
        words="on in this environment",
        environment={"PYTHONASYNCIODEBUG": "1"},
    ),
    "development_mode": Plant(
        check="python-dev-mode", verdict=WARNING, words="on in this environment", options=["-X", "dev", "-W", "ignore"]
    ),
    "debug_allocator": Plant(
        check="python-malloc",
        verdict=WARNING,
        words="PYTHONMALLOC=debug",
        environment={"PYTHONMALLOC": "debug"},
    ),
    "traced_memory": Plant(
        check="tracemalloc", verdict=WARNING, words="every allocation", environment={"PYTHONTRACEMALLOC": "1"}
    ),
    "slow_clock_source": Plant(
        check="clock-source", verdict=WARNING, words="hpet", prefix=mounted(CLOCK, "hpet"), as_root=True
    ),
    "closed_firewall": Plant(
        check="firewall-listen",
        verdict=FAULT,
        words=f"UDP port {PORT} is closed: policy drop of chain inet filter input",
        prefix=firewall("ct state established accept; tcp dport 22 accept;"),
        as_root=True,
    ),
    "firewall_without_relay": Plant(
        check="firewall-relay",
        verdict=FAULT,
        words="UDP port 49152 is closed",
        prefix=firewall(f"udp dport {PORT} accept;"),
        as_root=True,
    ),
    "forgetful_conntrack": Plant(
        check="conntrack-timeout",
        verdict=WARNING,
        words="forgotten after 10 s; pings are sent every 15 s",
        prefix=networked("sysctl -qw net.netfilter.nf_conntrack_udp_timeout_stream=10"),
        as_root=True,
    ),
    "small_conntrack": Plant(
        check="conntrack-table",
        verdict=WARNING,
        words="of 1,000 entries",
        prefix=mounted("/proc/sys/net/netfilter/nf_conntrack_max", "1000"),
        as_root=True,
    ),
    "no_ipv6": Plant(
        check="ipv6",
        verdict=FAULT,
        words="IPv6 is switched off",
        prefix=networked("sysctl -qw net.ipv6.conf.all.disable_ipv6=1"),
        arguments=["--set", 'endpoint.listen=["[::]:10000"]'],
        as_root=True,
    ),
    "slow_link": Plant(
        check="mtu", verdict=FAULT, words="d0 takes 1200 bytes", prefix=networked(SLOW_LINK.format(1200)), as_root=True
    ),
    "ports_for_anybody": Plant(
        check="relay-reserved",
        verdict=WARNING,
        words="may give 50 of the relay's 100 ports",
        prefix=networked("sysctl -qw net.ipv4.ip_local_port_range='50050 50149'"),
        arguments=SMALL_RANGE,
        as_root=True,
    ),
    "few_relay_ports": Plant(
        check="relay-ports",
        verdict=WARNING,
        words="ports from 50000 to 50009 are free, for 1,000 sessions",
        arguments=["--set", "relay.port_range=[50000, 50009]"],
    ),
    "unknown_address": Plant(
        check="listen-port",
        verdict=FAULT,
        words="192.0.2.1:10000: Cannot assign requested address",
        arguments=["--set", 'endpoint.listen=["192.0.2.1:10000"]'],
    ),
    "open_admin": Plant(
        check="admin-exposure",
        verdict=WARNING,
        words="without a password",
        arguments=["--set", 'admin.listen="0.0.0.0:10001"', "--set", "admin.allow_remote=true"],
    ),
    "unknown_user": Plant(
        check="configuration",
        verdict=FAULT,
        words="there is no user nobody-of-that-name",
        arguments=["--set", 'endpoint.user="nobody-of-that-name"'],
    ),
    "nobody_at_admin": Plant(
        check="node-health",
        verdict=FAULT,
        words="no node answers at http://127.0.0.1:9",
        arguments=["--admin", "http://127.0.0.1:9"],
    ),
}


@contextmanager
def claimed_port(buffer_bytes: int) -> Iterator[str]:
    """Claim a port as a node does, with a socket whose buffers are of this size; yields its address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, buffer_bytes)
        sock.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{sock.getsockname()[1]}"
        lock = PortLock(address)
        try:
            yield address
        finally:
            lock.release()


@pytest.fixture(scope="module")
def unplanted() -> Checks:
    """What the whole command says of this machine as it is."""
    return examine()


@pytest.mark.parametrize("plant", PLANTS.values(), ids=list(PLANTS))
def test_a_planted_fault_is_found(plant: Plant, unplanted: Checks) -> None:
    """By the check that is about it, which says something better without the fault."""
    if plant.as_root:
        require(os.geteuid() == 0 and shutil.which("unshare") and shutil.which("nft"), "needs root, unshare and nft")

    checks = examine(
        *plant.arguments, plant.check, prefix=plant.prefix, options=plant.options, environment=plant.environment
    )
    finding = checks[plant.check]
    assert (finding["verdict"], plant.words in finding["found"]) == (plant.verdict, True), finding
    if plant.check != "node-health":
        assert finding["fixes"]
    before = unplanted[plant.check]
    assert plant.words not in before["found"]
    assert Verdict(before["verdict"]).rank <= plant.verdict.rank


def test_this_machine_is_examined_without_a_word_on_standard_error(unplanted: Checks) -> None:
    """All checks, whatever the machine is like; what the test suite needs to run is in order."""
    assert list(unplanted) == list(CHECKS)
    for name in ("gso", "gro", "steering", "uvloop", "configuration", "python-build", "asyncio-debug"):
        assert unplanted[name]["verdict"] == "ok", unplanted[name]


def test_a_process_without_rights_gets_small_buffers() -> None:
    """As much as the kernel's limit says, and a verdict that goes by it."""
    require(os.geteuid() == 0 and shutil.which("setpriv"), "needs root and setpriv")
    names = {"receive-buffer": "rmem_max", "send-buffer": "wmem_max"}

    checks = examine(*names, prefix=["setpriv", "--bounding-set=-net_admin"])
    for check, sysctl in names.items():
        limit = int(Path(f"/proc/sys/net/core/{sysctl}").read_text())
        expected = "fault" if limit < 1 << 20 else "warning" if limit < 8 << 20 else "ok"
        assert checks[check]["verdict"] == expected
        if expected != "ok":
            assert f"net.core.{sysctl} is {limit:,}" in checks[check]["found"]
            assert checks[check]["fixes"][0] == "antquic-server tune apply"


def test_small_buffers_of_a_running_node_are_found(start_node: StartNode) -> None:
    """By root, who would get larger ones: what the node has got counts."""
    require(os.geteuid() == 0 and shutil.which("ss"), "needs root and ss")
    node = start_node()
    listen = ["--set", f'endpoint.listen=["{node.address}"]', "receive-buffer", "send-buffer"]

    for finding in examine(*listen).values():
        assert finding["verdict"] == "ok"
        assert finding["found"] == "8 MiB obtained of 8 MiB wanted by the running node"
    with claimed_port(100 << 10) as small:
        listen[1] = f'endpoint.listen=["{small}"]'
        for finding in examine(*listen).values():
            assert finding["verdict"] == "fault"
            assert finding["found"].startswith("100 KiB obtained of 8 MiB wanted by the running node; net.core.")


def test_a_user_without_any_right_is_told_what_could_not_be_seen() -> None:
    """The firewall is root's to see; everything else is examined."""
    require(os.geteuid() == 0 and shutil.which("setpriv"), "needs root and setpriv")
    # One right is left, since the interpreter of the tests may be where nobody else may look.
    rights = [f"--{kind}=-all,+dac_read_search" for kind in ("bounding-set", "inh-caps", "ambient-caps")]
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *rights]

    checks = examine(prefix=nobody)
    assert list(checks) == list(CHECKS)
    for name in ("firewall-listen", "firewall-relay"):
        assert not checks[name]["known"]
        assert "nft" in checks[name]["found"]
        assert checks[name]["fixes"][0].startswith("sudo ")
    for name in ("gso", "gro", "steering", "listen-port", "relay-ports"):
        assert checks[name]["known"]
    assert checks["account"]["verdict"] == "ok"


def test_missing_liboqs_is_found(tmp_path: Path) -> None:
    """As on a machine where nobody has installed it."""
    require(ctypes.util.find_library("oqs") is None, "the system has a liboqs of its own")
    nowhere = {"OQS_INSTALL_PATH": str(tmp_path), "HOME": str(tmp_path)}

    assert examine("liboqs", environment=nowhere)["liboqs"]["verdict"] == "warning"
    asked = examine("--set", 'pqc.provider="liboqs"', "liboqs", environment=nowhere)["liboqs"]
    assert asked["verdict"] == "fault"
    assert any("make liboqs" in fix for fix in asked["fixes"])


def test_a_node_is_believed_that_it_uses_liboqs(start_node: StartNode, tmp_path: Path) -> None:
    """By a shell without the node's OQS_INSTALL_PATH; and the other way round, what the node lacks is found."""
    require(ctypes.util.find_library("oqs") is None, "the system has a liboqs of its own")
    nowhere = {"OQS_INSTALL_PATH": str(tmp_path), "HOME": str(tmp_path)}
    node = start_node()
    require(node.status()["node"]["pqc_provider"] == "liboqs", "liboqs is missing: make liboqs")

    checks = examine("--admin", node.admin, "liboqs", "liboqs-speed", environment=nowhere)
    assert checks["liboqs"]["verdict"] == "ok", checks
    assert "the running node uses liboqs" in checks["liboqs"]["found"]
    assert "not found from here" in checks["liboqs-speed"]["found"]
    lacking = start_node(settings=['pqc.provider="cryptography"'])
    finding = examine("--admin", lacking.admin, "--set", 'pqc.provider="auto"', "liboqs")["liboqs"]
    assert finding["verdict"] == "warning"
    assert "the running node uses cryptography, although liboqs" in finding["found"]


def test_missing_uvloop_is_found(tmp_path: Path) -> None:
    """A module in its place that cannot be imported."""
    (tmp_path / "uvloop.py").write_text("raise ImportError('planted')\n")
    path = f"{tmp_path}{os.pathsep}{node_environment(traced=False)['PYTHONPATH']}"

    assert examine("uvloop", environment={"PYTHONPATH": path})["uvloop"]["verdict"] == "warning"


def test_taken_ports_are_found_with_who_has_them() -> None:
    """Here the test itself."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        socket.create_server(("127.0.0.1", 0)) as tcp,
    ):
        udp.bind(("127.0.0.1", 0))
        port, admin = udp.getsockname()[1], tcp.getsockname()[1]
        listen = ["--set", f'endpoint.listen=["127.0.0.1:{port}"]', "--set", f'admin.listen="127.0.0.1:{admin}"']
        checks = examine(*listen, "listen-port", "admin-port")

    assert checks["listen-port"]["verdict"] == "fault"
    assert f"(process {os.getpid()})" in checks["listen-port"]["found"]
    assert checks["admin-port"]["verdict"] == "fault"
    assert {each["verdict"] for each in examine(*listen, "listen-port", "admin-port").values()} == {"ok"}


def test_relay_ports_in_use_are_found() -> None:
    """A range of one port, which the test has."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        one = ["--set", f"relay.port_range=[{port}, {port}]", "relay-ports"]
        assert examine(*one)["relay-ports"]["verdict"] == "fault"
    assert examine(*one)["relay-ports"]["verdict"] == "warning"


def test_a_node_key_that_others_may_read_is_found(tmp_path: Path) -> None:
    """And the fix that is proposed mends it."""
    key = tmp_path / "node.pem"
    key.write_text("a key\n")
    key.chmod(0o644)
    arguments = ["--set", f'identity.file="{key}"', "node-key"]

    finding = examine(*arguments)["node-key"]
    assert finding["verdict"] == "fault"
    subprocess.run(["sh", "-c", finding["fixes"][0]], check=True)
    assert examine(*arguments)["node-key"]["verdict"] == "ok"


def test_a_file_that_does_not_load_is_found(tmp_path: Path) -> None:
    """From the option and from the environment; --set is a mistake of the command line instead."""
    path = tmp_path / "node.toml"
    path.write_text("[endpoint]\nworker = 4\n")

    assert examine("--config", str(path), "configuration")["configuration"]["verdict"] == "fault"
    assert examine("configuration", environment={"ANTQUIC_CONFIG": str(path)})["configuration"]["verdict"] == "fault"
    done = run_doctor("--set", "endpoint.worker=4")
    assert (done.returncode, done.stdout) == (2, "")


def test_losses_are_found_while_they_happen() -> None:
    """A socket that nobody reads, on the machine of what claims to be a node."""
    stop = threading.Event()
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as full,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        full.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        full.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{full.getsockname()[1]}"
        lock = PortLock(address)

        def send() -> None:
            while not stop.wait(0.02):
                sender.sendto(bytes(1000), full.getsockname())

        thread = threading.Thread(target=send)
        thread.start()
        try:
            finding = examine("--set", f'endpoint.listen=["{address}"]', "receive-errors")["receive-errors"]
        finally:
            stop.set()
            thread.join()
            lock.release()

    assert finding["verdict"] == "warning"
    assert "lost to full sockets within 1 s" in finding["found"]


def test_a_running_node_is_examined(start_node: StartNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its health, its restarts, its environment, its account; and what it holds is not in its own way."""
    monkeypatch.setenv("PYTHONASYNCIODEBUG", "1")
    node = start_node(workers=2)
    monkeypatch.delenv("PYTHONASYNCIODEBUG")
    arguments = ["--admin", node.admin, "--set", f'endpoint.listen=["{node.address}"]']
    arguments += ["--set", f'identity.file="{node.identity_path}"']

    healthy = examine(*arguments)
    assert healthy["node-health"]["verdict"] == "ok"
    assert healthy["node-restarts"]["verdict"] == "ok"
    assert healthy["listen-port"]["found"].endswith(f"served by antquic-server (process {node.pid})")
    assert healthy["node-key"]["verdict"] == "ok"
    assert f"in the running node (process {node.pid})" in healthy["asyncio-debug"]["found"]
    assert healthy["account"]["verdict"] == ("warning" if os.geteuid() == 0 else "ok")

    killed = node.worker_pids[0]
    os.kill(killed, signal.SIGKILL)
    wait_until(
        lambda: node.healthy() and killed not in node.worker_pids, timeout_s=30, what="replacement of the worker"
    )
    hurt = examine(*arguments, "node-health", "node-restarts")
    assert hurt["node-health"]["verdict"] == "ok"
    assert hurt["node-restarts"]["verdict"] == "warning"


def test_a_running_node_is_judged_by_its_own_cpus(start_node: StartNode) -> None:
    """Pinned as by ``taskset``, and looked at from where nothing is; with its status and without."""
    allowed = os.sched_getaffinity(0)
    require(len(allowed) > 1, "there is one CPU")
    os.sched_setaffinity(0, {min(allowed)})
    try:
        node = start_node(workers=0)
    finally:
        os.sched_setaffinity(0, allowed)
    assert len(node.worker_pids) == 1
    listen = ["--set", f'endpoint.listen=["{node.address}"]', "cpus"]

    expected = f"1 worker on CPUs: the running node's affinity allows 1 of {os.cpu_count()}"
    for arguments in (listen, ["--admin", node.admin, *listen]):
        finding = examine(*arguments)["cpus"]
        assert finding["found"].startswith(expected), finding
        assert finding["verdict"] in ("note", "warning")


def test_a_node_on_other_ports_is_examined_by_its_url_alone(start_node: StartNode) -> None:
    """Its settings, its ports, its process; and the usual ports, on which nothing is, are not said to be its own."""
    node = start_node(settings=["endpoint.max_connections=77", "relay.port_range=[50000, 50010]"])
    environment = {"ANTQUIC_CONFIG": ""}
    names = ("listen-port", "admin-port", "relay-ports", "memory", "configuration", "receive-buffer", "node-key")

    done = run_doctor("--json", "--admin", node.admin, *names, environment=environment)
    found = {check["name"]: check["found"] for check in json.loads(done.stdout)["checks"]}
    assert found["listen-port"] == f"{node.address}: served by antquic-server (process {node.pid})"
    assert found["admin-port"] == f"{node.admin.removeprefix('http://')}: the node's"
    assert "of 11 ports from 50000 to 50010" in found["relay-ports"]
    assert "for 77 connections" in found["memory"]
    assert found["configuration"] == "that of the running node, as its /status tells"
    assert str(node.identity_path) in found["node-key"]

    # What is asked about on the command line, and a file that is named, count more than what the node tells.
    asked = examine("--admin", node.admin, "--set", "endpoint.max_connections=78", *names)
    assert f"127.0.0.1:{ADMIN_PORT}: free" == asked["admin-port"]["found"]
    assert "for 78 connections" in asked["memory"]["found"]


def test_a_named_file_counts_more_than_what_the_node_tells(start_node: StartNode, tmp_path: Path) -> None:
    """By the option and by the environment: it is what the node is to have when it starts again."""
    node = start_node(settings=["endpoint.max_connections=77"])
    path = tmp_path / "node.toml"
    path.write_text("[endpoint]\nmax_connections = 79\n")

    by_option = examine("--admin", node.admin, "--config", str(path), "memory", "configuration")
    by_environment = examine("--admin", node.admin, "memory", environment={"ANTQUIC_CONFIG": str(path)})
    assert "for 79 connections" in by_option["memory"]["found"]
    assert "for 79 connections" in by_environment["memory"]["found"]
    assert by_option["configuration"]["found"] == "it loads"


def test_a_node_is_reached_from_outside(start_node: StartNode) -> None:
    """By the command line; the details are in test_reach.py."""
    node = start_node(settings=['relay.allowed_targets=["127.0.0.0/8"]'])

    checks = examine("--reach", node.address)
    assert {check["verdict"] for check in checks.values()} == {"ok"}
    assert node.peer_id in checks["reach-handshake"]["found"]


def test_a_firewall_in_between_is_found_from_outside(start_node: StartNode) -> None:
    """Closed, open for the port and not for the relay's range, and open."""
    require(shutil.which("nft"), "needs nft")
    with veth_pair(1500) as pair:
        arguments = ["--listen", f"{pair.far_hosts[0]}:10000", "--set", 'relay.allowed_targets=["192.0.2.0/24"]']
        node = in_namespace(pair.far, lambda: start_node(arguments=arguments))
        outside = {"prefix": ["ip", "netns", "exec", pair.near]}

        def reach_behind(rules: str) -> dict[str, str]:
            chain = f"type filter hook input priority 0; policy drop; ct state established accept; {rules}"
            script = f"table inet t {{ chain c {{ {chain}\n}}\n}}\n"
            command = ["ip", "netns", "exec", pair.far, "nft", "-f", "-"]
            subprocess.run(command, input=f"flush ruleset\n{script}", text=True, check=True)
            checks = examine("--reach", f"{pair.far_hosts[0]}:10000", **outside)
            return {name: check["verdict"] for name, check in checks.items()}

        closed = reach_behind("")
        assert (closed["reach-versions"], closed["reach-handshake"]) == ("fault", "fault")
        half = reach_behind("udp dport 10000 accept;")
        assert (half["reach-handshake"], half["reach-relay"]) == ("ok", "fault")
        assert set(reach_behind("udp dport { 10000, 49152-65535 } accept;").values()) == {"ok"}
        assert node.running


def test_a_script_can_go_by_the_exit_code() -> None:
    """0 for a warning, 1 for it with --strict and for a fault."""
    switched = {"PYTHONMALLOC": "debug"}
    assert run_doctor("python-malloc", environment=switched).returncode == 0
    assert run_doctor("--strict", "python-malloc", environment=switched).returncode == 1
    assert run_doctor("--strict", "python-malloc").returncode == 0


def test_the_report_for_people_is_complete() -> None:
    """A table, what to do, and the summary as the last line."""
    done = run_doctor(environment={"PYTHONMALLOC": "debug", "COLUMNS": "100"})

    assert done.stderr == ""
    assert "warning  python-malloc" in done.stdout
    assert "    fix  unset PYTHONMALLOC\n" in done.stdout
    assert " ok" in done.stdout.splitlines()[-1]
