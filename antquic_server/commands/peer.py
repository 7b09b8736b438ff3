"""``antquic-server peer``: a peer of the network on the command line, to connect and to move files."""

import argparse
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from antquic_server.commands.identity import expand_path
from antquic_server.config.load import FlagValue, load_settings
from antquic_server.errors import AddressDecodeError, ConfigurationError

if TYPE_CHECKING:
    from antquic_server.peer.settings import PeerSettings

__all__ = ["EXAMPLES", "SUMMARY", "add_arguments", "run"]

SUMMARY = "be a peer: wait for others, connect through NATs, send and receive files"

EXAMPLES = """\
examples:
  antquic-server peer listen --via 198.18.0.1:10000
  antquic-server peer connect PEER_ID --via 198.18.0.1:10000
  antquic-server peer receive ./inbox --via 198.18.0.1:10000
  antquic-server peer send photo.jpg PEER_ID --via 198.18.0.1:10000
  antquic-server peer connect 198.18.0.7:4433
  antquic-server peer listen --via 198.18.0.1:10000 --via 198.18.0.2:10000
  antquic-server peer send big.iso PEER_ID --via 198.18.0.1:10000 --config peer.toml --set mtu.max=1280

PEER_ID is 64 hexadecimal digits, as `peer listen` prints them; an address is dialled directly. Every connection is
reported with how it came about: direct, punched or relayed, through which node, and why not better; `listen` also
tells when one becomes direct. `connect` then measures a round trip, which proves that bytes pass both ways. Two --via
addresses, of two nodes or of one, show how the NAT in front of us behaves, which helps through NATs that count.
Without --identity the key lasts as long as the command.

Of a configuration file count [nat], [mtu], [pqc], and of [endpoint] max_connections, idle_timeout_s and keep_alive_s.

exit codes: 0 done, 1 the peer was not reached or a transfer failed, 2 bad usage or configuration, 3 cannot start,
128 and its number a signal
"""

PEER_ID_DIGITS = 64

USAGE = {
    "listen": (0, 0, "nothing more"),
    "connect": (1, 1, "PEER_ID"),
    "send": (2, 2, "FILE PEER_ID"),
    "receive": (0, 1, "[DIRECTORY]"),
}
"""Fewest and most words after each action, and what they are."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``peer``."""
    parser.add_argument("action", metavar="listen|connect|send|receive", help="what to do")
    parser.add_argument(
        "words", metavar="ARGUMENT", nargs="*", help="connect PEER_ID, send FILE PEER_ID, receive [DIRECTORY]"
    )
    parser.add_argument(
        "--via", metavar="ADDRESS", action="append", default=[], help="node that introduces peers; repeatable"
    )
    parser.add_argument("--listen", metavar="ADDRESS", action="append", help="UDP address to use (default 0.0.0.0:0)")
    parser.add_argument("--identity", metavar="FILE", help="key as PEM file, made if it does not exist")
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=float,
        help="for reaching a peer (nat.discovery_timeout_s, default 10); a dial takes no longer either",
    )
    parser.add_argument(
        "--retries",
        metavar="N",
        type=int,
        help="rounds of hole punching after the first (nat.hole_punch_retries, default 3)",
    )
    parser.add_argument(
        "--relay",
        choices=("auto", "never", "only"),
        default="auto",
        help="have a node carry what hole punching cannot (auto, the default), never, or without punching first (only)",
    )
    parser.add_argument(
        "--relay-listen",
        action="store_true",
        help="with listen and receive: be reachable at an address of the node, for peers that cannot be punched to",
    )
    parser.add_argument("--count", metavar="N", type=int, default=1, help="with receive: files to wait for")
    parser.add_argument("--config", metavar="FILE", help="TOML file; else $ANTQUIC_CONFIG; else defaults")
    parser.add_argument(
        "--set",
        metavar="SECTION.KEY=VALUE",
        action="append",
        default=[],
        dest="overrides",
        help="any setting of the file, VALUE in TOML syntax; repeatable; wins over everything else",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object per event")


def run(arguments: argparse.Namespace) -> int:
    """Do what ``arguments.action`` says; returns the exit code."""
    if arguments.action not in USAGE:
        raise ConfigurationError("command line", "peer", arguments.action, "one of " + ", ".join(USAGE))
    fewest, most, usage = USAGE[arguments.action]
    if not fewest <= len(arguments.words) <= most:
        raise ConfigurationError("command line", f"peer {arguments.action}", " ".join(arguments.words), usage)
    if arguments.count < 1:
        raise ConfigurationError("command line", "--count", arguments.count, "a number above 0")
    if arguments.action in ("connect", "send"):
        _check_target(arguments.words[-1])
    if arguments.action == "send" and not expand_path(arguments.words[0]).is_file():
        raise ConfigurationError("command line", "FILE", arguments.words[0], "a file that exists")
    if arguments.action == "receive" and not expand_path((arguments.words or ["."])[0]).is_dir():
        raise ConfigurationError("command line", "DIRECTORY", arguments.words[0], "a directory that exists")
    settings = _settings(arguments)

    # Imported only now because it brings the event loop and all of QUIC along.
    from antquic_server.commands import peer_actions

    return peer_actions.run(arguments, settings)


def _settings(arguments: argparse.Namespace) -> "PeerSettings":
    # Imported only now, like everything of the peer library, because it brings all of QUIC along.
    from antquic_server.identity import load_or_create_identity
    from antquic_server.peer.settings import PEER_DEFAULTS, PeerSettings

    flags = [
        FlagValue(source=flag, key=key, value=value)
        for flag, key, value in (
            ("--timeout", "nat.discovery_timeout_s", arguments.timeout),
            ("--retries", "nat.hole_punch_retries", arguments.retries),
        )
        if value is not None
    ]
    settings = load_settings(
        None if arguments.config is None else Path(arguments.config),
        overrides=arguments.overrides,
        flags=flags,
        environment=os.environ,
        defaults=PEER_DEFAULTS,
    )
    plain = PeerSettings.from_settings(
        settings,
        listen=tuple(arguments.listen or ("0.0.0.0:0",)),
        known_peers=tuple(arguments.via),
        relay=arguments.relay,
        relay_listen=arguments.relay_listen,
    )
    if arguments.timeout is not None:
        plain = replace(plain, dial_timeout_s=min(plain.dial_timeout_s, arguments.timeout))
    # Last, because it makes a file: not for a command that is refused.
    identity = None if arguments.identity is None else load_or_create_identity(expand_path(arguments.identity))
    return plain if identity is None else replace(plain, identity_seed=identity.seed)


def _check_target(word: str) -> None:
    # Imported only now because it brings aioquic along, which a wrong option is not to wait for.
    from antquic_server.protocol.address import SocketAddress

    if as_peer_id(word) is None:
        try:
            SocketAddress.parse(word)
        except AddressDecodeError:
            expected = f"a peer id of {PEER_ID_DIGITS} hexadecimal digits or an address"
            raise ConfigurationError("command line", "PEER_ID", word, expected) from None


def as_peer_id(word: str) -> bytes | None:
    """Return the peer id that a word spells, None if it spells none."""
    try:
        return bytes.fromhex(word) if len(word) == PEER_ID_DIGITS else None
    except ValueError:
        return None
