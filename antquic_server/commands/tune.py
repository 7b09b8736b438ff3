"""
``antquic-server tune``: compares the kernel's settings with what a node should have, sets them, puts them back.

On Linux the work is done here; on macOS and Windows by the scripts in ``tuning/``, which this command starts.
"""

import argparse
import os
import sys
from pathlib import Path

from antquic_server.errors import CannotBootError, ConfigurationError, ExitCode

__all__ = ["EXAMPLES", "SUMMARY", "add_arguments", "run"]

SUMMARY = "check, apply and revert the kernel settings that matter to a node"

EXAMPLES = """\
examples:
  antquic-server tune check
  antquic-server tune apply --dry-run
  antquic-server tune apply
  antquic-server tune apply --topic busy-polling
  antquic-server tune revert
  antquic-server tune list --topic conntrack
  antquic-server tune measure

check compares and exits with 1 when something is to do; apply (as root) sets what is missing, now and for the next
start, and records what it found; revert puts back exactly that; list tells the stock value, the reason and the way back
of each setting; measure shows what socket buffers and reserved ports are worth, on loopback, without changing anything.
The ports are those of the configuration (--config, $ANTQUIC_CONFIG). docs/tuning.md explains.
"""

ACTIONS = ("check", "apply", "revert", "list", "measure")

DIRECTORIES = {"darwin": "macos", "win32": "windows"}
"""Where in ``tuning/`` the settings of a platform are; Linux for all others."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``tune``."""
    parser.add_argument("action", metavar="check|apply|revert|list|measure", help="what to do")
    parser.add_argument(
        "--topic",
        metavar="TOPIC",
        action="append",
        default=[],
        dest="topics",
        help="only these settings, as tune list names them; repeatable",
    )
    parser.add_argument("--config", metavar="FILE", help="configuration file of the node, for its ports")
    parser.add_argument("--dry-run", action="store_true", help="with apply and revert: only tell")
    parser.add_argument("--force", action="store_true", help="with revert: even what somebody has changed since")
    parser.add_argument("--root", metavar="DIR", default="/", help="a system mounted elsewhere, with its proc/sys")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Do what was asked for and print what came of it; returns the exit code."""
    if arguments.action not in ACTIONS:
        raise ConfigurationError("command line", "tune", arguments.action, "one of " + ", ".join(ACTIONS))
    _refuse_misplaced(arguments)
    if arguments.action == "measure":
        return _measure(as_json=arguments.json)
    if sys.platform != "linux" and arguments.action != "list":
        return _by_script(arguments)
    return _by_catalogue(arguments)


def _refuse_misplaced(arguments: argparse.Namespace) -> None:
    for option, is_given, actions in (
        ("--dry-run", arguments.dry_run, ("apply", "revert")),
        ("--force", arguments.force, ("revert",)),
        ("--topic", bool(arguments.topics), ("check", "apply", "revert", "list")),
        ("--config", arguments.config is not None, ("check", "apply")),
        ("--root", arguments.root != "/", ("check", "apply", "revert")),
    ):
        if is_given and arguments.action not in actions:
            raise ConfigurationError("command line", option, arguments.action, "use with " + " or ".join(actions))


def _by_catalogue(arguments: argparse.Namespace) -> int:
    from antquic_server.config.load import load_settings
    from antquic_server.tuning.actions import apply, check, revert
    from antquic_server.tuning.catalogue import load_topics
    from antquic_server.tuning.places import tuning_directory
    from antquic_server.tuning.plan import choose_topics, follow
    from antquic_server.tuning.report import render_json, render_text, render_topics, render_topics_json

    known = load_topics(tuning_directory() / DIRECTORIES.get(sys.platform, "linux"))
    topics = choose_topics(known, arguments.topics)
    if arguments.action == "list":
        listed = topics if arguments.topics else known
        print(render_topics_json(listed) if arguments.json else render_topics(listed))
        return ExitCode.OK
    root = _root(arguments.root)
    if arguments.action == "revert":
        report = revert(root, arguments.topics, force=arguments.force, dry_run=arguments.dry_run)
    else:
        configured = None if arguments.config is None else Path(arguments.config).expanduser()
        topics = follow(topics, load_settings(configured, environment=os.environ))
        report = check(root, topics) if arguments.action == "check" else apply(root, topics, dry_run=arguments.dry_run)
    print(render_json(report) if arguments.json else render_text(report))
    return ExitCode.OK if report.is_good else ExitCode.FAILURE


def _root(text: str) -> Path:
    root = Path(text).expanduser().absolute()
    if not (root / "proc" / "sys").is_dir():
        raise ConfigurationError("command line", "--root", text, "a directory with proc/sys in it")
    return root


def _by_script(arguments: argparse.Namespace) -> int:
    """Hand over to the script of this platform; its exit codes are the same."""
    import subprocess

    from antquic_server.tuning.places import tuning_directory
    from antquic_server.tuning.scripts import script_command

    if arguments.topics or arguments.config or arguments.json or arguments.root != "/":
        raise ConfigurationError("command line", "tune", arguments.action, "no options but --dry-run and --force here")
    command = script_command(
        sys.platform,
        tuning_directory(),
        arguments.action,
        dry_run=arguments.dry_run,
        force=arguments.force,
    )
    try:
        return subprocess.run(command, check=False).returncode
    except OSError as error:
        raise CannotBootError(f"cannot run {command[0]}: {os.strerror(error.errno or 0)}") from None


def _measure(*, as_json: bool) -> int:
    from antquic_server.tuning.effects import measure_effects, render_effects, render_effects_json

    effects = measure_effects()
    print(render_effects_json(effects) if as_json else render_effects(effects))
    return ExitCode.OK
