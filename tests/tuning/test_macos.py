"""
The macOS script, with stand-ins for the programs of macOS: sysctl with a kernel that may refuse, uname and id.

There is no macOS to run it on: what is shown here is that the script is right about a system that answers as its
manual pages say.
"""

import os
import plistlib
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from antquic_server.tuning.catalogue import load_topic
from antquic_server.tuning.places import tuning_directory
from antquic_server.tuning.rules import RuleKind
from support.require import require

SCRIPT = tuning_directory() / "macos" / "tune.sh"
SETTINGS = {one.key: one for one in load_topic(SCRIPT.with_name("settings.conf")).settings}
STOCK = {"kern.ipc.maxsockbuf": "6291456", "net.inet.udp.recvspace": "786896", "net.inet.udp.maxdgram": "9216"}

SYSCTL = """#!/bin/sh
# -n KEY prints a value, -w KEY=VALUE sets it; a file LIMIT holds what the kernel accepts at most.
kernel="$ANTQUIC_TUNING_ROOT/kernel"
case "$1" in
    -n) cat "$kernel/$2" 2>/dev/null || { echo "sysctl: unknown oid '$2'" >&2; exit 1; } ;;
    -w)
        key=${2%%=*} value=${2#*=}
        if [ -e "$kernel/LIMIT" ] && [ "$value" -gt "$(cat "$kernel/LIMIT")" ]; then
            echo "sysctl: $key=$value: Result too large" >&2
            exit 1
        fi
        echo "$value" >"$kernel/$key"
        ;;
esac
"""


