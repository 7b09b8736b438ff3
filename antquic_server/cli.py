"""
The command line: arguments in, one exit code out.

Whatever goes wrong is one line on standard error, ``antquic-server: error: ...``, never a usage text that
hides it: 2 for a wrong command line or configuration, 3 for a node that cannot start, 1 for anything else.
"""

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import NoReturn

from antquic_server import __version__
from antquic_server.commands import bench, identity, natlab, peer, profile, serve, status, top
from antquic_server.errors import AntQuicError, ConfigurationError, ExitCode, UsageError

__all__ = ["main"]

PROGRAM = "antquic-server"

INTERRUPTED = 130
"""128 + SIGINT, as shells report a program that Ctrl-C ended."""

EXAMPLES = """\
examples:
  antquic-server serve
  antquic-server status
  antquic-server COMMAND --help

exit codes: 0 fine, 2 bad usage or configuration, 3 cannot start, 1 anything else
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Command:
    summary: str
    examples: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


COMMANDS = {
    "serve": _Command(summary=serve.SUMMARY, examples=serve.EXAMPLES, add_arguments=serve.add_arguments, run=serve.run),
    "status": _Command(
        summary=status.SUMMARY, examples=status.EXAMPLES, add_arguments=status.add_arguments, run=status.run
    ),
    "top": _Command(summary=top.SUMMARY, examples=top.EXAMPLES, add_arguments=top.add_arguments, run=top.run),
    "profile": _Command(
        summary=profile.SUMMARY, examples=profile.EXAMPLES, add_arguments=profile.add_arguments, run=profile.run
    ),
    "identity": _Command(
        summary=identity.SUMMARY,
        examples=identity.EXAMPLES,
        add_arguments=identity.add_arguments,
        run=identity.run,
    ),
    "peer": _Command(summary=peer.SUMMARY, examples=peer.EXAMPLES, add_arguments=peer.add_arguments, run=peer.run),
    "bench": _Command(summary=bench.SUMMARY, examples=bench.EXAMPLES, add_arguments=bench.add_arguments, run=bench.run),
    "natlab": _Command(
        summary=natlab.SUMMARY, examples=natlab.EXAMPLES, add_arguments=natlab.add_arguments, run=natlab.run
    ),
}
"""Every command by its name, in the order of ``--help``."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; ``argv`` is what follows the program's name, ``sys.argv[1:]`` if None."""
    try:
        arguments = _parse(sys.argv[1:] if argv is None else argv)
        exit_code = COMMANDS[arguments.command].run(arguments)
        # Flushed here, where a closed pipe can still be told from a crash.
        sys.stdout.flush()
    except AntQuicError as error:
        print(f"{PROGRAM}: error: {_one_line(str(error))}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # `status | head` is no mistake. The interpreter flushes stdout again on its way out: into nothing.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.FAILURE
    return exit_code


class _Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are exceptions of ours instead of a usage text and an exit."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"command line: {message}; see {self.prog} --help")


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser, command_parsers = _build_parsers()
    # The only options before the command take no value, so the first other word is the command.
    command = next((word for word in argv if not word.startswith("-")), None)
    if command is not None and command not in COMMANDS:
        expected = "one of " + ", ".join(COMMANDS) + _did_you_mean(command, COMMANDS)
        raise ConfigurationError("command line", "command", command, expected)
    arguments, unknown = parser.parse_known_args(argv)
    if command is None:
        _refuse_unknown(parser, unknown)
        parser.error("no command given, expected one of " + ", ".join(COMMANDS))
    _refuse_unknown(command_parsers[command], unknown)
    return arguments


def _build_parsers() -> tuple[_Parser, dict[str, _Parser]]:
    parser = _Parser(
        prog=PROGRAM,
        description="Post-quantum QUIC bootstrap, coordination and relay node for ant-quic networks.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        # An abbreviation that works today would break when another option begins alike.
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    command_parsers = {}
    for name, command in COMMANDS.items():
        command_parsers[name] = commands.add_parser(
            name,
            help=command.summary,
            description=command.summary[0].upper() + command.summary[1:] + ".",
            epilog=command.examples,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        command.add_arguments(command_parsers[name])
    return parser, command_parsers


def _refuse_unknown(parser: _Parser, unknown: Sequence[str]) -> None:
    if unknown:
        word = unknown[0].partition("=")[0]
        known = re.findall(r"--[a-z-]+", parser.format_usage())
        kind = "option" if word.startswith("-") else "argument"
        parser.error(f"unknown {kind} {word!r}{_did_you_mean(word, known)}")


def _did_you_mean(word: str, known: Sequence[str] | dict[str, _Command]) -> str:
    near = get_close_matches(word, known, n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def _one_line(text: str) -> str:
    """Escape line breaks and whatever else could command a terminal; keys and paths come from outside."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
