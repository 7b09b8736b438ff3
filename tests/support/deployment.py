"""What a deployment needs where there is no Internet: a Debian image, a mirror of packages, wheels, and Ansible."""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.node import REPOSITORY
from support.nspawn import Machine, Network
from support.veth import in_namespace

__all__ = [
    "DEPLOY",
    "MIRROR",
    "WHEELS",
    "Deployed",
    "Playbooks",
    "Recap",
    "build_wheel",
    "debian_image",
    "files_of",
    "liboqs_archive",
    "prepare_root",
    "tools_missing",
    "wheelhouse",
]

DEPLOY = REPOSITORY / "deploy"
SUITE = "bookworm"
BARE = ("systemd", "systemd-sysv", "dbus", "openssh-server", "python3", "iproute2", "procps")
"""A server as a provider hands it over: Ansible needs Python and SSH of it."""

MIRRORED = ("python3-venv", "python3-apt", "nftables", "logrotate")
"""Packages the role may want, with all they depend on."""

MIRROR = "/srv/mirror"
WHEELS = "/srv/wheels"
"""Where machines see the two."""

OWN_BUSINESS = re.compile(
    r"/(dev|proc|sys|run|tmp|var/(cache|log|tmp|lib/(apt|dpkg|systemd|private|ucf|logrotate))"
    r"|root/\.ansible|etc/(machine-id|(passwd|shadow|group|gshadow|subuid|subgid)-|\.pwd\.lock|ld\.so\.cache))(/|$)"
    r"|.*/__pycache__(/|$)"
)
"""Caches, logs, lists and stamps that the system and its package manager keep for themselves."""

NEEDED = ("systemd-nspawn", "mmdebstrap", "dpkg-scanpackages", "ssh-keygen", "ssh", "nsenter", "ip")
PLAYBOOK_TIMEOUT_S = 900.0
"""Half a minute for each host where nothing else runs; minutes on a machine that does other things as well."""


def tools_missing() -> list[str]:
    """Return which of the programs for all this are not here."""
    return [name for name in NEEDED if shutil.which(name) is None]


def cache_directory() -> Path:
    """Where what takes long to make is kept between runs."""
    cache = Path(os.environ.get("ANTQUIC_CACHE") or Path.home() / ".cache" / "antquic-server")
    directory = cache / "deploy"
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def debian_image() -> tuple[Path, Path]:
    """Return a bare Debian's file system and the packages of ``MIRRORED`` as an apt repository; made when missing."""
    key = hashlib.sha256(repr((SUITE, BARE, MIRRORED)).encode()).hexdigest()[:12]

    def make(there: Path) -> None:
        # The hook runs in the new system before its lists and caches are cleaned.
        fetch = (
            'mkdir -p "$1/tmp/mirror/partial" && chroot "$1" apt-get install --yes --no-install-recommends '
            f"--download-only -o Dir::Cache::archives=/tmp/mirror {' '.join(MIRRORED)} && mkdir -p {there}/mirror && "
            f'cp "$1"/tmp/mirror/*.deb {there}/mirror/ && rm -rf "$1/tmp/mirror"'
        )
        command = ["mmdebstrap", "--quiet", "--variant=apt", f"--include={','.join(BARE)}", f"--customize-hook={fetch}"]
        _run([*command, SUITE, str(there / "root")])
        packages = _run(["dpkg-scanpackages", "--multiversion", "."], directory=there / "mirror")
        (there / "mirror" / "Packages").write_text(packages)
        (there / "root/etc/apt/sources.list").write_text(f"deb [trusted=yes] file:{MIRROR} ./\n")

    there = _made_once(f"debian-{SUITE}-{key}", make)
    return there / "root", there / "mirror"


def wheelhouse() -> Path:
    """Return a directory with wheels of everything the package depends on; made when missing."""
    key = hashlib.sha256((REPOSITORY / "pyproject.toml").read_bytes() + sys.version.encode() + b"2").hexdigest()[:12]

    def make(there: Path) -> None:
        source = there / "source"
        _copy_source(source)
        # The build backend as well, for whoever builds the package there.
        _run([sys.executable, "-m", "pip", "wheel", "--quiet", f"--wheel-dir={there}", str(source), _backend()])
        shutil.rmtree(source)
        for own in there.glob("antquic_server-*.whl"):
            own.unlink()

    return _made_once(f"wheels-{key}", make)


