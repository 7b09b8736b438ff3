"""
``antquic-server natlab``: peers behind every kind of NAT, on this machine, with the version installed here.

The NATs are network namespaces of the command's own, gone when it ends however it ends. Results go to standard
output, progress to standard error; the exit code is 1 when something was worse than theory allows.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from antquic_server.errors import ConfigurationError, ExitCode

if TYPE_CHECKING:
    from antquic_server.natlab.matrix import Cell
    from antquic_server.natlab.meeting import MeetingTrial

__all__ = ["EXAMPLES", "PEERS", "SUMMARY", "add_arguments", "cells_of", "run", "trial_of"]

SUMMARY = "test hole punching through emulated NATs"

EXAMPLES = """\
examples:
  antquic-server natlab
  antquic-server natlab run --cell easy,symmetric --cell cgnat,full-cone
  antquic-server natlab run --cell udp-hostile,symmetric
  antquic-server natlab run --relay never
  antquic-server natlab run --peers mixed --attempts 3 --json > matrix.json
  antquic-server natlab classify
  antquic-server natlab clean

run (the default) lets two peers meet through every pair of NATs and prints a table; classify shows that the
emulated NATs do what their names say; clean removes what a killed run left behind.
Needs root (or CAP_NET_ADMIN and CAP_SYS_ADMIN) and the programs ip and nft.
"""

PEERS = {"library": ("library", "library"), "rust": ("rust", "rust"), "mixed": ("rust", "library")}
"""Who is peer a and who is peer b, for each ``--peers`` name; each NAT is on both sides, and either side asks."""

RELAY = ("auto", "never")

AT_ONCE = 4
"""Meetings spend most of their time waiting; what they compute is the start of five processes."""

MOST_AT_ONCE = 64


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``natlab``."""
    parser.add_argument("action", metavar="run|classify|clean", nargs="?", default="run", help="what to do")
    parser.add_argument(
        "--peers",
        metavar="NAME",
        default="library",
        help="who meets: library (two of our own, the default), rust (two ant-quic) or mixed (a is ant-quic)",
    )
    parser.add_argument(
        "--cell",
        metavar="NAT,NAT",
        action="append",
        default=[],
        dest="cells",
        help="one pair of NATs instead of the whole matrix, each side initiating; repeatable",
    )
    parser.add_argument("--attempts", metavar="N", type=int, default=1, help="for a pair that is worse than theory")
    parser.add_argument("--at-once", metavar="N", type=int, default=AT_ONCE, help=f"meetings at a time ({AT_ONCE})")
    parser.add_argument("--program", metavar="FILE", help="the ant-quic program, where one takes part")
    parser.add_argument(
        "--coordinator",
        metavar="NAME",
        default="antquic-server",
        help="antquic-server, or ant-quic to compare with",
    )
    parser.add_argument(
        "--relay",
        metavar="auto|never",
        default="auto",
        help="whether our own peers have the node carry what cannot go directly (auto)",
    )
    parser.add_argument("--log-dir", metavar="DIR", help="keep the logs of every process here")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Do what was asked for; returns the exit code."""
    actions = {"run": _run_matrix, "classify": _classify, "clean": _clean}
    if arguments.action not in actions:
        raise ConfigurationError("command line", "natlab", arguments.action, "one of " + ", ".join(actions))
    return actions[arguments.action](arguments)


def cells_of(texts: Sequence[str], *, prediction: bool) -> "list[Cell]":
    """
    Return the cells that ``--cell`` names, the whole matrix if it names none.

    For peers that predict ports the matrix has one more NAT, whose ports they can predict.

    Raises:
        ConfigurationError: One is not two names of NATs with a comma in between.
    """
    from antquic_server.natlab.matrix import INITIATORS, Cell, all_cells
    from antquic_server.natlab.model import CONES_AND_SYMMETRIC, PREDICTABLE, kind_named

    if not texts:
        names = [*CONES_AND_SYMMETRIC, *([PREDICTABLE] if prediction else [])]
        return all_cells([kind_named(name) for name in names])
    cells = []
    for text in texts:
        names = text.split(",")
        if len(names) != 2:
            raise ConfigurationError("command line", "--cell", text, "two NATs like easy,symmetric")
        kind_a, kind_b = map(kind_named, names)
        cells += [Cell(kind_a=kind_a, kind_b=kind_b, initiator=who) for who in INITIATORS]
    return cells


def trial_of(arguments: argparse.Namespace) -> "MeetingTrial":
    """
    Return the trial that ``--peers``, ``--coordinator`` and ``--program`` describe.

    Raises:
        ConfigurationError: One of them is none that there is.
        LabUnavailableError: ant-quic is to take part and is nowhere.
    """
    from antquic_server.natlab.meeting import Coordinator, MeetingTrial
    from antquic_server.natlab.programs import AntQuic, Library, default_program

    if arguments.coordinator not in list(Coordinator):
        expected = "one of " + ", ".join(Coordinator)
        raise ConfigurationError("command line", "--coordinator", arguments.coordinator, expected)
    coordinator = Coordinator(arguments.coordinator)
    ant_quic = None
    if arguments.peers != "library" or coordinator is Coordinator.ANT_QUIC or arguments.program is not None:
        program = default_program() if arguments.program is None else _program(arguments.program)
        ant_quic = AntQuic(program=program)
    library = Library(relays=arguments.relay == "auto")
    sides = [library if name == "library" or ant_quic is None else ant_quic for name in PEERS[arguments.peers]]
    return MeetingTrial(
        a=sides[0],
        b=sides[1],
        coordinator=coordinator,
        ant_quic=ant_quic,
        log_directory=None if arguments.log_dir is None else Path(arguments.log_dir).expanduser(),
    )


def _program(text: str) -> Path:
    path = Path(text).expanduser().resolve()
    if not path.is_file():
        raise ConfigurationError("command line", "--program", text, "a program")
    return path


def _run_matrix(arguments: argparse.Namespace) -> int:
    if arguments.peers not in PEERS:
        raise ConfigurationError("command line", "--peers", arguments.peers, "one of " + ", ".join(PEERS))
    if arguments.relay not in RELAY:
        raise ConfigurationError("command line", "--relay", arguments.relay, "one of " + ", ".join(RELAY))
    for flag, value in (("--attempts", arguments.attempts), ("--at-once", arguments.at_once)):
        if not 1 <= value <= MOST_AT_ONCE:
            raise ConfigurationError("command line", flag, value, f"a number from 1 to {MOST_AT_ONCE}")
    cells_of(arguments.cells, prediction=True)

    # Imported only now so that a wrong option is reported at once.
    from antquic_server.natlab.matrix import Verdict, matrix_json, render_matrix, run_matrix
    from antquic_server.natlab.namespaces import find_tools

    find_tools()
    trial = trial_of(arguments)
    results = list(
        run_matrix(
            cells_of(arguments.cells, prediction=trial.prediction),
            trial,
            prediction=trial.prediction,
            relaying=trial.relaying,
            attempts=arguments.attempts,
            at_once=arguments.at_once,
            progress=_progress,
        )
    )
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
