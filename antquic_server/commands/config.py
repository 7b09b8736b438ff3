"""``antquic-server config``: checks a configuration, shows the one in force, prints the reference."""

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path

from antquic_server.config.load import load_settings
from antquic_server.errors import ConfigurationError, UsageError

__all__ = ["EXAMPLES", "SUMMARY", "add_arguments", "run"]

SUMMARY = "check a configuration, show what it comes to, print the reference"

EXAMPLES = """\
examples:
  antquic-server config check --config node.toml
  antquic-server config show --set endpoint.workers=4
  antquic-server config show --json
  antquic-server config reference

check  ends with 0 and one line, or with 2 and the first mistake: fit for a deployment to run before a restart
show   prints every setting as a configuration file, with the default beside whatever differs from it

Both read what `serve` would: the file of --config, else of $ANTQUIC_CONFIG, then --set.
"""

_ACTIONS = ("check", "show", "reference")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``config``."""
    parser.add_argument("action", metavar="check|show|reference", help="what to do")
    parser.add_argument("--config", metavar="FILE", help="configuration file (default: $ANTQUIC_CONFIG)")
    parser.add_argument(
        "--set", metavar="SECTION.KEY=VALUE", action="append", default=[], dest="overrides", help="as for serve"
    )
    parser.add_argument("--json", action="store_true", help="with show: print one JSON object")
    parser.add_argument("--write", metavar="PAGE", help="with reference: renew the tables of this Markdown page")


def run(arguments: argparse.Namespace) -> int:
    """Do what ``action`` says; returns the exit code."""
    if arguments.action not in _ACTIONS:
        raise ConfigurationError("command line", "config", arguments.action, "one of " + ", ".join(_ACTIONS))

    # Imported only now: texts that only the reference needs.
    from antquic_server.config.model import section_types, to_plain
    from antquic_server.config.reference import render_table, render_toml, replace_tables

    if arguments.action == "reference":
        if arguments.write is not None:
            _renew(Path(arguments.write), replace_tables)
        else:
            print("\n".join(f"### `[{section}]`\n\n{render_table(section)}" for section in section_types()), end="")
        return 0
    path = None if arguments.config is None else Path(arguments.config)
    settings = load_settings(path, overrides=arguments.overrides, environment=os.environ)
    if arguments.action == "check":
        print("configuration: fine")
    elif arguments.json:
        print(json.dumps(to_plain(settings)))
    else:
        print(render_toml(settings), end="")
    return 0


def _renew(page: Path, replace: Callable[[str], str]) -> None:
    try:
        page.write_text(replace(page.read_text()))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"command line: --write {page}: expected a page of text to renew: {error}") from None