def build_backend() -> Path:
    """Return a directory with setuptools in it: pip would fetch one for every wheel it builds."""

    def make(there: Path) -> None:
        _run([sys.executable, "-m", "pip", "install", "--quiet", f"--target={there}", _backend()])

    return _made_once("setuptools", make)


def _backend() -> str:
    (requirement,) = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["build-system"]["requires"]
    return str(requirement)


def build_wheel(directory: Path, version: str, *, change: Callable[[Path], None] | None = None) -> Path:
    """Build a wheel of this source tree under another version; ``change`` edits the copy before."""
    source = directory / f"source-{version}"
    _copy_source(source)
    init = source / "antquic_server" / "__init__.py"
    text, changed = re.subn(r'(?m)^__version__ = ".*"$', f'__version__ = "{version}"', init.read_text())
    assert changed == 1
    init.write_text(text)
    if change is not None:
        change(source)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    _run([*command, f"--wheel-dir={directory}", str(source)], environment={"PYTHONPATH": str(build_backend())})
    (wheel,) = directory.glob(f"antquic_server-{version}-*.whl")
    return wheel


def liboqs_archive(directory: Path) -> Path | None:
    """Return an archive of the liboqs that ``make liboqs`` has built, None where it has not."""
    prefix = cache_directory().parent / "liboqs"
    if not (prefix / "lib" / "liboqs.so").exists():
        return None
    archive = directory / "liboqs.tar.gz"
    _run(["tar", "-czf", str(archive), "-C", str(prefix.resolve()), "lib"])
    return archive


def files_of(root: Path) -> dict[str, str]:
    """
    Return what a system's file system holds: path → kind, mode, owner and digest.

    What any system writes by itself (``OWN_BUSINESS``), is left out.
    """
    found = {}
    for directory, directories, files in os.walk(root):
        here = "/" + str(Path(directory).relative_to(root)).removeprefix(".")
        kept = [name for name in directories if not OWN_BUSINESS.match(f"{here}/{name}/".replace("//", "/"))]
        directories[:] = [name for name in kept if not (Path(directory) / name).is_symlink()]
        for name in [*files, *kept]:
            path, shown = Path(directory) / name, f"{here}/{name}".replace("//", "/")
            if not OWN_BUSINESS.match(shown):
                found[shown] = _describe(path)
    return found


def _describe(path: Path) -> str:
    facts = path.lstat()
    what = f"{stat.filemode(facts.st_mode)} {facts.st_uid}:{facts.st_gid}"
    if path.is_symlink():
        return f"{what} -> {path.readlink()}"
    return f"{what} {hashlib.sha256(path.read_bytes()).hexdigest()[:16]}" if path.is_file() else what


def prepare_root(root: Path, public_key: str) -> None:
    """Let the holder of a key in, as a provider does; give the system the mirror and a bus name of its own."""
    keys = root / "root/.ssh"
    keys.mkdir(mode=0o700, exist_ok=True)
    (keys / "authorized_keys").write_text(public_key)
    (keys / "authorized_keys").chmod(0o600)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recap:
    """How a play ended on each host (``changed``, ``failures``, …), and everything Ansible wrote."""

    exit_code: int
    stats: Mapping[str, Mapping[str, int]]
    output: str = field(repr=False)

    def require_success(self) -> None:
        """Raise AssertionError with what Ansible says of the failure, unless every host has come to the end."""
        if self.exit_code:
            found = re.findall(r"(?m)^(?:fatal|failed): .*|^\[ERROR\].*", self.output)
            raise AssertionError("\n".join(line[:3000] for line in found) or self.output[-3000:])

    def changed_tasks(self) -> list[str]:
        """Return the names of the tasks that have changed something, in order."""
        names, task = [], ""
        for line in self.output.splitlines():
            if line.startswith("TASK ["):
                task = line.partition("[")[2].rpartition("]")[0]
            elif line.startswith("changed:") and task not in names:
                names.append(task)
        return names


