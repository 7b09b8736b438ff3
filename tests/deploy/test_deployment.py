"""
From a bare Debian to a node that real peers reach, through its accidents and releases, to a bare Debian again.

The tests share two booted systems and stand in the order of a node's life; each leaves both nodes serving. ``alpha``
has little said about it, for ``beta`` everything is otherwise.
"""

import json
import re
import sys
from importlib.util import find_spec
from typing import Any

import pytest

from support.ant_quic import AntQuicPeer, host_of
from support.deployment import Deployed, files_of
from support.node import node_environment
from support.nspawn import Machine
from support.require import require
from support.veth import in_namespace
from support.waiting import wait_for_value, wait_until

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow]

UNIT = "antquic-server"
PATIENCE_S = 60.0
"""For a start of the node on a machine that does other things as well."""

PORTS = {"alpha": 10000, "beta": 443}
ADMIN = {"alpha": 10001, "beta": 9443}


ELSEWHERE = json.dumps(
    {
        "antquic_server_settings": {
            "endpoint": {"workers": 2, "listen": ["0.0.0.0:10005"]},
            "admin": {"listen": "127.0.0.1:10006"},
        }
    }
)
"""Variables of an inventory by which nodes listen on other ports than they do."""


def asked(machine: Machine, path: str) -> Any:
    """What the admin endpoint answers on the machine itself; None while it does not."""
    script = (
        f"import urllib.request as r; print(r.urlopen('http://127.0.0.1:{ADMIN[machine.name]}{path}').read().decode())"
    )
    done = machine.run("python3", "-c", script, check=False)
    if done.returncode != 0:
        return None
    return json.loads(done.stdout) if path == "/status" else done.stdout


def serves(machine: Machine) -> bool:
    """Whether the unit is active and every slot is served."""
    active = machine.run("systemctl", "is-active", UNIT, check=False).stdout.strip() == "active"
    return active and asked(machine, "/healthz") == "ok\n\n"


def wait_serving(machine: Machine) -> None:
    """Wait until the node serves again."""
    try:
        wait_until(lambda: serves(machine), timeout_s=PATIENCE_S, what="node that serves")
    except AssertionError as error:
        log = machine.run("journalctl", "-u", UNIT, "-n", "40", "--no-pager", check=False).stdout
        raise AssertionError(f"{error}\n{log}") from None


def node_of(machine: Machine) -> dict[str, Any]:
    """The section ``node`` of the node's status."""
    status = wait_until(lambda: asked(machine, "/status"), timeout_s=PATIENCE_S, what="status")
    node: dict[str, Any] = status["node"]
    return node


def main_pid(machine: Machine) -> int:
    """Process id of the supervisor, as its system counts."""
    return int(machine.output("systemctl", "show", "--value", "--property=MainPID", UNIT))


def connect(deployed: Deployed, machine: Machine) -> dict[str, Any]:
    """Let a peer of our library connect over the network; its message about the connection."""
    command = [
        sys.executable,
        "-m",
        "antquic_server",
        "peer",
        "connect",
        f"{machine.host}:{PORTS[machine.name]}",
        "--json",
    ]
    lines = deployed.peer(command, node_environment(traced=False)).splitlines()
    events = {message["event"]: message for message in map(json.loads, lines)}
    assert "alive" in events, lines
    connected: dict[str, Any] = events["connected"]
    return connected


def test_real_peer_reaches_the_node_and_learns_its_address(deployed: Deployed) -> None:
    """An ant-quic program on the network, against the node that a bare system has become; our own peer, too."""
    machine, network = deployed.alpha, deployed.playbooks.network
    assert {host: deployed.recap.stats[host]["failed"] for host in ("alpha", "beta")} == {"alpha": 0, "beta": 0}
    wait_serving(machine)
    peer_id = node_of(machine)["peer_id"]
    with in_namespace(network.namespace, lambda: AntQuicPeer([f"{machine.host}:10000"])) as peer:
        peer.wait_connected(peer_id, timeout_s=PATIENCE_S)
        peer.wait_for(
            "external_address_discovered",
            lambda message: host_of(message["addr"]) == network.host,
            timeout_s=PATIENCE_S,
        )
    assert connect(deployed, machine)["peer_id"] == peer_id


