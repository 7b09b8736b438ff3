"""The command line against a running node, as an operator types it."""

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from support.node import REPOSITORY, Node, node_environment

__all__ = ["command", "control_answer", "start_command"]

COMMAND_TIMEOUT_S = 60.0


def start_command(node: Node, *arguments: str) -> subprocess.Popen[str]:
    """Start ``antquic-server`` with ``--admin`` of the node; standard error goes with standard output, as text."""
    return subprocess.Popen(
        _command_line(node, arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=node_environment(),
        cwd=REPOSITORY,
    )


def command(node: Node, *arguments: str, timeout_s: float = COMMAND_TIMEOUT_S) -> subprocess.CompletedProcess[str]:
    """Run ``antquic-server`` with ``--admin`` of the node to its end; output is text."""
    return subprocess.run(
        _command_line(node, arguments),
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_s,
        env=node_environment(),
        cwd=REPOSITORY,
    )


def _command_line(node: Node, arguments: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "antquic_server", *arguments, "--admin", node.admin]


def control_answer(node: Node, *arguments: str) -> dict[str, Any]:
    """Return the JSON that a command prints; it must succeed."""
    done = command(node, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer
