"""Booted Debian systems in systemd-nspawn containers on a network of their own (root only)."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from support.cgroups import inside, own_cgroups
from support.veth import RUN_NETNS
from support.waiting import wait_until

__all__ = ["Machine", "Network", "booted", "network"]

BOOT_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 20.0
COMMAND_TIMEOUT_S = 120.0
SSH_UNIT = "ssh"

_numbers = count()


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """
    A namespace with a bridge, to which machines are plugged in; its own address is ``host`` (IPv4).

    Nothing in it leads to the outside.
    """

    namespace: str
    host: str = "198.18.77.1"

    def inside(self, command: Sequence[str]) -> list[str]:
        """Return ``command`` as it must be called to run in this namespace."""
        return ["nsenter", f"--net={RUN_NETNS / self.namespace}", "--", *command]


@contextlib.contextmanager
def network() -> Iterator[Network]:
    """Make the namespace and its bridge, and remove both again."""
    net = Network(namespace=f"antquic-deploy-{os.getpid()}-{next(_numbers)}")
    _ip("netns", "add", net.namespace)
    try:
        _ip("-n", net.namespace, "link", "set", "lo", "up")
        _ip("-n", net.namespace, "link", "add", "bridge", "type", "bridge")
        _ip("-n", net.namespace, "address", "add", f"{net.host}/24", "dev", "bridge")
        _ip("-n", net.namespace, "link", "set", "bridge", "up")
        yield net
    finally:
        _ip("netns", "delete", net.namespace)


@dataclass(slots=True, kw_only=True)
class Machine:
    """
    One system with an init of its own, at ``host`` (IPv4) of the network.

    ``root`` is its file system: ``image`` below, what it writes above, so that machines share an image.
    ``binds`` are directories of this machine it may read: there → here. ``cgroups`` are for it alone.
    """

    name: str
    host: str
    image: Path
    network: Network
    directory: Path
    binds: Mapping[str, Path] = field(default_factory=dict)
    cgroups: Sequence[Path] = ()
    _process: subprocess.Popen[bytes] | None = None
    _leader: int = 0

    @property
    def root(self) -> Path:
        """Its file system, while it is mounted."""
        return self.directory / "root"

    @property
    def console(self) -> str:
        """What init has written."""
        return (self.directory / "console").read_text(errors="replace")

    @property
    def namespace(self) -> str:
        """Name of its network namespace."""
        return f"{self.network.namespace}-{self.name}"

    def set_up(self) -> None:
        """Mount the file system and plug the network in."""
        for part in ("above", "work", "root"):
            (self.directory / part).mkdir()
        layers = f"lowerdir={self.image},upperdir={self.directory / 'above'},workdir={self.directory / 'work'}"
        _run("mount", "-t", "overlay", "-o", layers, "overlay", str(self.root))
        _ip("netns", "add", self.namespace)
        _ip("-n", self.namespace, "link", "set", "lo", "up")
        link = ("link", "add", "eth0", "type", "veth", "peer", "name", self.name, "netns", self.network.namespace)
        _ip("-n", self.namespace, *link)
        _ip("-n", self.namespace, "address", "add", f"{self.host}/24", "dev", "eth0")
        _ip("-n", self.namespace, "link", "set", "eth0", "up")
        _ip("-n", self.network.namespace, "link", "set", self.name, "master", "bridge", "up")

    def tear_down(self) -> None:
        """Undo ``set_up``, whatever of it was done."""
        if self.root.is_mount():
            _run("umount", "--lazy", str(self.root))
        if (RUN_NETNS / self.namespace).exists():
            _ip("netns", "delete", self.namespace)

    def boot(self) -> None:
        """Start its init and wait until everything it starts has started."""
        command = ["systemd-nspawn", "--quiet", f"--directory={self.root}", f"--machine={self.name}", "--register=no"]
        command += [
            "--keep-unit",
            f"--network-namespace-path={RUN_NETNS / self.namespace}",
            "--capability=CAP_NET_ADMIN",
        ]
        command += ["--kill-signal=SIGRTMIN+3", "--resolv-conf=off", "--timezone=off", "--link-journal=no", "--boot"]
        command += [f"--bind-ro={here}:{there}" for there, here in self.binds.items()] + ["--console=pipe"]
        # Settings of its own network namespace may be changed there, as on a machine of its own.
        environment = {**os.environ, "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "network"}
        with (self.directory / "console").open("ab") as console:
            self._process = subprocess.Popen(
                inside(self.cgroups, command),
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                env=environment,
            )
        wait_until(self._booted, timeout_s=BOOT_TIMEOUT_S, what=f"system on {self.name}")

    def _booted(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.console
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        if not children:
            return False
        self._leader = int(children[0])
        state = self.run("systemctl", "is-system-running", check=False).stdout.strip()
        return (
            state in ("running", "degraded")
            and self.run("systemctl", "is-active", SSH_UNIT, check=False).returncode == 0
        )

    def shut_down(self) -> None:
        """End it in order; by force if it takes too long."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._leader, signal.SIGRTMIN + 3)
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()
        self._process = None

    def kill(self) -> None:
        """End every process of it at once."""
        if self._process is None:
            return
        for pid in (self._leader, self._process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait(STOP_TIMEOUT_S)
        self._process = None

    def run(
        self, *command: str, check: bool = True, timeout_s: float = COMMAND_TIMEOUT_S
    ) -> subprocess.CompletedProcess[str]:
        """Run one command as its root; AssertionError with everything it said if it fails and ``check``."""
        # env -i: this machine's environment (a virtual environment, a locale) is not the machine's.
        there = ["nsenter", f"--target={self._leader}", "--all", "--", "env", "-i", "HOME=/root", "LC_ALL=C.UTF-8"]
        there.append("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        done = subprocess.run([*there, *command], capture_output=True, text=True, timeout=timeout_s, check=False)
        assert not check or done.returncode == 0, (
            f"{self.name}: {command}: {done.returncode}\n{done.stdout}{done.stderr}"
        )
        return done

    def output(self, *command: str) -> str:
        """Return what a command writes to standard output, without the last line break."""
        return self.run(*command).stdout.rstrip("\n")


@contextlib.contextmanager
def booted(
    net: Network, image: Path, names: Sequence[str], *, binds: Mapping[str, Path], prepare: Callable[[Path], None]
) -> Iterator[list[Machine]]:
    """Boot a machine for each name; ``prepare`` changes its file system before. All is gone at the end of the block."""
    with contextlib.ExitStack() as stack:
        machines = []
        for number, name in enumerate(names):
            directory = Path(tempfile.mkdtemp(prefix="antquic-deploy-"))
            stack.callback(shutil.rmtree, directory, ignore_errors=True)
            machine = Machine(
                name=name,
                host=f"198.18.77.{11 + number}",
                image=image,
                network=net,
                directory=directory,
                binds=binds,
                cgroups=stack.enter_context(own_cgroups(f"{net.namespace}-{name}")),
            )
            stack.callback(machine.tear_down)
            machine.set_up()
            prepare(machine.root)
            stack.callback(machine.kill)
            machine.boot()
            machines.append(machine)
        yield machines


def _ip(*arguments: str) -> None:
    _run("ip", *arguments)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}"
