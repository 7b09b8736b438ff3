"""
Which node is meant by a command that acts on one over its control socket.

Where the socket is, the admin endpoint tells (``control`` in ``/status``), so that a command needs to know one address
of a node only. The socket itself lets in root and the user that the node runs as.
"""

import argparse
from pathlib import Path

from antquic_server.commands.status import chosen_admin, fetch_status
from antquic_server.control_client import ControlClient
from antquic_server.errors import ControlRefusedError

__all__ = ["add_control_arguments", "control_client"]


def add_control_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options that say which node is meant."""
    parser.add_argument("--admin", metavar="URL", help="admin endpoint, like http://127.0.0.1:10001")
    parser.add_argument(
        "--control", metavar="PATH", help="control socket of the node; else the admin endpoint is asked"
    )


def control_client(arguments: argparse.Namespace) -> ControlClient:
    """
    Return a client of the node that is meant.

    Raises:
        AdminUnreachableError: Nobody answers at the admin address.
        ControlRefusedError: The node has no control socket.
    """
    if arguments.control is not None:
        return ControlClient(Path(arguments.control))
    host, port = chosen_admin(arguments.admin)
    path = fetch_status(host, port).get("control")
    if not isinstance(path, str):
        raise ControlRefusedError(f"the node at {host} port {port} has no control socket: its log says why")
    return ControlClient(Path(path))
