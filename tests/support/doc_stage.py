"""
A machine to try the documentation's commands on: a network namespace with a node that runs with its defaults.

Ports are those that the pages name, which nobody else has in there. The working directory has the files that the
pages speak of: the project's own, and whatever a user would have at hand.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from support.doc_blocks import REPOSITORY
from support.json_lines import JsonLineProcess
from support.node import node_environment
from support.require import require

__all__ = ["Stage", "stage"]

ADDRESS = "198.18.0.1"
"""Of the node, as the pages call it; also an address of the machine in here."""

READY_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0
PROJECT_FILES = ("docs", "deploy", "tuning", "Makefile", "README.md", "pyproject.toml")


class Stage:
    """The namespace, its working directory and the programs in it."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.directory = directory
        self.environment = self._environment()
        self._children: list[JsonLineProcess] = []

    def _environment(self) -> dict[str, str]:
        programs = self.directory / "bin"
        programs.mkdir()
        for name in ("antquic-server", "sudo"):
            program = programs / name
            start = f'exec "{sys.executable}" -m antquic_server "$@"' if name == "antquic-server" else 'exec "$@"'
            program.write_text(f"#!/bin/sh\n{start}\n")
            program.chmod(0o755)
        for name in PROJECT_FILES:
            (self.directory / name).symlink_to(REPOSITORY / name)
        home = self.directory / "home"
        home.mkdir()
        path = os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]])
        # A state directory of its own: a node of root would write to /var/lib.
        return {**node_environment(), "PATH": path, "HOME": str(home), "ANTQUIC_CONFIG": str(self._configuration())}

    def _configuration(self) -> Path:
        path = self.directory / "stage.toml"
        path.write_text(f'[identity]\nfile = "{self.directory}/node.pem"\n')
        return path

    def start(self, command: str) -> JsonLineProcess:
        """Start a command that goes on by itself; it ends with the stage."""
        child = JsonLineProcess(
            self._inside(f"exec {command}"),
            environment=self.environment,
            stderr_path=self.directory / f"stderr-{len(self._children)}.log",
            directory=self.directory,
        )
        self._children.append(child)
        return child

    def run(self, command: str, *, timeout_s: float) -> subprocess.CompletedProcess[str]:
        """Run a command to its end and return it with its output."""
        return subprocess.run(
            self._inside(command),
            env=self.environment,
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def _inside(self, command: str) -> Sequence[str]:
        return ["ip", "netns", "exec", self.name, "sh", "-c", command]

    def close(self) -> None:
        """End what goes on, the youngest first."""
        for child in reversed(self._children):
            if child.running:
                child.process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired, AssertionError):
                child.wait(timeout_s=STOP_TIMEOUT_S)
            if child.running:
                child.process.kill()
                child.wait(timeout_s=STOP_TIMEOUT_S)


@contextmanager
def stage(directory: Path, *, node: bool = True) -> Iterator[Stage]:
    """Make the namespace, with a node in it unless told otherwise; skips where that is not allowed."""
    require(os.geteuid() == 0 and shutil.which("ip"), "needs root and iproute2 to make network namespaces")
    name = f"antquic-docs-{os.getpid()}-{directory.name}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    made = Stage(name, directory)
    try:
        made.run(
            f"ip link set lo up && ip address add {ADDRESS}/32 dev lo", timeout_s=READY_TIMEOUT_S
        ).check_returncode()
        if node:
            served = made.start("antquic-server serve --echo")
            served.wait_for(lambda each: each.get("event") == "ready", timeout_s=READY_TIMEOUT_S, what="ready line")
        yield made
    finally:
        made.close()
        subprocess.run(["ip", "netns", "delete", name], check=True)