def test_node_with_everything_otherwise_is_reached(deployed: Deployed) -> None:
    """A low port, another account, a firewall that drops everything else, a log file, levels for modules."""
    machine = deployed.beta
    wait_serving(machine)
    assert connect(deployed, machine)["peer_id"] == node_of(machine)["peer_id"]
    assert machine.output("stat", "-c", "%U %a", "/var/lib/antquic-server/node.pem") == "quic 600"
    # A debug message of a worker, with which everything else was otherwise accepted, too.
    wait_until(
        lambda: '"level": "debug"' in machine.output("cat", "/var/log/antquic-server/node.log"),
        timeout_s=PATIENCE_S,
        what="debug message in the log file",
    )
    machine.run("logrotate", "--force", "/etc/logrotate.d/antquic-server")
    assert machine.run("test", "-e", "/var/log/antquic-server/node.log.1").returncode == 0
    (target,) = json.loads(machine.output("cat", "/srv/antquic-server-beta.json"))
    assert target == {"targets": ["127.0.0.1:9443"], "labels": {"node": "beta", "site": "lab"}}


def test_commands_on_a_host_ask_its_node(deployed: Deployed) -> None:
    """By the name that is on the path and without a word about where, also where the admin port is another."""
    for machine in deployed.machines:
        wait_serving(machine)
        status = json.loads(machine.output("antquic-server", "status", "--json"))
        assert status["node"]["peer_id"] == node_of(machine)["peer_id"]


def test_firewall_is_as_asked_for(deployed: Deployed) -> None:
    """alpha drops nothing but the admin port; beta drops what it does not know, and lets one host ask."""
    alpha, beta = (machine.output("nft", "list", "ruleset") for machine in deployed.machines)
    assert "policy accept" in alpha
    assert "udp dport 50000-50100" in alpha
    assert "tcp dport 10001 counter" in alpha
    assert "policy drop" in beta
    assert "relay sessions" not in beta

    deployed.beta.run("systemd-run", "--unit=listener", "python3", "-m", "http.server", "8000")
    listening = "import socket; socket.create_connection(('127.0.0.1', 8000), 1)"
    wait_until(
        lambda: deployed.beta.run("python3", "-c", listening, check=False).returncode == 0,
        timeout_s=PATIENCE_S,
        what="listener",
    )
    assert [deployed.opens(deployed.beta, port) for port in (22, 9443, 8000)] == [True, True, False]
    deployed.beta.run("systemctl", "stop", "listener")


def test_second_run_changes_nothing(deployed: Deployed) -> None:
    """On neither host; the nodes are not restarted either."""
    before = [main_pid(machine) for machine in deployed.machines]
    recap = deployed.playbooks.run("site.yml", deployed.machines)
    recap.require_success()
    assert recap.changed_tasks() == []
    assert {host: row["changed"] for host, row in recap.stats.items()} == {"alpha": 0, "beta": 0}
    assert [main_pid(machine) for machine in deployed.machines] == before


def test_check_of_a_bare_host_ends_well(deployed: Deployed) -> None:
    """It says what would be installed; that it leaves nothing behind is seen when all is uninstalled."""
    deployed.check.require_success()
    assert deployed.check.changed_tasks() == []
    assert "alpha: no node is installed here; 1.0.0 would be" in deployed.check.output


def test_check_changes_nothing(deployed: Deployed) -> None:
    """Neither where all is as it should be, which it says, nor for a release that is not there yet."""
    before = [main_pid(machine) for machine in deployed.machines]
    recap = deployed.playbooks.run("site.yml", deployed.machines, "--check")
    recap.require_success()
    assert recap.changed_tasks() == []

    other = {"antquic_server_source": str(deployed.wheels["next"]), "antquic_server_journal_max_use": "2G"}
    recap = deployed.playbooks.run("upgrade.yml", deployed.machines, "--check", "--extra-vars", json.dumps(other))
    recap.require_success()
    assert "alpha: 1.1.0 would be installed" in recap.output
    assert "antquic_server : Write the bound" in recap.changed_tasks()
    for machine, pid in zip(deployed.machines, before, strict=True):
        assert (main_pid(machine), release_of(machine)) == (pid, ("1.0.0", "1.0.0"))
        assert machine.run("test", "-e", "/opt/antquic-server/1.1.0", check=False).returncode != 0


def minimum_of_buffers(machine: Machine) -> int:
    """A kernel setting that a network namespace has of its own (``net.ipv4.udp_rmem_min``), in bytes."""
    return int(machine.output("cat", "/proc/sys/net/ipv4/udp_rmem_min"))


