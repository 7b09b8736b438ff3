"""``antquic-server bench``: runs benchmarks, or lists them."""

import argparse
from collections.abc import Sequence

from antquic_server.errors import ConfigurationError

__all__ = ["EXAMPLES", "SUMMARY", "add_arguments", "run"]

SUMMARY = "run benchmarks; without a name, list them"

EXAMPLES = """\
examples:
  antquic-server bench
  antquic-server bench handshake
  antquic-server bench handshake datagram --json
  antquic-server bench relay --quick
  antquic-server bench NAME --option KEY=VALUE
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``bench``."""
    parser.add_argument("names", metavar="NAME", nargs="*", help="benchmark to run")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help="measure very little: a look whether it works")
    parser.add_argument(
        "--option",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        dest="options",
        help="an option of a benchmark, as its listing names it; repeatable",
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the named benchmarks in this process; returns the exit code."""
    options = _parse_options(arguments.options)

    # Imported only now because benchmarks bring every provider and client along.
    from antquic_server.bench import registry

    return registry.run(arguments.names, arguments.json, options, quick=arguments.quick)


def _parse_options(texts: Sequence[str]) -> dict[str, str]:
    options = {}
    for text in texts:
        key, separator, value = text.partition("=")
        if not (key and separator):
            raise ConfigurationError("command line", "--option", text, "KEY=VALUE")
        options[key] = value
    return options
