"""``antquic-server log``: shows and changes the log levels of a running node, workers and spares included."""

import argparse
import json
from collections.abc import Mapping

from antquic_server.commands.control_client import add_control_arguments, control_client
from antquic_server.errors import UsageError

__all__ = ["EXAMPLES", "SUMMARY", "add_arguments", "render_levels", "run"]

SUMMARY = "show or change the log levels of a running node"

EXAMPLES = """\
examples:
  antquic-server log show
  antquic-server log set debug
  antquic-server log set workers.relay=debug quic=warning
  antquic-server log reset

A module is the name of one of ours (net, net.udp, supervisor.fleet, workers.relay) or quic, which is aioquic. Changes
last until `log reset` or the end of the node, reloads and replaced workers included. Levels that are to stay belong
into [log] of the configuration, which is read again on SIGHUP.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare action, levels and options."""
    parser.add_argument("action", choices=("show", "set", "reset"), help="what to do")
    parser.add_argument("levels", nargs="*", metavar="[MODULE=]LEVEL", help="for set: debug, info, warning, …")
    parser.add_argument("--json", action="store_true", help="print the node's answer as it came")
    add_control_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Show or change levels, and print those that hold; returns the exit code."""
    if arguments.action == "set" and not arguments.levels:
        raise UsageError("command line: log set: no level given, expected [MODULE=]LEVEL, like workers.relay=debug")
    if arguments.action != "set" and arguments.levels:
        raise UsageError(f"command line: log {arguments.action}: takes no levels, got {arguments.levels[0]!r}")
    client = control_client(arguments)
    if arguments.action == "set":
        answer = client.ask("POST", "/log", {"set": arguments.levels})
    elif arguments.action == "reset":
        answer = client.ask("POST", "/log/reset")
    else:
        answer = client.ask("GET", "/log")
    print(json.dumps(answer, indent=2) if arguments.json else render_levels(answer))
    return 0


def render_levels(answer: Mapping[str, object]) -> str:
    """Turn the answer of ``/log`` into a table without a final newline: level, and where it comes from."""
    changed, configured = _table(answer.get("changed")), _table(answer.get("configured"))
    changed_modules, configured_modules = _table(changed.get("modules")), _table(configured.get("modules"))
    rows = [("(everything)", str(answer.get("level", "-")), changed.get("level"), configured.get("level"))]
    rows += [
        (name, str(level), changed_modules.get(name), configured_modules.get(name))
        for name, level in _table(answer.get("modules")).items()
    ]
    width = max(len(row[0]) for row in rows)
    lines = [f"{'module':<{width}}  level     from"]
    for name, level, by_hand, from_file in rows:
        origin = "configuration"
        if by_hand is not None:
            origin = "antquic-server log set" + (f", configured: {from_file}" if from_file is not None else "")
        lines.append(f"{name:<{width}}  {level:<8}  {origin}")
    burst = answer.get("repeat_burst")
    window = f"of one event {burst} lines in {answer.get('repeat_window_s')} s are written, the rest is summed up"
    lines += ["", window if burst else "every line is written, however often"]
    return "\n".join(lines)


def _table(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}
