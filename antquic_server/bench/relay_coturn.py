"""coturn, the yardstick: a TURN server in C (``turnserver``), run for the benchmark with a configuration of its own."""

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from antquic_server.bench.relay_contender import Contender, RelaySession, prove
from antquic_server.bench.relay_place import RECEIVER, RELAY, SENDER, Place, pin_relay
from antquic_server.bench.relay_turn import FIRST_CHANNEL, allocate, bind_channel, channel_header
from antquic_server.errors import CannotBootError

__all__ = ["COTURN", "coturn_version", "find_coturn", "running_coturn"]

COTURN: Final = "coturn"

_TIMEOUT_S: Final = 10.0
_STOP_TIMEOUT_S: Final = 5.0


def find_coturn() -> str | None:
    """Return the program, None if it is not installed."""
    return shutil.which("turnserver")


def coturn_version(program: str) -> str:
    """Return the version it says it is, empty if it does not say."""
    try:
        done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False, timeout=_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    found = re.search(r"\d+\.\d+(\.\d+)?", done.stdout + done.stderr)
    return found[0] if found else ""


@contextmanager
def running_coturn(place: Place, sessions: int) -> Iterator[Contender]:
    """
    Run coturn with that many allocations, each with a channel bound to a socket of the receiver.

    Raises:
        CannotBootError: It is not there, does not start, or refuses.
    """
    program = find_coturn()
    if program is None:
        raise CannotBootError("coturn (turnserver) is not installed")
    port = place.free_port()
    with tempfile.TemporaryDirectory(prefix="antquic-bench-") as directory, ExitStack() as stack:
        configuration = Path(directory) / "turnserver.conf"
        configuration.write_text(_configuration(place, port, Path(directory)))
        process = stack.enter_context(_running(place.command(RELAY, [program, "-c", str(configuration)])))
        server = (place.front, port)
        made: list[RelaySession] = []
        for number in range(sessions):
            out = stack.enter_context(place.udp(SENDER))
            arrival = stack.enter_context(place.udp(RECEIVER))
            out.connect(server)
            allocate(out, server, _TIMEOUT_S)
            header = partial(channel_header, FIRST_CHANNEL + number)
            made.append(RelaySession(out=out, arrival=arrival, header=header))

        def keep() -> None:
            for number, session in enumerate(made):
                peer = session.arrival.getsockname()
                bind_channel(session.out, server, FIRST_CHANNEL + number, peer, _TIMEOUT_S)

        keep()
        pin_relay(process.pid)
        contender = Contender(name=COTURN, pid=process.pid, sessions=made, header_arrives=False, keep=keep)
        prove(contender)
        yield contender


def _configuration(place: Place, port: int, directory: Path) -> str:
    lines = [
        f"listening-ip={place.front}",
        f"listening-port={port}",
        f"relay-ip={place.back}",
        # One relay thread, as the node has one worker; two are no cheaper per datagram.
        "relay-threads=1",
        "no-auth",
        "no-cli",
        "no-tcp",
        "no-tls",
        "no-dtls",
        "no-tcp-relay",
        f"log-file={directory / 'turnserver.log'}",
        f"pidfile={directory / 'turnserver.pid'}",
        f"userdb={directory / 'turndb'}",
        "no-stdout-log",
    ]
    if not place.names:
        lines.append("allow-loopback-peers")
    return "\n".join(lines) + "\n"


@contextmanager
def _running(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
