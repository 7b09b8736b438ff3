"""
The two programs that can be a peer in a meeting: the real ``ant-quic``, and the library of this package.

Both are started with the nodes they know and, on one side, the id of the peer to look for; both print the same events
as JSON lines, ``counting_peer`` after ant-quic's model.
"""

import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from antquic_server.natlab.json_process import JsonProcess
from antquic_server.natlab.namespaces import LabUnavailableError

__all__ = ["ANT_QUIC_VERSION", "AntQuic", "Library", "PeerProgram", "default_program", "package_environment"]

ANT_QUIC_VERSION = "0.27.44"
"""The version that ``scripts/build-peers.sh`` builds."""

COUNTER_INTERVAL_MS = 200

_ANT_QUIC_FAILURE = "Failed to connect to peer"


class PeerProgram(Protocol):
    """What a meeting needs to know of a program."""

    @property
    def name(self) -> str:
        """What to call it."""
        ...

    @property
    def predicts_ports(self) -> bool:
        """Whether it tries the next ports of a NAT that picks them in sequence."""
        ...

    @property
    def relays(self) -> bool:
        """Whether it has our node carry what cannot go directly, to a peer that knows no address of it either."""
        ...

    def command(self, known_peers: Sequence[str], target: str | None, *, verbose: bool) -> list[str]:
        """Return the command of a peer that knows these nodes and looks for ``target``, if that is one."""
        ...

    def environment(self, home: Path) -> dict[str, str]:
        """Return the environment, with a home of the peer's own."""
        ...

    def failure(self, process: JsonProcess) -> str:
        """Return what the program itself says of why it did not reach its target; empty if it says nothing."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class AntQuic:
    """The Rust program; it acts on one address per peer."""

    program: Path
    name: str = "ant-quic"
    predicts_ports: bool = False
    relays: bool = False
    """Only to an address it knows, and so never in a meeting where all it knows is an id."""

    def command(self, known_peers: Sequence[str], target: str | None, *, verbose: bool) -> list[str]:
        """Return the command; of the nodes it is told the first, since it makes nothing of a second address."""
        command = [*self._common(verbose=verbose), "--listen", "0.0.0.0:0", "--known-peers", known_peers[0]]
        command += ["--counter-test", "--counter-interval", str(COUNTER_INTERVAL_MS)]
        return command if target is None else [*command, "--connect-peer-id", target]

    def node_command(self, listen: str, *, verbose: bool) -> list[str]:
        """Return the command of one in the node's place."""
        return [*self._common(verbose=verbose), "--listen", listen]

    def environment(self, home: Path) -> dict[str, str]:
        """Return the environment: its cache of peers would else carry over to the next meeting."""
        return {
            "PATH": os.environ.get("PATH", ""),
            "HOME": str(home),
            "TMPDIR": str(home),
            "XDG_CACHE_HOME": str(home),
            "NO_COLOR": "1",
        }

    def failure(self, process: JsonProcess) -> str:
        """Return the end of the line in its log."""
        return process.last_line(_ANT_QUIC_FAILURE).partition(_ANT_QUIC_FAILURE)[2].partition(": ")[2].strip()

    def _common(self, *, verbose: bool) -> list[str]:
        quiet = [str(self.program), "--no-mdns", "--no-port-mapping", "--no-default-bootstrap", "--json"]
        return [*quiet, "--verbose"] if verbose else quiet


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """The peer library of the package that is running now."""

    name: str = "library peer"
    predicts_ports: bool = True
    relays: bool = True

    def command(self, known_peers: Sequence[str], target: str | None, *, verbose: bool) -> list[str]:  # noqa: ARG002
        """Return the command; it has no more to say than it always says."""
        command = [sys.executable, "-m", "antquic_server.natlab.counting_peer", "--known-peers", ",".join(known_peers)]
        command += ["--counter-interval", str(COUNTER_INTERVAL_MS), "--relay", "auto" if self.relays else "never"]
        return command if target is None else [*command, "--connect-peer-id", target]

    def environment(self, home: Path) -> dict[str, str]:
        """Return the environment."""
        return {**package_environment(), "HOME": str(home)}

    def failure(self, process: JsonProcess) -> str:
        """Return the reason and its sentence."""
        failures = process.find(lambda message: message.get("event") == "connect_failed")
        return f"{failures[-1]['reason']}: {failures[-1]['detail']}" if failures else ""


def default_program() -> Path:
    """
    Return the path of ``ant-quic``: where ``scripts/build-peers.sh`` puts it, else wherever PATH has it.

    Raises:
        LabUnavailableError: It is in neither place.
    """
    cache = Path(os.environ.get("ANTQUIC_CACHE") or Path.home() / ".cache" / "antquic-server")
    built = cache / "peers" / f"ant-quic-{ANT_QUIC_VERSION}" / "bin" / "ant-quic"
    if os.access(built, os.X_OK):
        return built
    found = shutil.which("ant-quic")
    if found is None:
        raise LabUnavailableError("no ant-quic to test with: run scripts/build-peers.sh, or name one with --program")
    return Path(found)


def package_environment() -> dict[str, str]:
    """Return an environment in which this package is found, also where it runs from a tree not installed."""
    root = str(Path(__file__).resolve().parents[2])
    return {**os.environ, "PYTHONPATH": os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])}
