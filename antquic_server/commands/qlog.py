"""``antquic-server qlog``: traces the connections of one peer for some seconds, into files that qvis shows."""

import argparse
import os
import re
import sys
import time
from pathlib import Path
from typing import Final

from antquic_server.commands.control_client import add_control_arguments, control_client
from antquic_server.control_client import ControlClient
from antquic_server.errors import ConfigurationError, ControlRefusedError

__all__ = ["EXAMPLES", "SUMMARY", "add_arguments", "run"]

SUMMARY = "trace the connections of one peer as qlog, for qvis"

EXAMPLES = """\
examples:
  antquic-server qlog 8b1f0c5a8b1f0c5a8b1f0c5a8b1f0c5a8b1f0c5a8b1f0c5a8b1f0c5a8b1f0c5a
  antquic-server qlog 8b1f0c5a8b1f0c5a8b1f0c5a8b1f0c5a8b1f0c5a8b1f0c5a8b1f0c5a8b1f0c5a --seconds 60 --output /tmp

Traced are the connections that the peer has, and those that it opens meanwhile, these from their first packet on. Each
becomes a file; open it at https://qvis.quictools.info. Ctrl-C ends the trace early and keeps what there is. A trace
holds addresses, sizes and times of packets, no contents. A connection that is not traced costs nothing.
"""

DEFAULT_SECONDS: Final = 10.0
POLL_S: Final = 0.25
_PEER_ID: Final = re.compile(r"[0-9a-fA-F]{64}")
_NAME: Final = re.compile(r"[a-z0-9-]{1,80}\.qlog")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare peer and options."""
    parser.add_argument("peer_id", metavar="PEER_ID", help="64 hexadecimal digits")
    parser.add_argument("--seconds", metavar="S", default=f"{DEFAULT_SECONDS:g}", help="how long; 10, at most 600")
    parser.add_argument("--output", metavar="DIR", default=".", help="where to put the files; here")
    add_control_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Trace, and print which files came of it; returns the exit code, 1 if there was nothing to trace."""
    if not _PEER_ID.fullmatch(arguments.peer_id):
        raise ConfigurationError("command line", "PEER_ID", arguments.peer_id, "64 hexadecimal digits")
    if not re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,3})?", arguments.seconds) or not 0 < float(arguments.seconds) <= 600:
        raise ConfigurationError("command line", "--seconds", arguments.seconds, "a number above 0, at most 600")
    output = Path(arguments.output)
    if not (output.is_dir() and os.access(output, os.W_OK)):
        raise ConfigurationError("command line", "--output", arguments.output, "a directory that can be written to")
    client = control_client(arguments)
    request = {"peer_id": arguments.peer_id.lower(), "seconds": float(arguments.seconds)}
    number = _whole(client.ask("POST", "/qlog", request).get("capture"))
    try:
        _wait(client, number)
        return _fetch(client, number, output, str(request["peer_id"])[:16])
    finally:
        client.ask_bytes("DELETE", f"/qlog/{number}")


def _wait(client: ControlClient, number: int) -> None:
    """Wait for the end; an interrupt brings it forward."""
    watched = sys.stderr.isatty()
    while True:
        try:
            state = client.ask("GET", f"/qlog/{number}")
            if state.get("done"):
                break
            if watched:
                sys.stderr.write(f"\r\x1b[Ktracing, {state.get('remaining_s')} s left")
                sys.stderr.flush()
            time.sleep(POLL_S)
        except KeyboardInterrupt:
            client.ask("POST", f"/qlog/{number}/stop")
    if watched:
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()


def _fetch(client: ControlClient, number: int, output: Path, prefix: str) -> int:
    state = client.ask("GET", f"/qlog/{number}")
    errors, files = state.get("errors"), state.get("files")
    for error in errors if isinstance(errors, list) else []:
        print(f"antquic-server: a worker reports: {error}", file=sys.stderr)
    found = [each for each in files if isinstance(each, dict)] if isinstance(files, list) else []
    if not found:
        raise ControlRefusedError("the peer had no connection to trace; antquic-server status shows who is connected")
    begun = time.strftime("%Y%m%dT%H%M%S")
    print(f"{'events':>8}  {'bytes':>10}  {'handshake':<9}  file")
    for facts in found:
        name = str(facts.get("name"))
        if not _NAME.fullmatch(name):
            raise ControlRefusedError(f"the node names a file {name!r}, which is no name of a trace")
        path = output / f"{prefix}-{begun}-{name}"
        size_bytes = _copy(client, f"/qlog/{number}/{name}", path)
        whole = "yes" if facts.get("from_start") else "no"
        cut = "  (cut off: it reached the largest size)" if facts.get("truncated") else ""
        print(f"{_whole(facts.get('events')):>8,}  {size_bytes:>10,}  {whole:<9}  {path}{cut}")
    refused = _whole(state.get("refused"))
    if refused:
        print(f"{refused} more connections were not traced: too many at once", file=sys.stderr)
    return 0


def _copy(client: ControlClient, target: str, path: Path) -> int:
    """Fetch one file piece by piece; returns its size in bytes."""
    size_bytes = 0
    try:
        with path.open("xb") as file:
            while piece := client.ask_bytes("GET", f"{target}?offset={size_bytes}"):
                file.write(piece)
                size_bytes += len(piece)
    except OSError as error:
        raise ControlRefusedError(f"cannot write {path}: {error.strerror}") from None
    return size_bytes


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0
