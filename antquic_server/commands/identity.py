"""``antquic-server identity``: shows the node key's peer id, or makes a new key."""

import argparse
import json
import os
from pathlib import Path

from antquic_server.config.load import load_settings
from antquic_server.errors import ConfigurationError

__all__ = ["EXAMPLES", "SUMMARY", "add_arguments", "expand_path", "key_path", "run"]

SUMMARY = "show the node key's peer id, or make a new key"

EXAMPLES = """\
examples:
  antquic-server identity show
  antquic-server identity new --file /var/lib/antquic-server/node.pem
  antquic-server identity new --replace

Without --file: the file that the configuration ($ANTQUIC_CONFIG) names, else
/var/lib/antquic-server/node.pem for root, else antquic-server/node.pem in the user's state directory.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``identity``."""
    parser.add_argument("action", metavar="show|new", help="what to do")
    parser.add_argument("--file", metavar="FILE", help="node key as PEM file")
    parser.add_argument("--replace", action="store_true", help="with new: keep an existing key as FILE.bak-N")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Print the peer id and the file of the node key, made now for ``new``; returns the exit code."""
    if arguments.action not in ("show", "new"):
        raise ConfigurationError("command line", "identity", arguments.action, "show or new")

    # Imported only now because it brings cryptography along, which the other commands are not to wait for.
    from antquic_server.identity import create_identity, load_identity

    configured = arguments.file
    if configured is None:
        configured = load_settings(None, environment=os.environ).identity.file
    path = key_path(configured)
    is_new = arguments.action == "new"
    identity = create_identity(path, replace=arguments.replace) if is_new else load_identity(path)
    facts = {"peer_id": identity.peer_id.hex(), "file": str(path)}
    if arguments.json:
        print(json.dumps(facts))
    else:
        print(f"peer id  {facts['peer_id']}\nfile     {facts['file']}")
    return 0


def key_path(configured: str) -> Path:
    """Path of the node key; an empty ``configured`` stands for the default place."""
    if configured:
        return expand_path(configured)
    # Imported only now for the same reason as in ``run``.
    from antquic_server.identity import default_identity_path

    return default_identity_path()


def expand_path(text: str) -> Path:
    """Path with a leading ``~`` expanded, left as it is where there is no such home directory."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)
