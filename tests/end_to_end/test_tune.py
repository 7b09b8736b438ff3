"""
``antquic-server tune`` as a real process, against a real kernel and a real ``/proc/sys``, as root.

This machine's settings are never touched: each test has a mount namespace of its own, in which ``/proc/sys`` is a
directory of copies, or a network namespace as well, in which the kernel gives it values of its own. The shell that
runs the command makes sure of that first and gives up otherwise.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from support.require import require
from support.tuned_system import STOCK, catalogue, key_file, make_system, settings_of, snapshot

pytestmark = pytest.mark.end_to_end

REPOSITORY = Path(__file__).resolve().parents[2]
TUNE = f"{sys.executable} -m antquic_server tune"
EVERY_TOPIC = " ".join(f"--topic {topic.name}" for topic in catalogue())
NOT_PRIVATE = 99

PRIVATE_FILES = """
set -u
mount -t tmpfs tmpfs /var/lib || exit 99
mount -t tmpfs tmpfs /etc/sysctl.d || exit 99
mount -t tmpfs tmpfs /etc/modules-load.d || exit 99
"""


def run_privately(script: str, *namespaces: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script in namespaces of its own, with the directories that ``tune`` writes to empty and its own."""
    require(shutil.which("unshare"), "unshare is missing (package util-linux)")
    for directory in ("/etc/sysctl.d", "/etc/modules-load.d"):
        require(Path(directory).is_dir(), f"there is no {directory}")
    command = ["unshare", "--mount", "--propagation", "private", *namespaces, "sh", "-c", PRIVATE_FILES + script]
    run = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode != NOT_PRIVATE, run.stderr
    return run


def real_values() -> dict[str, str]:
    """What this machine has, of every setting in the catalogue."""
    files = {key: key_file(Path("/"), key) for key in settings_of(catalogue())}
    return {key: path.read_text() for key, path in files.items() if path.exists()}


def exit_codes(run: subprocess.CompletedProcess[str]) -> list[int]:
    """Return the exit codes that a script has printed, in order."""
    return [int(line.removeprefix("exit ")) for line in run.stdout.splitlines() if line.startswith("exit ")]