def test_kernel_settings_are_applied(deployed: Deployed) -> None:
    """Those that a container can have, now and for the next start; the other host was not to have any."""
    require(find_spec("antquic_server.commands.tune"), "needs antquic-server tune")
    assert minimum_of_buffers(deployed.alpha) >= 131072
    assert "udp_rmem_min" in deployed.alpha.output("sh", "-c", "cat /etc/sysctl.d/*antquic*")
    assert minimum_of_buffers(deployed.beta) == 4096


def test_node_key_is_kept_on_the_controller(deployed: Deployed) -> None:
    """For its owner only, under a name that another key never has."""
    for machine in deployed.machines:
        peer_id = node_of(machine)["peer_id"]
        copy = deployed.playbooks.identities / f"{machine.name}-{peer_id[:16]}.pem"
        assert copy.stat().st_mode & 0o777 == 0o600
        assert copy.read_text().strip() == machine.output("cat", "/var/lib/antquic-server/node.pem")


def test_exposure_is_two_or_below(deployed: Deployed) -> None:
    """As systemd itself judges; with a port below 1024 as well."""
    for machine in deployed.machines:
        verdict = machine.output("systemd-analyze", "security", "--no-pager", f"{UNIT}.service")
        found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", verdict)
        assert found is not None, verdict
        assert float(found[1]) <= 2.0, verdict


def test_process_has_what_the_unit_promises(deployed: Deployed) -> None:
    """Not root, no capability but that for a low port, no new rights, a filter for system calls; workers likewise."""
    for machine, capability in ((deployed.alpha, 0), (deployed.beta, 1 << 10)):
        pids = [main_pid(machine), *(row["pid"] for row in asked(machine, "/status")["workers"])]
        assert len(pids) >= 2
        for pid in pids:
            facts = dict(re.findall(r"(?m)^(\w+):\s+(.*)$", machine.output("cat", f"/proc/{pid}/status")))
            assert int(facts["CapBnd"], 16) == capability
            assert int(facts["CapEff"], 16) == capability
            assert (facts["NoNewPrivs"], facts["Seccomp"]) == ("1", "2")
            assert "0" not in facts["Uid"].split()


def test_relay_works_in_the_sandbox(deployed: Deployed) -> None:
    """The node's own canaries pass through both ways to relay, with ports of their own."""

    def passed() -> set[str]:
        page = asked(deployed.alpha, "/metrics") or ""
        found = re.findall(r"(?m)^antquic_relay_canaries_total\{([^}]*)\} ([0-9.e+]+)$", page)
        return {labels for labels, value in found if float(value) > 0}

    wait_until(lambda: len(passed()) >= 2, timeout_s=PATIENCE_S, what="canaries")
    results = sorted(passed())
    assert any("channel" in labels for labels in results)
    assert any("stream" in labels for labels in results)
    assert not [labels for labels in results if "failed" in labels], results


def test_reload_changes_limits_and_the_unit_stays_active(deployed: Deployed) -> None:
    """``systemctl reload`` is SIGHUP: the same process, another limit, and what is wrong changes nothing."""
    machine, path = deployed.alpha, "/etc/antquic-server/antquic-server.toml"
    before = main_pid(machine)
    text = machine.output("cat", path)
    try:
        machine.run("sh", "-c", f"sed -i 's/^port_range/max_sessions = 7\\n&/' {path}")
        machine.run("systemctl", "reload", UNIT)
        wait_for_value(
            lambda: asked(machine, "/status")["relay"]["limits"]["max_sessions"], 7, timeout_s=PATIENCE_S, what="limit"
        )
    finally:
        (machine.root / path.lstrip("/")).write_text(text + "\n")
        machine.run("systemctl", "reload", UNIT)
    wait_for_value(
        lambda: asked(machine, "/status")["relay"]["limits"]["max_sessions"], 1000, timeout_s=PATIENCE_S, what="limit"
    )
    assert serves(machine)
    assert main_pid(machine) == before


def test_killed_worker_is_replaced_without_a_restart(deployed: Deployed) -> None:
    """Inside the sandbox, too: the supervisor may start processes, and stays."""
    machine = deployed.alpha
    supervisor, victim = main_pid(machine), asked(machine, "/status")["workers"][0]["pid"]
    machine.run("kill", "-KILL", str(victim))
    wait_until(
        lambda: asked(machine, "/status")["workers"][0]["pid"] not in (victim, None),
        timeout_s=PATIENCE_S,
        what="worker",
    )
    wait_serving(machine)
    assert main_pid(machine) == supervisor


