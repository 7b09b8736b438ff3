"""The script for interrupts and queues: on interfaces of the kernel's in a network namespace, and on made-up cards."""

import os
import shutil
import socket
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from antquic_server.tuning.places import tuning_directory
from support.require import require
from support.tuned_system import snapshot
from support.veth import in_namespace, veth_pair

SCRIPT = tuning_directory() / "linux" / "queues.sh"


def make_card(root: Path, *, cpus: int, receive: int, send: int, interrupts: int) -> Path:
    """Make the files of one interface ``eth0``; returns ``root``."""
    net = root / "sys/class/net/eth0"
    (root / "cpus").parent.mkdir(parents=True, exist_ok=True)
    (root / "cpus").write_text(f"{cpus}\n")
    for number in range(receive):
        (net / f"queues/rx-{number}").mkdir(parents=True)
        (net / f"queues/rx-{number}/rps_cpus").write_text("00000000,00000000\n" if cpus > 32 else "0\n")
    for number in range(send):
        (net / f"queues/tx-{number}").mkdir(parents=True)
        (net / f"queues/tx-{number}/xps_cpus").write_text("0\n")
    for number in range(interrupts):
        (net / "device/msi_irqs").mkdir(parents=True, exist_ok=True)
        (net / f"device/msi_irqs/{40 + number}").write_text("msix\n")
        (root / f"proc/irq/{40 + number}").mkdir(parents=True)
        (root / f"proc/irq/{40 + number}/smp_affinity_list").write_text(f"0-{cpus - 1}\n")
    return root


