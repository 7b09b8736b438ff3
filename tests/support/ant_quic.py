"""Real ant-quic peers: the Rust programs ``ant-quic`` and ``e2e-test-node``, started, read and stopped."""

import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from support.json_lines import JsonLineProcess
from support.udp_sockets import udp_sockets

__all__ = ["ANT_QUIC_VERSION", "AntQuicPeer", "find_program"]

ANT_QUIC_VERSION = "0.27.44"
STOP_TIMEOUT_S = 20.0
Message = dict[str, Any]


def find_program(name: str) -> Path | None:
    """Return the path of a program that ``scripts/build-peers.sh`` built, or ``None`` when it did not."""
    cache = Path(os.environ.get("ANTQUIC_CACHE") or Path.home() / ".cache" / "antquic-server")
    path = cache / "peers" / f"ant-quic-{ANT_QUIC_VERSION}" / "bin" / name
    return path if os.access(path, os.X_OK) else None


def port_of(address: str) -> int:
    """Return the port of an address in the peers' form, ``udp://198.18.0.5:4433`` or without the scheme."""
    return int(address.rpartition(":")[2])


def host_of(address: str) -> str:
    """Return the host of an address in the peers' form; an IPv4-mapped IPv6 address becomes the IPv4 address."""
    host = ip_address(address.removeprefix("udp://").rpartition(":")[0].strip("[]"))
    return str(getattr(host, "ipv4_mapped", None) or host)


class AntQuicPeer:
    """
    One peer process with an identity, a home and a bootstrap cache of its own, removed when it stops.

    It knows nobody but ``known_peers``: default bootstrap nodes, mDNS and port mapping are off.
    """

    def __init__(
        self,
        known_peers: Sequence[str],
        *,
        program: Path | None = None,
        arguments: Sequence[str] = (),
        allow_loopback: bool = False,
    ) -> None:
        path = program or find_program("ant-quic")
        if path is None:
            raise FileNotFoundError("ant-quic is not built: run scripts/build-peers.sh")
        self._home = Path(tempfile.mkdtemp(prefix="antquic-peer-"))
        environment = {
            "PATH": os.environ.get("PATH", ""),
            "HOME": str(self._home),
            "TMPDIR": str(self._home),
            "XDG_CACHE_HOME": str(self._home),
            "NO_COLOR": "1",
        }
        if allow_loopback:
            environment["ANT_QUIC_ALLOW_LOOPBACK"] = "1"
        command = [str(path), "--listen", "0.0.0.0:0", "--no-mdns", "--no-port-mapping", "--json"]
        if path.name == "ant-quic":
            command.append("--no-default-bootstrap")
        if known_peers:
            command += ["--known-peers", ",".join(known_peers)]
        self._process = JsonLineProcess([*command, *arguments], environment=environment)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def running(self) -> bool:
        """Whether the process has not ended."""
        return self._process.running

    @property
    def messages(self) -> list[Message]:
        """Every JSON line so far, oldest first."""
        return list(self._process.messages)

    @property
    def peer_id(self) -> str:
        """The peer's own id, 64 hex digits; waits for the line that says it."""
        return str(self.wait_for("local_identity", timeout_s=20.0)["peer_id"])

    @property
    def listen_port(self) -> int:
        """
        The UDP port the peer has on IPv4; waits for the line that says it is bound.

        That line names the IPv6 port. It is the same one, unless somebody had it on IPv4 when the peer wanted it: so
        the kernel is asked.
        """
        self.wait_for("local_identity", timeout_s=20.0)
        (port,) = {item.port for item in udp_sockets(self._process.pid) if item.family == socket.AF_INET}
        return port

    def events(self, event: str) -> list[Message]:
        """Return the messages of one event so far, oldest first."""
        return [message for message in self.messages if message.get("event") == event]

    def wait_for(
        self,
        event: str,
        predicate: Callable[[Message], object] = bool,
        *,
        timeout_s: float = 15.0,
        after: int = 0,
    ) -> Message:
        """
        Return the first message of ``event`` for which ``predicate`` holds, from message number ``after`` on.

        Raises:
            AssertionError: It did not come in time or the peer ended; the text has the tail of its output.
        """
        return self._process.wait_for(
            lambda message: message.get("event") == event and predicate(message),
            timeout_s=timeout_s,
            what=event,
            after=after,
        )

    def wait_connected(self, peer_id: str, *, timeout_s: float = 15.0) -> Message:
        """
        Return the message about the peer's own connection to ``peer_id`` (64 hex digits; the peer prints 16).

        For the same connection the programs print a second ``peer_connected``, as ``inbound``: it is passed over.
        """
        return self.wait_for(
            "peer_connected",
            lambda message: message["peer_id"] == peer_id[:16] and message["direction"] == "outbound",
            timeout_s=timeout_s,
        )

    def describe(self) -> str:
        """Return the tail of the peer's output, for the message of a failing test."""
        return self._process.describe()

    def ask_to_stop(self) -> None:
        """
        Ask for an orderly end, in which the peer closes its connections, and return at once.

        The programs listen to SIGINT only. Many peers end faster when all are asked before any is awaited.
        """
        if self._process.running:
            self._process.process.send_signal(signal.SIGINT)

    def stop(self) -> None:
        """End the peer in order and remove its home; a late one is killed, and that is a failure."""
        try:
            self.ask_to_stop()
            self._process.wait(timeout_s=STOP_TIMEOUT_S)
        finally:
            shutil.rmtree(self._home, ignore_errors=True)