@pytest.mark.parametrize(("signal", "result"), [("KILL", "killed"), ("STOP", "watchdog")], ids=["killed", "frozen"])
def test_supervisor_that_is_gone_or_hangs_is_started_again(deployed: Deployed, signal: str, result: str) -> None:
    """By Restart=on-failure, or by the watchdog; the node is the same, and no process of before is left."""
    machine = deployed.alpha
    peer_id, before = node_of(machine)["peer_id"], main_pid(machine)
    workers = [row["pid"] for row in asked(machine, "/status")["workers"]]
    machine.run("kill", f"-{signal}", str(before))
    wait_until(lambda: main_pid(machine) not in (0, before), timeout_s=PATIENCE_S, what="another supervisor")
    wait_serving(machine)
    assert node_of(machine)["peer_id"] == peer_id
    left = [pid for pid in (before, *workers) if machine.run("test", "-d", f"/proc/{pid}", check=False).returncode == 0]
    assert left == []
    journal = machine.output("journalctl", "-u", UNIT, "-o", "cat", "--no-pager", "-n", "200")
    assert ("watchdog" in journal.lower()) or result == "killed"


def test_wrong_configuration_is_not_tried_again(deployed: Deployed) -> None:
    """Exit code 2 stops the unit with one line that says what is wrong; a restart would say the same for ever."""
    machine, path = deployed.alpha, "/etc/antquic-server/antquic-server.toml"
    text = machine.output("cat", path)
    try:
        machine.run("sh", "-c", f"echo 'workers = 5' >> {path}")
        machine.run("systemctl", "restart", UNIT, check=False)
        assert machine.output("systemctl", "show", "--value", "--property=ActiveState", UNIT) == "failed"
        assert machine.output("systemctl", "show", "--value", "--property=ExecMainStatus", UNIT) == "2"
        assert machine.output("systemctl", "show", "--value", "--property=NRestarts", UNIT) == "0"
    finally:
        (machine.root / path.lstrip("/")).write_text(text + "\n")
        machine.run("systemctl", "reset-failed", UNIT, check=False)
        machine.run("systemctl", "start", UNIT)
    wait_serving(machine)


def test_wrong_settings_never_reach_the_node(deployed: Deployed) -> None:
    """The run stops with the program's own line; the node goes on with what it has, without a restart."""
    machine = deployed.beta
    before = main_pid(machine)
    wrong = json.dumps({"antquic_server_settings": {"endpoint": {"workers": "two"}}})
    recap = deployed.playbooks.run("site.yml", [machine], "--extra-vars", wrong)
    assert recap.exit_code != 0
    assert "endpoint.workers" in recap.output
    assert main_pid(machine) == before
    assert serves(machine)
    assert "udp dport 443" in machine.output("nft", "list", "ruleset")


def test_node_comes_back_with_the_system(deployed: Deployed) -> None:
    """After a reboot: the node, its key and its firewall."""
    machine = deployed.alpha
    peer_id = node_of(machine)["peer_id"]
    machine.shut_down()
    machine.boot()
    wait_serving(machine)
    assert connect(deployed, machine)["peer_id"] == peer_id
    assert "table inet antquic_server" in machine.output("nft", "list", "tables")


def release_of(machine: Machine) -> tuple[str, str]:
    """Version that the node says it is, and name of the release in force."""
    return node_of(machine)["version"], machine.output("readlink", "/opt/antquic-server/current").rpartition("/")[2]


def test_upgrade_keeps_the_node_key(deployed: Deployed) -> None:
    """Both hosts, one after the other, and each is healthy before the next."""
    before = [node_of(machine)["peer_id"] for machine in deployed.machines]
    recap = deployed.playbooks.run("upgrade.yml", deployed.machines, antquic_server_source=str(deployed.wheels["next"]))
    recap.require_success()
    assert recap.output.count("PLAY [") == 2
    for machine, peer_id in zip(deployed.machines, before, strict=True):
        assert release_of(machine) == ("1.1.0", "1.1.0")
        assert connect(deployed, machine)["peer_id"] == peer_id