class Playbooks:
    """Runs the playbooks of ``deploy/`` over SSH from the network's own namespace, against ``machines``."""

    def __init__(
        self,
        directory: Path,
        net: Network,
        variables: Mapping[str, object],
        host_variables: Mapping[str, Mapping[str, object]],
    ) -> None:
        self.identities = directory / "identities"
        self._host_variables = host_variables
        self._directory = directory
        self.network = net
        self._variables = dict(variables)
        self._key = directory / "key"
        _run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self._key)])

    @property
    def public_key(self) -> str:
        """For a machine's ``authorized_keys``."""
        return self._key.with_suffix(".pub").read_text()

    def run(self, playbook: str, machines: Sequence[Machine], *arguments: str, **variables: object) -> Recap:
        """Run ``deploy/<playbook>``; ``variables`` win over those given at the start."""
        inventory = self._inventory(machines, variables)
        log = self._directory / "stats.json"
        log.unlink(missing_ok=True)
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "COVERAGE_"))},
            "ANSIBLE_CONFIG": str(DEPLOY / "ansible.cfg"),
            "ANSIBLE_HOME": str(self._directory / "ansible"),
            "ANSIBLE_HOST_KEY_CHECKING": "False",
            "ANSIBLE_SSH_ARGS": f"-o ControlMaster=auto -o ControlPersist=30s -o UserKnownHostsFile={os.devnull}",
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(self._directory / "cp"),
            "ANSIBLE_NOCOLOR": "1",
        }
        command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", str(inventory), *arguments]
        done = subprocess.run(
            self.network.inside([*command, str(DEPLOY / playbook)]),
            cwd=DEPLOY,
            env=environment,
            capture_output=True,
            text=True,
            timeout=PLAYBOOK_TIMEOUT_S,
            check=False,
        )
        output = done.stdout + done.stderr
        (self._directory / "last.log").write_text(output)
        return Recap(exit_code=done.returncode, stats=_recap(output), output=output)

    def _inventory(self, machines: Sequence[Machine], variables: Mapping[str, object]) -> Path:
        hosts = {
            machine.name: {"ansible_host": machine.host, **self._host_variables.get(machine.name, {})}
            for machine in machines
        }
        own = {
            "ansible_user": "root",
            "ansible_ssh_private_key_file": str(self._key),
            "antquic_server_identity_backup_directory": str(self.identities),
            "antquic_server_pip_arguments": ["--no-index", "--find-links", WHEELS],
        }
        document: dict[str, Any] = {"antquic_server": {"hosts": hosts, "vars": {**own, **self._variables, **variables}}}
        path = self._directory / "hosts.json"
        path.write_text(json.dumps(document))
        return path


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployed:
    """Two machines with a running node each, and how they came to it; ``check`` is what was said of them when bare."""

    machines: list[Machine]
    check: Recap
    recap: Recap
    playbooks: Playbooks
    wheels: dict[str, Path]
    pristine: list[dict[str, str]]

    @property
    def alpha(self) -> Machine:
        """The node with the defaults."""
        return self.machines[0]

    @property
    def beta(self) -> Machine:
        """The node with everything otherwise."""
        return self.machines[1]

    def peer(self, command: Sequence[str], environment: Mapping[str, str]) -> str:
        """Run a command on the network, outside of the machines, and return what it writes."""
        done = subprocess.run(
            self.playbooks.network.inside(command),
            env=dict(environment),
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def opens(self, machine: Machine, port: int) -> bool:
        """Whether a TCP connection to a machine's port comes about from the network."""

        def attempt() -> bool:
            try:
                socket.create_connection((machine.host, port), timeout=2.0).close()
            except OSError:
                return False
            return True

        return in_namespace(self.playbooks.network.namespace, attempt)

    def rules(self, machine: Machine) -> str:
        """Return a machine's nftables rules, seen with our own program."""
        return in_namespace(machine.namespace, lambda: _run(["nft", "list", "ruleset"]))


def _recap(output: str) -> dict[str, dict[str, int]]:
    """Read the lines ``host : ok=1 changed=2 …`` at the end of Ansible's output."""
    rows = re.findall(r"(?m)^(\S+)\s+: (ok=.*)$", output.rpartition("PLAY RECAP")[2])
    return {host: {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", row)} for host, row in rows}


def _copy_source(there: Path) -> None:
    there.mkdir(parents=True)
    for name in ("antquic_server", "workers", "tuning"):
        shutil.copytree(REPOSITORY / name, there / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, there / name)


def _made_once(name: str, make: Callable[[Path], None]) -> Path:
    """Return the directory ``name`` of the cache; ``make`` fills it where it does not exist, one process at a time."""
    cache = cache_directory()
    with _locked(cache / f"{name}.lock"):
        there, unfinished = cache / name, cache / f"{name}.unfinished"
        if not there.is_dir():
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            make(unfinished)
            unfinished.rename(there)
    return there


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _run(command: Sequence[str], *, directory: Path | None = None, environment: Mapping[str, str] | None = None) -> str:
    everything = {**os.environ, **(environment or {})}
    done = subprocess.run(command, cwd=directory, env=everything, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout
