"""
``antquic-server natlab``: peers behind every kind of NAT, on this machine, with the version installed here.

The NATs are network namespaces of the command's own, gone when it ends however it ends. Results go to standard
output, progress to standard error; the exit code is 1 when something was worse than theory allows.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from antquic_server.errors import ConfigurationError, ExitCode

if TYPE_CHECKING:
    from antquic_server.natlab.matrix import Cell, Trial

__all__ = ["TRIALS", "add_arguments", "cells_of", "run"]

SUMMARY = "test hole punching through emulated NATs"

EXAMPLES = """\
examples:
  antquic-server natlab
  antquic-server natlab run --cell easy,symmetric --cell cgnat,full-cone
  antquic-server natlab run --json > matrix.json
  antquic-server natlab classify
  antquic-server natlab clean

run (the default) lets two peers meet through every pair of NATs and prints a table; classify shows that the
emulated NATs do what their names say; clean removes what a killed run left behind.
Needs root (or CAP_NET_ADMIN and CAP_SYS_ADMIN) and the programs ip and nft.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``natlab``."""
    parser.add_argument("action", metavar="run|classify|clean", nargs="?", default="run", help="what to do")
    parser.add_argument("--peers", metavar="NAME", default="rust", help="peers that meet: " + ", ".join(TRIALS))
    parser.add_argument(
        "--cell",
        metavar="NAT,NAT",
        action="append",
        default=[],
        dest="cells",
        help="one pair of NATs instead of the whole matrix, each side initiating; repeatable",
    )
    parser.add_argument("--program", metavar="FILE", help="with --peers rust: the ant-quic program")
    parser.add_argument(
        "--coordinator",
        metavar="NAME",
        default="antquic-server",
        help="antquic-server, or ant-quic to compare with (with --peers rust)",
    )
    parser.add_argument("--log-dir", metavar="DIR", help="keep the logs of every process here")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Do what was asked for; returns the exit code."""
    actions = {"run": _run_matrix, "classify": _classify, "clean": _clean}
    if arguments.action not in actions:
        raise ConfigurationError("command line", "natlab", arguments.action, "one of " + ", ".join(actions))
    return actions[arguments.action](arguments)


def cells_of(texts: Sequence[str]) -> "list[Cell]":
    """
    Return the cells that ``--cell`` names, the whole matrix if it names none.

    Raises:
        ConfigurationError: One is not two names of NATs with a comma in between.
    """
    from antquic_server.natlab.matrix import INITIATORS, Cell, all_cells
    from antquic_server.natlab.model import CONES_AND_SYMMETRIC, kind_named

    if not texts:
        return all_cells([kind_named(name) for name in CONES_AND_SYMMETRIC])
    cells = []
    for text in texts:
        names = text.split(",")
        if len(names) != 2:
            raise ConfigurationError("command line", "--cell", text, "two NATs like easy,symmetric")
        kind_a, kind_b = map(kind_named, names)
        cells += [Cell(kind_a=kind_a, kind_b=kind_b, initiator=who) for who in INITIATORS]
    return cells


def _rust_trial(arguments: argparse.Namespace) -> "tuple[Trial, bool]":
    """Return the trial with ant-quic programs; they act on one address per peer, so theory grants no prediction."""
    from antquic_server.natlab.rust_trial import Coordinator, RustTrial, default_program

    if arguments.coordinator not in list(Coordinator):
        expected = "one of " + ", ".join(Coordinator)
        raise ConfigurationError("command line", "--coordinator", arguments.coordinator, expected)
    trial = RustTrial(
        program=default_program() if arguments.program is None else _program(arguments.program),
        coordinator=Coordinator(arguments.coordinator),
        log_directory=None if arguments.log_dir is None else Path(arguments.log_dir).expanduser(),
    )
    return trial, False


TRIALS: "dict[str, Callable[[argparse.Namespace], tuple[Trial, bool]]]" = {"rust": _rust_trial}
"""Makes the trial of each ``--peers`` name, and says whether its peers predict ports."""


def _program(text: str) -> Path:
    path = Path(text).expanduser().resolve()
    if not path.is_file():
        raise ConfigurationError("command line", "--program", text, "a program")
    return path


def _run_matrix(arguments: argparse.Namespace) -> int:
    if arguments.peers not in TRIALS:
        raise ConfigurationError("command line", "--peers", arguments.peers, "one of " + ", ".join(TRIALS))
    cells = cells_of(arguments.cells)

    # Imported only now so that a wrong option is reported at once.
    from antquic_server.natlab.matrix import Verdict, matrix_json, render_matrix, run_matrix
    from antquic_server.natlab.namespaces import find_tools

    find_tools()
    trial, prediction = TRIALS[arguments.peers](arguments)
    results = list(run_matrix(cells, trial, prediction=prediction, progress=_progress))
    print(matrix_json(results) if arguments.json else render_matrix(results))
    return ExitCode.FAILURE if any(result.verdict is Verdict.WORSE for result in results) else ExitCode.OK


def _classify(arguments: argparse.Namespace) -> int:
    from antquic_server.natlab.certify import certificates_json, certify, render_certificates

    certificates = list(certify())
    print(certificates_json(certificates) if arguments.json else render_certificates(certificates))
    return ExitCode.OK if all(certificate.is_true for certificate in certificates) else ExitCode.FAILURE


def _clean(arguments: argparse.Namespace) -> int:
    import json

    from antquic_server.natlab.namespaces import find_tools, remove_leftovers

    removed = [str(name) for name in remove_leftovers(find_tools())]
    if arguments.json:
        print(json.dumps({"removed": removed}))
    else:
        print("\n".join([*(f"removed {name}" for name in removed), f"{len(removed)} leftover namespaces removed"]))
    return ExitCode.OK


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
