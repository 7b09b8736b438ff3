"""
``antquic-server doctor``: what keeps a node on this machine from working, or from full speed.

Exit code 0 if nothing is worse than a note, or, without ``--strict``, than a warning; 1 if something is; 2 for a wrong
command line.
"""

import argparse
import json
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from antquic_server.commands.identity import key_path
from antquic_server.commands.status import admin_url, fetch_status
from antquic_server.config.load import CONFIG_VARIABLE, load_settings
from antquic_server.config.model import Settings
from antquic_server.config.rules import split_listen_address
from antquic_server.errors import AdminUnreachableError, ConfigurationError, ExitCode, IdentityError, UsageError

if TYPE_CHECKING:
    from antquic_server.doctor.case import Case
    from antquic_server.doctor.examination import Result

__all__ = ["EXAMPLES", "SUMMARY", "add_arguments", "run"]

SUMMARY = "find what keeps this machine from full speed, with the fix for each"

EXAMPLES = """\
examples:
  antquic-server doctor
  antquic-server doctor --config /etc/antquic-server.toml --strict
  antquic-server doctor --json receive-buffer liboqs
  antquic-server doctor --list
  antquic-server doctor --reach 192.0.2.1:10000

Run it as the account that the node runs as: what that may do is what counts. As root it sees more of the
firewall and of other processes. --reach looks at a node from outside, by a real handshake, from wherever you are.

exit codes: 0 no fault, 1 a fault (with --strict, a warning too), 2 wrong usage
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``doctor``."""
    parser.add_argument("checks", metavar="CHECK", nargs="*", help="checks to make, by name; all if there is none")
    parser.add_argument("--list", action="store_true", help="list the checks and what each looks at")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--strict", action="store_true", help="let a warning fail as a fault does")
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="the node's configuration; else $ANTQUIC_CONFIG; else the running node's settings; else defaults",
    )
    parser.add_argument(
        "--set",
        metavar="SECTION.KEY=VALUE",
        action="append",
        default=[],
        dest="overrides",
        help="any setting, VALUE in TOML syntax; repeatable",
    )
    parser.add_argument("--admin", metavar="URL", help="admin endpoint of the running node, else the configured one")
    parser.add_argument("--reach", metavar="HOST:PORT", help="look at a node from outside instead, by a real handshake")


def run(arguments: argparse.Namespace) -> int:
    """Examine, print, and return the exit code."""
    if not hasattr(os, "geteuid"):
        raise UsageError("doctor: this system is not examined; the settings for Windows are in tuning/windows")

    # Imported only now because it brings psutil, asyncio and the providers along.
    from antquic_server.doctor.examination import CHECKS, examine, worst_verdict
    from antquic_server.doctor.finding import Verdict
    from antquic_server.doctor.report import document, render_text

    if arguments.list:
        longest = max(map(len, CHECKS))
        print("\n".join(f"{check.name:<{longest}}  {check.looks_at}" for check in CHECKS.values()))
        return ExitCode.OK
    results = _reach(arguments) if arguments.reach is not None else examine(_case(arguments), arguments.checks)
    limit = Verdict.WARNING if arguments.strict else Verdict.FAULT
    exit_code = ExitCode.FAILURE if worst_verdict(results).rank >= limit.rank else ExitCode.OK
    if arguments.json:
        print(json.dumps(document(results, exit_code), indent=2))
    else:
        width, is_terminal = shutil.get_terminal_size((120, 24)).columns, sys.stdout.isatty()
        print(render_text(results, width=width, colour=is_terminal and "NO_COLOR" not in os.environ))
    return exit_code


def _reach(arguments: argparse.Namespace) -> "list[Result]":
    from antquic_server.doctor.reach import reach

    if arguments.checks or arguments.overrides or arguments.config or arguments.admin:
        raise UsageError("command line: --reach looks at another machine: it goes with --json and --strict only")
    return reach(arguments.reach)


def _case(arguments: argparse.Namespace) -> "Case":
    from antquic_server.doctor.case import Case
    from antquic_server.doctor.machine import Machine
    from antquic_server.doctor.running_node import settings_in_force
    from antquic_server.net.port_lock import holder_pid
    from antquic_server.protocol.address import SocketAddress

    settings, error = _settings(arguments)
    status, status_error, admin_port = _status(arguments, settings)
    told = None
    if status is not None and arguments.config is None and not os.environ.get(CONFIG_VARIABLE):
        told = settings_in_force(status, admin_port)
    if told is not None:
        settings, error = _settings(arguments, told)
        if not arguments.overrides:
            # It runs with them; wrong is only what could not be taken over: one path of two, a module of its version.
            error = None
    try:
        node_key = str(key_path(settings.identity.file))
    except IdentityError:
        node_key = ""
    # As the node writes it into the lock: an IPv6 address has many forms.
    held = (holder_pid(str(SocketAddress.parse(address))) for address in settings.endpoint.listen)
    return Case(
        machine=Machine(),
        settings=settings,
        configuration_error=error,
        node_key=node_key,
        node_pid=next((pid for pid in held if pid is not None), None),
        status=status,
        status_error=status_error,
        admin_port=admin_port,
        admin_given=arguments.admin is not None,
        settings_told=told is not None,
    )


def _settings(arguments: argparse.Namespace, told: Settings | None = None) -> tuple[Settings, str | None]:
    """
    Settings of the node; where its file is wrong, the defaults and what is wrong: that is a finding.

    ``told`` are those of the running node, which stand in for the defaults.
    """
    path = None if arguments.config is None else Path(arguments.config)
    try:
        return load_settings(path, overrides=arguments.overrides, environment=os.environ, defaults=told), None
    except ConfigurationError as error:
        if error.source in ("command line", "--set"):
            raise
        return told or Settings(), str(error)


def _status(arguments: argparse.Namespace, settings: Settings) -> tuple[dict[str, object] | None, str, int]:
    """Answer of the running node, or why there is none; and the port that was asked, 0 if none was."""
    if arguments.admin is not None:
        host, port = admin_url(arguments.admin)
    else:
        address, port = split_listen_address("configuration", "admin.listen", settings.admin.listen)
        host = str(address)
        if address.is_unspecified:
            host = "::1" if address.version == 6 else "127.0.0.1"
    if port == 0:
        return None, "admin.listen has no fixed port, and --admin is not given", port
    try:
        return fetch_status(host, port), "", port
    except AdminUnreachableError as error:
        return None, str(error), port