def test_broken_release_stops_at_the_first_host_and_goes_back(deployed: Deployed) -> None:
    """
    The first serves as before; the second has never heard of it, and its node was not even restarted.

    The inventory has changed with the release: both before and afterwards the node is asked where it listens.
    """
    before, second = node_of(deployed.alpha)["peer_id"], main_pid(deployed.beta)
    recap = deployed.playbooks.run(
        "upgrade.yml",
        deployed.machines,
        "--extra-vars",
        ELSEWHERE,
        antquic_server_source=str(deployed.wheels["broken"]),
    )
    assert recap.exit_code != 0
    assert "alpha: 1.2.0 does not serve" in recap.output
    assert "went back to 1.1.0" in recap.output
    assert "beta" not in recap.stats
    wait_serving(deployed.alpha)
    assert release_of(deployed.alpha) == ("1.1.0", "1.1.0")
    assert connect(deployed, deployed.alpha)["peer_id"] == before
    assert main_pid(deployed.beta) == second
    assert deployed.beta.run("test", "-e", "/opt/antquic-server/1.2.0", check=False).returncode != 0


def test_roll_back_goes_to_the_release_before(deployed: Deployed) -> None:
    """With the same key, and with the ports of then, whatever the inventory says by now."""
    machine = deployed.alpha
    peer_id = node_of(machine)["peer_id"]
    recap = deployed.playbooks.run("rollback.yml", [machine], "--extra-vars", ELSEWHERE)
    recap.require_success()
    assert release_of(machine) == ("1.0.0", "1.0.0")
    assert connect(deployed, machine)["peer_id"] == peer_id
    assert machine.output("readlink", "/opt/antquic-server/previous") == "/opt/antquic-server/1.1.0"


def test_roll_back_that_fails_leaves_a_way_out(deployed: Deployed) -> None:
    """Where the release does not pass for the node: the playbook again, and the one before is in force."""
    machine = deployed.alpha
    recap = deployed.playbooks.run("rollback.yml", [machine], "--extra-vars", '{"antquic_server_peer_id": "nobody"}')
    assert recap.exit_code != 0
    assert "expected nobody" in recap.output
    links = [machine.output("readlink", f"/opt/antquic-server/{name}") for name in ("current", "previous")]
    assert links == ["/opt/antquic-server/1.1.0", "/opt/antquic-server/1.0.0"]
    deployed.playbooks.run("rollback.yml", [machine]).require_success()
    assert release_of(machine) == ("1.0.0", "1.0.0")


def install_something_that_needs(machine: Machine, package: str) -> None:
    """Install a package of our own that depends on another one."""
    control = f"Package: needy\nVersion: 1\nArchitecture: all\nMaintainer: a\nDescription: a\nDepends: {package}\n"
    directory = machine.root / "var/tmp/needy/DEBIAN"
    directory.mkdir(parents=True)
    (directory / "control").write_text(control)
    machine.run("dpkg-deb", "--build", "/var/tmp/needy", "/var/tmp/needy.deb")
    machine.run("dpkg", "--install", "/var/tmp/needy.deb")


def installed(machine: Machine) -> set[str]:
    """Names of the packages that are installed."""
    listed = machine.output("dpkg-query", "--show", "--showformat=${Package} ${db:Status-Status}\n").splitlines()
    return {line.split()[0] for line in listed if line.endswith(" installed")}


def test_uninstalling_leaves_nothing(deployed: Deployed) -> None:
    """Files, accounts, units, rules and packages are those of the bare system; the key is on the controller."""
    peer_ids = [node_of(machine)["peer_id"] for machine in deployed.machines]
    # On beta somebody else has come to need one of the packages that the role has brought.
    install_something_that_needs(deployed.beta, "logrotate")
    recap = deployed.playbooks.run("uninstall.yml", deployed.machines)
    recap.require_success()
    assert {"needy", "logrotate"} <= installed(deployed.beta)
    assert not {"nftables", "python3-venv"} & installed(deployed.beta)
    deployed.beta.run("dpkg", "--purge", "needy", "logrotate", "libpopt0")
    for machine, pristine, peer_id in zip(deployed.machines, deployed.pristine, peer_ids, strict=True):
        left = files_of(machine.root)
        assert {path: how for path, how in left.items() if pristine.get(path) != how} == {}
        assert sorted(pristine.keys() - left.keys()) == []
        assert "antquic" not in machine.output("systemctl", "list-units", "--all", "--no-pager", "--plain")
        assert deployed.rules(machine) == ""
        assert minimum_of_buffers(machine) == 4096
        assert (deployed.playbooks.identities / f"{machine.name}-{peer_id[:16]}.pem").exists()