class Mac:
    """A system below ``root`` on whose PATH the stand-ins come first."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.record = root / "Library/Application Support/antquic-server/tuning.tsv"
        self.plist = root / "Library/LaunchDaemons/antquic-server.tuning.plist"
        (root / "bin").mkdir()
        (root / "kernel").mkdir()
        self.program("sysctl", SYSCTL)
        self.program("uname", "#!/bin/sh\necho Darwin\n")
        self.program("id", "#!/bin/sh\necho 0\n")
        for key, value in STOCK.items():
            (root / "kernel" / key).write_text(value + "\n")

    def program(self, name: str, text: str) -> None:
        """Put a stand-in on the PATH."""
        path = self.root / "bin" / name
        path.write_text(text)
        path.chmod(0o755)

    @property
    def values(self) -> dict[str, str]:
        """What the kernel has."""
        return {key: (self.root / "kernel" / key).read_text().strip() for key in STOCK}

    def tune(self, *words: str, shell: str = "sh") -> subprocess.CompletedProcess[str]:
        """Run the script."""
        environment = {"PATH": f"{self.root}/bin:{os.environ['PATH']}", "ANTQUIC_TUNING_ROOT": str(self.root)}
        command = [shell, str(SCRIPT), *words]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def mac(tmp_path: Path) -> Mac:
    """A macOS with stock values."""
    return Mac(tmp_path)


def wanted() -> Mapping[str, str]:
    """What the settings file wants."""
    return {key: setting.value for key, setting in SETTINGS.items()}


def test_the_settings_are_those_of_the_guide() -> None:
    """And of a kind that a shell can compare."""
    assert SETTINGS["kern.ipc.maxsockbuf"].value == "8388608"
    assert {setting.rule.kind for setting in SETTINGS.values()} == {RuleKind.AT_LEAST}
    assert set(SETTINGS) == set(STOCK)
    # A receive space that does not fit below the maximum would leave no UDP socket: twice is plenty for overhead.
    assert 2 * int(SETTINGS["net.inet.udp.recvspace"].value) < int(STOCK["kern.ipc.maxsockbuf"])


@pytest.mark.parametrize("shell", ["sh", "bash", "dash"])
def test_apply_then_revert_restores_everything(mac: Mac, shell: str) -> None:
    """In any POSIX shell: macOS has had three."""
    require(shutil.which(shell), f"{shell} is missing")

    assert mac.tune("check", shell=shell).returncode == 1
    assert mac.tune("apply", shell=shell).returncode == 0
    assert mac.values == wanted()
    assert mac.tune("check", shell=shell).returncode == 0
    assert mac.tune("revert", shell=shell).returncode == 0
    assert mac.values == STOCK
    assert not mac.record.exists()
    assert not mac.record.parent.exists()
    assert not mac.plist.exists()
    assert mac.tune("revert", shell=shell).stdout == "nothing to revert: nothing is recorded\n"


def test_a_second_apply_changes_nothing(mac: Mac) -> None:
    """Neither the record nor the job, and says so."""
    mac.tune("apply")
    before = mac.record.read_text(), mac.plist.read_text()
    run = mac.tune("apply")

    assert run.returncode == 0
    assert run.stdout.splitlines()[-1] == "nothing to change: every setting is as wanted"
    assert (mac.record.read_text(), mac.plist.read_text()) == before


def test_the_job_sets_the_same_values_at_the_next_start(mac: Mac) -> None:
    """A property list that launchd understands, with only what was changed."""
    (mac.root / "kernel" / "net.inet.udp.maxdgram").write_text("100000\n")
    mac.tune("apply")
    job = plistlib.loads(mac.plist.read_bytes())

    assert job == {
        "Label": "antquic-server.tuning",
        "ProgramArguments": [
            "/usr/sbin/sysctl",
            "kern.ipc.maxsockbuf=8388608",
            "net.inet.udp.recvspace=2097152",
        ],
        "RunAtLoad": True,
    }
    assert mac.plist.stat().st_mode & 0o777 == 0o644


def test_a_larger_value_is_left_alone(mac: Mac) -> None:
    """As everywhere."""
    (mac.root / "kernel" / "kern.ipc.maxsockbuf").write_text("33554432\n")
    mac.tune("apply")

    assert mac.values["kern.ipc.maxsockbuf"] == "33554432"
    assert "maxsockbuf" not in mac.record.read_text()


def test_what_the_kernel_refuses_is_reported_and_not_recorded(mac: Mac) -> None:
    """Some releases accept less: the rest is set, the exit code is 1, revert restores the rest."""
    (mac.root / "kernel" / "LIMIT").write_text("6291456\n")
    run = mac.tune("apply")

    assert run.returncode == 1
    assert "failed: the kernel refuses this value" in run.stdout
    assert mac.values == {**wanted(), "kern.ipc.maxsockbuf": "6291456"}
    assert "maxsockbuf" not in mac.record.read_text() + mac.plist.read_text()
    assert mac.tune("revert").returncode == 0
    assert mac.values == STOCK


def test_a_value_changed_since_is_kept_until_forced(mac: Mac) -> None:
    """It stays in the record."""
    mac.tune("apply")
    (mac.root / "kernel" / "net.inet.udp.maxdgram").write_text("20000\n")
    run = mac.tune("revert")

    assert run.returncode == 1
    assert "changed by somebody since it was set to 65535" in run.stdout
    assert mac.values == {**STOCK, "net.inet.udp.maxdgram": "20000"}
    assert mac.tune("revert", "--force").returncode == 0
    assert mac.values == STOCK


def test_the_value_found_first_stays_recorded(mac: Mac) -> None:
    """Though it was set to something else in between and applied again."""
    mac.tune("apply")
    (mac.root / "kernel" / "kern.ipc.maxsockbuf").write_text("1000000\n")
    mac.tune("apply")
    mac.tune("revert")

    assert mac.values == STOCK


def test_an_interrupted_apply_can_be_reverted(mac: Mac) -> None:
    """The second write ends the script as a signal would: the record has it all the same."""
    mac.program("sysctl", SYSCTL.replace("-w)", '-w) case "$2" in *recvspace*) kill -9 $PPID; exit;; esac'))
    assert mac.tune("apply").returncode == -9
    assert mac.values == {**STOCK, "kern.ipc.maxsockbuf": "8388608"}
    mac.program("sysctl", SYSCTL)

    run = mac.tune("revert")
    assert run.returncode == 0, run.stdout
    assert mac.values == STOCK
    assert not mac.record.exists()


def test_a_dry_run_changes_nothing(mac: Mac) -> None:
    """And needs no root."""
    mac.program("id", "#!/bin/sh\necho 501\n")
    run = mac.tune("apply", "--dry-run")

    assert run.returncode == 0
    assert run.stdout.count("would set") == len(STOCK)
    assert mac.values == STOCK
    assert not (mac.root / "Library").exists()


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        ([], 2, "no action given"),
        (["tidy"], 2, "tidy: expected check, apply"),
        (["check", "--force"], 2, "check --force: expected"),
        (["apply", "--dryrun"], 2, "apply --dryrun: expected"),
    ],
)
def test_a_mistake_is_one_line(mac: Mac, words: list[str], code: int, line: str) -> None:
    """With what was expected."""
    run = mac.tune(*words)

    assert (run.returncode, run.stdout) == (code, "")
    assert run.stderr.startswith(f"tune.sh: error: {line}")


def test_without_root_or_macos_nothing_is_done(mac: Mac) -> None:
    """Exit code 3 and one line each."""
    mac.program("id", "#!/bin/sh\necho 501\n")
    run = mac.tune("apply")
    assert (run.returncode, mac.values) == (3, STOCK)
    assert "run it as root" in run.stderr
    mac.program("uname", "#!/bin/sh\necho Linux\n")
    run = mac.tune("check")
    assert run.returncode == 3
    assert "this is Linux, not macOS" in run.stderr