def queues(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the script on made-up files."""
    environment = {**os.environ, "ANTQUIC_TUNING_ROOT": str(root)}
    return subprocess.run(["sh", str(SCRIPT), *words], env=environment, capture_output=True, text=True, check=False)


def values(root: Path, pattern: str) -> list[str]:
    """Return the contents of some files, in the order of their paths."""
    return [path.read_text().strip() for path in sorted(root.glob(pattern))]


def test_a_card_with_one_queue_is_spread_by_the_kernel(tmp_path: Path) -> None:
    """RPS for all processors, nothing for sending; and back."""
    root = make_card(tmp_path, cpus=4, receive=1, send=1, interrupts=1)
    before = snapshot(root)

    assert queues(root, "check", "eth0").returncode == 1
    assert queues(root, "apply", "eth0").returncode == 0
    assert values(root, "sys/class/net/eth0/queues/*/*_cpus") == ["f", "0"]
    assert values(root, "proc/irq/*/smp_affinity_list") == ["0"]
    assert queues(root, "check", "eth0").returncode == 0
    assert queues(root, "revert", "eth0").returncode == 0
    assert {name: content for name, content in snapshot(root).items() if content is not None} == {
        name: content for name, content in before.items() if content is not None
    }


def test_a_card_with_a_queue_for_each_processor_spreads_by_itself(tmp_path: Path) -> None:
    """One interrupt and one sending queue for each, and no RPS on top."""
    root = make_card(tmp_path, cpus=4, receive=4, send=2, interrupts=6)

    assert queues(root, "apply", "eth0").returncode == 0
    assert values(root, "proc/irq/*/smp_affinity_list") == ["0", "1", "2", "3", "0", "1"]
    assert values(root, "sys/class/net/eth0/queues/rx-*/rps_cpus") == ["0"] * 4
    assert values(root, "sys/class/net/eth0/queues/tx-*/xps_cpus") == ["5", "a"]


def test_masks_of_many_processors_have_commas(tmp_path: Path) -> None:
    """32 bits between two, as the kernel wants them; zeros in front mean nothing."""
    root = make_card(tmp_path, cpus=70, receive=1, send=1, interrupts=0)

    assert queues(root, "apply", "eth0").returncode == 0
    assert values(root, "sys/class/net/eth0/queues/rx-*/rps_cpus") == ["3f,ffffffff,ffffffff"]
    (root / "sys/class/net/eth0/queues/rx-0/rps_cpus").write_text("0000003f,ffffffff,ffffffff\n")
    assert queues(root, "check", "eth0").returncode == 0


def test_a_second_apply_changes_nothing_and_the_first_value_stays(tmp_path: Path) -> None:
    """Also after somebody has set something else in between."""
    root = make_card(tmp_path, cpus=4, receive=1, send=1, interrupts=0)
    file = root / "sys/class/net/eth0/queues/rx-0/rps_cpus"
    queues(root, "apply", "eth0")
    before = snapshot(root)
    run = queues(root, "apply", "eth0")
    assert run.stdout.splitlines()[-1] == "nothing to change: every queue is as wanted"
    assert snapshot(root) == before

    file.write_text("3\n")
    kept = queues(root, "revert", "eth0")
    assert kept.returncode == 1
    assert "changed by somebody since it was set to f" in kept.stdout
    queues(root, "apply", "eth0")
    assert queues(root, "revert", "eth0").returncode == 0
    assert file.read_text() == "0\n"


def test_a_dry_run_changes_nothing(tmp_path: Path) -> None:
    """Neither way."""
    root = make_card(tmp_path, cpus=4, receive=1, send=1, interrupts=1)
    before = snapshot(root)

    assert "would set" in queues(root, "apply", "eth0", "--dry-run").stdout
    assert snapshot(root) == before
    queues(root, "apply", "eth0")
    before = snapshot(root)
    assert "would restore" in queues(root, "revert", "eth0", "--dry-run").stdout
    assert snapshot(root) == before


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        ([], 2, "expected check INTERFACE"),
        (["apply"], 2, "expected check INTERFACE"),
        (["tidy", "eth0"], 2, "tidy: expected"),
        (["check", "eth0", "--force"], 2, "check --force: expected"),
        (["check", "../eth0"], 2, "../eth0: expected the name of an interface"),
        (["check", "eth9"], 3, "there is no interface eth9"),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, words: list[str], code: int, line: str) -> None:
    """With what was expected."""
    run = queues(make_card(tmp_path, cpus=1, receive=1, send=1, interrupts=0), *words)

    assert (run.returncode, run.stdout) == (code, "")
    assert run.stderr.startswith(f"queues.sh: error: {line}")


def test_the_kernel_takes_the_values_and_takes_them_back(root: None) -> None:
    """On an interface of the kernel's, in a namespace that is gone afterwards."""
    require(shutil.which("unshare"), "unshare is missing (package util-linux)")
    require(shutil.which("ip"), "ip is missing (package iproute2)")
    script = f"""
mount -t sysfs sysfs /sys && mount -t tmpfs tmpfs /run || exit 99
ip link add one type veth peer name two || exit 99
file=/sys/class/net/one/queues/rx-0/rps_cpus
cat $file
sh {SCRIPT} apply one >/dev/null; echo exit $?; cat $file
sh {SCRIPT} check one >/dev/null; echo exit $?
sh {SCRIPT} revert one >/dev/null; echo exit $?; cat $file
ls -A /run
"""
    command = ["unshare", "--net", "--mount", "--propagation", "private", "sh", "-c", script]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    before, *rest = run.stdout.splitlines()

    require(os.sysconf("SC_NPROCESSORS_ONLN") > 1, "needs two processors")
    assert rest[0] == "exit 0", run.stdout + run.stderr
    assert int(rest[1].replace(",", ""), 16) == (1 << os.sysconf("SC_NPROCESSORS_ONLN")) - 1
    assert rest[2:] == ["exit 0", "exit 0", before]


CHAIN = "add chain inet f c { type filter hook input priority 0; }"
FIREWALL = f"add table inet f; {CHAIN}; add rule inet f c ct state new accept"
PEERS = 200


def test_the_notrack_rules_keep_the_table_empty(root: None) -> None:
    """Two hundred peers of a machine with a stateful firewall: an entry each without the rules, none with them."""
    require(shutil.which("nft"), "nft is missing (package nftables)")
    file = tuning_directory() / "linux" / "notrack.nft"
    entries = []
    for commands in ([["nft", FIREWALL]], [["nft", FIREWALL], ["nft", "-f", str(file)]]):
        with veth_pair(1500) as pair:
            for command in commands:
                subprocess.run(["ip", "netns", "exec", pair.near, *command], check=True)
            node = in_namespace(pair.near, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            with node, ExitStack() as stack:
                node.bind((pair.near_hosts[0], 10000))
                node.settimeout(10)
                for _ in range(PEERS):
                    peer = in_namespace(pair.far, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                    stack.enter_context(peer)
                    peer.settimeout(10)
                    peer.sendto(b"hello", node.getsockname())
                    data, address = node.recvfrom(9)
                    node.sendto(data, address)
                    assert peer.recv(9) == b"hello"
            count = ["ip", "netns", "exec", pair.near, "cat", "/proc/sys/net/netfilter/nf_conntrack_count"]
            run = subprocess.run(count, capture_output=True, text=True, check=True)
            entries.append(int(run.stdout))

    assert entries == [PEERS, 0]


def test_the_notrack_rules_are_taken_twice_and_removed(root: None) -> None:
    """By nft in a namespace: a second time changes nothing, and the command for the way back works."""
    require(shutil.which("nft"), "nft is missing (package nftables)")
    file = tuning_directory() / "linux" / "notrack.nft"
    (undo,) = [line.split("sudo ")[1].split("  ")[0] for line in file.read_text().splitlines() if "undo" in line]
    script = f"nft -f {file} && nft -f {file} && nft list ruleset && echo undone && {undo} && nft list ruleset"
    command = ["unshare", "--net", "sh", "-ec", script]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    rules, after = run.stdout.split("undone\n")

    assert run.returncode == 0, run.stderr
    assert rules.count("notrack") == 3
    assert "udp dport { 10000, 49152-65535 } notrack" in rules
    assert "udp sport { 10000, 49152-65535 } notrack" in rules
    assert after == ""
