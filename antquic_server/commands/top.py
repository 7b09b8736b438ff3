"""
``antquic-server top``: what a running node is doing, live in the terminal.

It only asks for ``/status``; what is shown of that is in ``top_view``, and when in ``top_screen``.
"""

import argparse

from antquic_server.commands.status import chosen_admin
from antquic_server.errors import ConfigurationError

__all__ = ["EXAMPLES", "SUMMARY", "add_arguments", "interval", "run"]

SUMMARY = "watch a running node: workers, throughput, relay, top talkers, drops"

EXAMPLES = """\
examples:
  antquic-server top
  antquic-server top --interval 5 --admin http://127.0.0.1:10001
  antquic-server top --once

keys: q quit, p or space pause, t or left/right order of talkers, w or up/down order of workers

With --once, and wherever the output is no terminal, one frame is printed. Colours follow NO_COLOR.
Without --admin: the admin address of the configuration ($ANTQUIC_CONFIG).
"""

MIN_INTERVAL_S = 0.2
MAX_INTERVAL_S = 3600.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of ``top``."""
    parser.add_argument("--interval", metavar="SECONDS", default="1", help="time between two looks (default: 1)")
    parser.add_argument("--once", action="store_true", help="print one frame, after one interval, and end")
    parser.add_argument("--admin", metavar="URL", help="admin endpoint, like http://127.0.0.1:10001")


def run(arguments: argparse.Namespace) -> int:
    """Show frames until somebody presses q, or one; returns the exit code."""
    interval_s = interval(arguments.interval)
    host, port = chosen_admin(arguments.admin)

    # Imported only now because it brings rich along, which the other commands are not to wait for.
    from antquic_server.commands.top_screen import show

    show(host, port, interval_s=interval_s, once=arguments.once)
    return 0


def interval(text: str) -> float:
    """Read ``--interval``; ConfigurationError for what is no such number of seconds."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not MIN_INTERVAL_S <= value <= MAX_INTERVAL_S:
        expected = f"seconds from {MIN_INTERVAL_S:g} to {MAX_INTERVAL_S:g}"
        raise ConfigurationError("command line", "--interval", text, expected)
    return value
