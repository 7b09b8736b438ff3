"""``antquic-server bench``: lists, runs and compares benchmarks."""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

from antquic_server.errors import ConfigurationError, UsageError

__all__ = ["EXAMPLES", "SUMMARY", "add_arguments", "run"]

SUMMARY = "run benchmarks; without a name, list them"

COMPARE = "compare"
MAX_REPEAT = 1000
_OF_RUNS = ("quick", "options", "save", "chart", "profile")
"""Options that mean nothing where benchmarks are only listed."""

EXAMPLES = """\
examples:
  antquic-server bench
  antquic-server bench all --quick
  antquic-server bench handshake --repeat 5 --save new.json --chart new.svg
  antquic-server bench compare old.json new.json --ratios-only --fail-on-worse 10
  antquic-server bench handshake datagram --json
  antquic-server bench NAME --option KEY=VALUE
  antquic-server bench datagram --profile flames
  antquic-server bench --load my_benchmark.py mine
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``bench``."""
    parser.add_argument(
        "names",
        metavar="NAME",
        nargs="*",
        help="benchmark to run, or 'all' of them; 'compare OLD NEW' compares two saved files",
    )
    parser.add_argument(
        "--repeat", metavar="N", default="1", help="run each N times: medians and spread; 5 or more to compare"
    )
    parser.add_argument("--quick", action="store_true", help="measure very little: a look whether it works")
    parser.add_argument(
        "--option",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        dest="options",
        help="an option of a benchmark, as its listing names it; repeatable",
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object: what --save writes, or the comparison"
    )
    parser.add_argument(
        "--save", metavar="FILE", type=Path, help="write every repetition, machine and versions as JSON"
    )
    parser.add_argument(
        "--chart", metavar="FILE.svg", type=Path, help="draw the run or the comparison; needs matplotlib"
    )
    parser.add_argument(
        "--profile", metavar="DIRECTORY", type=Path, help="write a flame graph of every server measured; needs py-spy"
    )
    parser.add_argument("--load", metavar="FILE.py", type=Path, help="add benchmarks of your own")
    parser.add_argument(
        "--fail-on-worse",
        metavar="PERCENT",
        help="with compare: exit 1 if a figure shows to be worse by more than that",
    )
    parser.add_argument("--ratios-only", action="store_true", help="with compare: only ratios, as between machines")


def run(arguments: argparse.Namespace) -> int:
    """Do what is asked for in this process; returns the exit code."""
    if arguments.names[:1] == [COMPARE]:
        return _compare(arguments)
    for option in ("fail_on_worse", "ratios_only"):
        if getattr(arguments, option):
            raise UsageError(f"bench: --{option.replace('_', '-')} goes with 'bench compare OLD NEW' only")
    options = _parse_options(arguments.options)
    repeat = _parse_repeat(arguments.repeat)
    asked = [name for name in _OF_RUNS if getattr(arguments, name)]
    if asked and not arguments.names:
        raise UsageError(f"bench: --{asked[0].removesuffix('s')} needs the name of a benchmark, or 'all'")

    # Imported only now because benchmarks bring every provider and client along.
    from antquic_server.bench import campaign

    return campaign.run(
        campaign.Request(
            names=arguments.names,
            options=options,
            quick=arguments.quick,
            repeat=repeat,
            json_output=arguments.json,
            save=arguments.save,
            chart=arguments.chart,
            profile=arguments.profile,
            load=arguments.load,
            command=_command(arguments),
        )
    )


def _compare(arguments: argparse.Namespace) -> int:
    files = arguments.names[1:]
    if len(files) != 2:
        raise UsageError(f"bench compare: {len(files)} files given, expected two: OLD.json NEW.json")
    for option in ("quick", "options", "save", "profile", "load"):
        if getattr(arguments, option):
            raise UsageError(f"bench compare: --{option.removesuffix('s')} goes with running benchmarks only")
    percent = None if arguments.fail_on_worse is None else _parse_percent(arguments.fail_on_worse)

    from antquic_server.bench import comparison

    return comparison.run(
        comparison.ComparisonRequest(
            old=Path(files[0]),
            new=Path(files[1]),
            fail_on_worse_percent=percent,
            ratios_only=arguments.ratios_only,
            json_output=arguments.json,
            chart=arguments.chart,
        )
    )


def _command(arguments: argparse.Namespace) -> list[str]:
    """Return the command line that asks for the same figures."""
    command = ["antquic-server", "bench", *arguments.names, "--repeat", arguments.repeat]
    command += ["--quick"] * arguments.quick
    for option in arguments.options:
        command += ["--option", option]
    if arguments.load is not None:
        command += ["--load", str(arguments.load)]
    return command


def _parse_options(texts: Sequence[str]) -> dict[str, str]:
    options = {}
    for text in texts:
        key, separator, value = text.partition("=")
        if not (key and separator):
            raise ConfigurationError("command line", "--option", text, "KEY=VALUE")
        options[key] = value
    return options


def _parse_repeat(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= MAX_REPEAT):
        raise ConfigurationError("command line", "--repeat", text, f"a whole number from 1 to {MAX_REPEAT}")
    return int(text)


def _parse_percent(text: str) -> float:
    try:
        percent = float(text)
    except ValueError:
        percent = math.nan
    if not 0 <= percent < math.inf:
        raise ConfigurationError("command line", "--fail-on-worse", text, "a number of per cent, 0 or more")
    return percent