def objects(run: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    """Return the JSON objects that a script has printed, in order."""
    return [json.loads(line) for line in run.stdout.splitlines() if line.startswith("{")]


def verdicts(report: dict[str, Any]) -> dict[str, str]:
    """Return the verdict of each setting."""
    return {setting["key"]: setting["verdict"] for setting in report["settings"]}


def test_every_value_is_restored_on_a_proc_sys_of_its_own(root: None, tmp_path: Path) -> None:
    """The command as an operator runs it, all settings: check, apply, apply, check, revert; byte for byte as before."""
    before_here = real_values()
    system = make_system(tmp_path / "system")
    before = snapshot(system)
    commands = [f"{action} {EVERY_TOPIC}" for action in ("check", "apply", "apply", "check")]
    script = f"""
mount --bind {system}/proc/sys /proc/sys || exit 99
[ "$(stat -c %d:%i /proc/sys)" = "$(stat -c %d:%i {system}/proc/sys)" ] || exit 99
{"".join(f"{TUNE} {command}; echo exit $?{chr(10)}" for command in commands)}
cat /etc/sysctl.d/60-antquic-server.conf /etc/modules-load.d/antquic-server.conf
for file in /etc/sysctl.d/*; do sysctl --dry-run --load "$file" >/dev/null || echo exit 77; done
{TUNE} revert; echo exit $?
find /var/lib /etc/sysctl.d /etc/modules-load.d -mindepth 1
"""
    run = run_privately(script)

    assert exit_codes(run) == [1, 0, 0, 0, 0], run.stdout + run.stderr
    assert run.stderr == ""
    assert "nothing to change: every setting is as wanted" in run.stdout
    assert "net.core.rmem_max = 26214400" in run.stdout
    assert "nf_conntrack" in run.stdout.splitlines(), "its keys are not there when the files of sysctl.d are read"
    assert f"{len(STOCK)} restored" in run.stdout.splitlines()
    assert run.stdout.splitlines()[-1] == "exit 0", "nothing may be left in /var/lib, sysctl.d or modules-load.d"
    assert snapshot(system) == before
    assert real_values() == before_here


@pytest.mark.parametrize("is_early", [False, True])
def test_the_first_start_of_the_node_leaves_the_way_back(root: None, tmp_path: Path, is_early: bool) -> None:
    """systemd gives the state directory to the node's account: no matter, nor for a record that was in there."""
    system = make_system(tmp_path / "system")
    before = snapshot(system)
    state = "/var/lib/antquic-server"
    early = f"mkdir {state} && mv {state}-tuning/tuning.json {state}/ && rmdir {state}-tuning && {TUNE} apply"
    run = run_privately(f"""
umask 0000
mount --bind {system}/proc/sys /proc/sys || exit 99
{TUNE} apply >/dev/null; echo exit $?
{early if is_early else "true"}; echo exit $?
mkdir -p {state} && chown -R 65534:65534 {state}
stat -c "%u %a" {state}-tuning {state}-tuning/tuning.json
{TUNE} check >/dev/null; echo exit $?
{TUNE} revert >/dev/null; echo exit $?
find /var/lib /etc/sysctl.d /etc/modules-load.d -mindepth 1
""")

    assert exit_codes(run) == [0, 0, 0, 0], run.stdout + run.stderr
    assert run.stderr == ""
    assert ("moved from /var/lib/antquic-server/tuning.json" in run.stdout) is is_early
    assert [line for line in run.stdout.splitlines() if line.startswith("0 ")] == ["0 755", "0 644"]
    assert run.stdout.splitlines()[-2:] == ["exit 0", state], "only the node's own directory is left"
    assert snapshot(system) == before


@pytest.mark.parametrize("program", ["/usr/lib/systemd/systemd-sysctl", "/usr/sbin/sysctl --system"])
def test_the_next_start_sets_what_was_applied(root: None, tmp_path: Path, program: str) -> None:
    """A start is what systemd and procps do with the directories; the kernel begins with its own values again."""
    path = program.split(maxsplit=1)[0]
    require(Path(path).exists(), f"{path} is missing")
    system = make_system(tmp_path / "system")
    stock = make_system(tmp_path / "stock")
    run = run_privately(f"""
mount --bind {system}/proc/sys /proc/sys || exit 99
{TUNE} apply {EVERY_TOPIC} >/dev/null; echo exit $?
cp -r {stock}/proc/sys/. /proc/sys/
{TUNE} check {EVERY_TOPIC} >/dev/null; echo exit $?
{program} >/dev/null 2>&1
{TUNE} check {EVERY_TOPIC} >/dev/null; echo exit $?
{TUNE} revert >/dev/null; echo exit $?
""")

    assert exit_codes(run) == [0, 1, 0, 0], run.stdout + run.stderr
    assert {key: key_file(system, key).read_text() for key in STOCK} == {
        key: f"{value}\n" for key, value in STOCK.items()
    }


def test_values_of_a_network_namespace_are_set_by_the_kernel_and_restored(root: None, tmp_path: Path) -> None:
    """
    What the namespace has of its own changes and comes back; what belongs to the machine is named and left.

    Which is which is found out here, from the permissions the kernel shows in the namespace.
    """
    before_here = real_values()
    keys = settings_of(catalogue())
    # fs and vm have no namespace: copies stand for them.
    copies = make_system(tmp_path / "copies", {key: STOCK[key] for key in keys if not key.startswith("net.")})
    lists = " ".join(str(key_file(Path("/"), key)) for key in keys)
    values = f'for file in {lists}; do [ -e "$file" ] && printf "%s %s\\t" "$file" "$(cat "$file")"; done; echo'
    script = f"""
mount --bind {copies}/proc/sys/fs /proc/sys/fs && mount --bind {copies}/proc/sys/vm /proc/sys/vm || exit 99
[ "$(readlink /proc/self/ns/net)" != "$(readlink /proc/$PPID/ns/net)" ] || exit 99
for file in {lists}; do [ ! -e "$file" ] || echo "mode $(stat -c %a "$file") $file"; done
echo 49152 65535 >/proc/sys/net/ipv4/ip_local_port_range
echo 8080,9000-9010 >/proc/sys/net/ipv4/ip_local_reserved_ports
[ ! -e /proc/sys/net/netfilter/nf_conntrack_udp_timeout ] || echo 7 >/proc/sys/net/netfilter/nf_conntrack_udp_timeout
{values}
{TUNE} apply {EVERY_TOPIC} --json; echo exit $?
cat /proc/sys/net/ipv4/ip_local_port_range /proc/sys/net/ipv4/ip_local_reserved_ports
{TUNE} apply {EVERY_TOPIC} --json; echo exit $?
{TUNE} revert --json; echo exit $?
{values}
"""
    run = run_privately(script, "--net")
    lines = run.stdout.splitlines()
    modes = {line.split()[2]: int(line.split()[1], 8) for line in lines if line.startswith("mode ")}
    first, second, last = objects(run)
    writable = {key for key in keys if modes.get(str(key_file(Path("/"), key)), 0) & 0o222}
    fixed = {key for key in keys if str(key_file(Path("/"), key)) in modes} - writable

    assert {"net.ipv4.ip_local_reserved_ports", "net.ipv4.ip_local_port_range", "vm.swappiness"} <= writable
    assert {key for key, verdict in verdicts(first).items() if verdict == "changed"} <= writable
    assert {verdicts(first)[key] for key in writable} <= {"changed", "fine"}
    assert {verdicts(first)[key] for key in fixed} <= {"not from here", "fine"}
    assert {verdicts(first)[key] for key in keys if key not in writable | fixed} <= {"not there"}
    assert "32768\t65535" in lines
    assert "8080,9000-9010,10000,49152-65535" in lines
    assert "changed" not in verdicts(second).values(), "a second run changes nothing"
    assert set(verdicts(last).values()) == {"restored"}
    before, after = (line for line in lines if line.startswith("/proc/sys/"))
    assert after == before
    # What belongs to the machine cannot be set in here: that is told, and is no success.
    assert exit_codes(run) == [int(not first["good"]), int(not first["good"]), 0], run.stdout + run.stderr
    assert real_values() == before_here


def test_reserved_ports_are_given_to_nobody_who_asks_for_any(root: None) -> None:
    """The effect that the settings file states, by the command it names: 42 percent before, none after."""
    run = run_privately(
        f"""
[ "$(readlink /proc/self/ns/net)" != "$(readlink /proc/$PPID/ns/net)" ] || exit 99
ip link set lo up
{TUNE} measure --json
{TUNE} apply --topic ports >/dev/null; echo exit $?
{TUNE} measure --json
""",
        "--net",
    )
    before, after = objects(run)

    assert exit_codes(run) == [0], run.stdout + run.stderr
    assert before["ports_in_range"] / before["ports"] == pytest.approx(0.42, abs=0.05)
    assert after["ports_in_range"] == 0


def test_where_everything_is_mounted_for_reading_nothing_is_promised(root: None) -> None:
    """As in most containers: what is not fine is for the machine outside; exit code 1, and no file is left."""
    before_here = real_values()
    run = run_privately(f"""
mount --bind /proc/sys /proc/sys && mount -o remount,ro,bind /proc/sys || exit 99
[ ! -w /proc/sys/fs/nr_open ] || exit 99
{TUNE} apply {EVERY_TOPIC} --json; echo exit $?
find /var/lib /etc/sysctl.d /etc/modules-load.d -mindepth 1
""")
    (report,) = objects(run)

    assert set(verdicts(report).values()) <= {"not from here", "fine", "not there", "lost at boot"}
    assert "not from here" in verdicts(report).values()
    assert report["changed"] is False
    assert exit_codes(run) == [1]
    assert run.stdout.splitlines()[-1] == "exit 1", "a file was left"
    assert real_values() == before_here


def test_without_root_nothing_is_touched(root: None, tmp_path: Path) -> None:
    """An ordinary user may look, and is told what changing needs: exit code 3."""
    system = make_system(tmp_path / "system")
    before = snapshot(system)
    require(shutil.which("setpriv"), "setpriv is missing (package util-linux)")
    # It keeps the right to read everything, for the environment may be in a home directory.
    rights = "-all,+dac_read_search"
    # Nobody may not write the figures of a coverage run either.
    untraced = "env --unset=COVERAGE_PROCESS_CONFIG --unset=COVERAGE_PROCESS_START"
    user = f"{untraced} setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps={rights} --ambient-caps={rights}"
    run = run_privately(f"""
mount --bind {system}/proc/sys /proc/sys || exit 99
{user} {TUNE} check; echo exit $?
{user} {TUNE} apply; echo exit $?
{user} {TUNE} apply --dry-run >/dev/null; echo exit $?
""")

    assert exit_codes(run) == [1, 3, 0], run.stdout + run.stderr
    assert run.stderr.splitlines() == [
        "antquic-server: error: tune apply changes settings of the kernel: run it as root; --dry-run needs no rights"
    ]
    assert snapshot(system) == before


KILLED_AT = """
import os, signal, sys
from antquic_server import cli
from antquic_server.tuning.kernel import Kernel
real, left = Kernel.write, int(sys.argv[1])
def write(self, key, value):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    real(self, key, value)
Kernel.write = write
sys.exit(cli.main(sys.argv[2:]))
"""


@pytest.mark.parametrize("step", [1, 7, len(STOCK)])
def test_a_killed_apply_leaves_the_way_back(tmp_path: Path, step: int) -> None:
    """SIGKILL between two settings: revert restores all that was set, and leaves no file."""
    system = make_system(tmp_path / "system")
    before = {name: content for name, content in snapshot(system).items() if content is not None}
    options = ["--root", str(system), *EVERY_TOPIC.split()]

    killed = subprocess.run(
        [sys.executable, "-c", KILLED_AT, str(step), "tune", "apply", *options], cwd=REPOSITORY, check=False
    )
    assert killed.returncode == -9
    changed = [name for name, content in before.items() if snapshot(system)[name] != content]
    assert len(changed) == step - 1
    run = subprocess.run(
        [*TUNE.split(), "revert", "--root", str(system)], cwd=REPOSITORY, check=False, capture_output=True
    )

    assert run.returncode == 0
    assert {name: content for name, content in snapshot(system).items() if content is not None} == before


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory into which a wheel of this tree, built here, has been installed; the tree stays clean."""
    directory = tmp_path_factory.mktemp("wheel")
    source = directory / "source"
    for name in ("antquic_server", "workers", "tuning"):
        shutil.copytree(REPOSITORY / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source)
    pip(["wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(directory), str(source)])
    (wheel,) = directory.glob("*.whl")
    pip(["install", "--no-deps", "--no-index", "--target", str(directory / "target"), str(wheel)])
    return directory / "target"


def pip(words: Sequence[str]) -> None:
    """Run pip of this environment, offline; shows what it said if it fails."""
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *words]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def test_the_wheel_has_every_tuning_file(installed: Path) -> None:
    """Those of the checkout, with the same bytes, none missing, and no others."""
    assert snapshot(installed / "share/antquic-server/tuning") == snapshot(REPOSITORY / "tuning")


def test_tune_works_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    """In a directory without a checkout, all actions, with the files of the wheel."""
    system = make_system(tmp_path / "system")
    before = snapshot(system)

    def tune(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "antquic_server", "tune", *words, "--root", str(system)]
        environment = {"PYTHONPATH": str(installed), "PATH": "/usr/bin:/bin"}
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    where = subprocess.run(
        [sys.executable, "-c", "import antquic_server.tuning.places as p; print(p.__file__, p.tuning_directory())"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert where.stdout.split() == [
        f"{installed}/antquic_server/tuning/places.py",
        f"{installed}/share/antquic-server/tuning",
    ]
    assert tune("check").returncode == 1
    assert tune("apply").returncode == 0
    assert tune("check").returncode == 0
    assert tune("revert").returncode == 0
    assert snapshot(system) == before
