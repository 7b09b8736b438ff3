"""
The command line: arguments in, one exit code out.

Whatever goes wrong is one line on standard error, ``antquic-server: error: ...``, never a usage text that
hides it: 2 for a wrong command line or configuration, 3 for a node that cannot start, 1 for anything else.
"""

import argparse
import errno
import os
import re
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from typing import NoReturn, Protocol, TextIO

from antquic_server import __version__
from antquic_server.commands import (
    bench,
    config,
    doctor,
    identity,
    log,
    natlab,
    peer,
    profile,
    qlog,
    serve,
    status,
    top,
    tune,
)
from antquic_server.commands.one_line import one_line
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


class _Command(Protocol):
    """What a module of ``commands`` offers."""

    SUMMARY: str
    EXAMPLES: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare its arguments."""

    def run(self, arguments: argparse.Namespace) -> int:
        """Do it; returns the exit code."""


COMMANDS: dict[str, _Command] = {
    "serve": serve,
    "status": status,
    "top": top,
    "log": log,
    "qlog": qlog,
    "identity": identity,
    "config": config,
    "doctor": doctor,
    "tune": tune,
    "profile": profile,
    "peer": peer,
    "bench": bench,
    "natlab": natlab,
}
"""Every command by its name, in the order of ``--help``."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; ``argv`` is what follows the program's name, ``sys.argv[1:]`` if None."""
    _open_standard_descriptors()
    try:
        try:
            return _run(sys.argv[1:] if argv is None else argv)
        finally:
            # Flushed here, where a closed pipe and a full disk can still be told from a crash.
            sys.stdout.flush()
    except BrokenPipeError:
        # `status | head` is no mistake.
        _discard(sys.stdout)
        return ExitCode.FAILURE
    except OSError as error:
        if not _is_about_output(error):
            raise
        _complain(f"cannot write to standard output: {error.strerror}")
        _discard(sys.stdout)
        return ExitCode.FAILURE


def _run(argv: Sequence[str]) -> int:
    try:
        arguments = _parse(argv)
        return COMMANDS[arguments.command].run(arguments)
    except AntQuicError as error:
        _complain(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED


def _open_standard_descriptors() -> None:
    """
    Let descriptors 0, 1 and 2 lead to nowhere if they are closed, as after ``>&-``.

    Otherwise the next sockets and files that are opened get these numbers, and what is printed goes into them.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
            # As standard descriptors are: child processes have them too.
            os.set_inheritable(number, True)
    # What Python makes of a descriptor that was closed when it started.
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - as long as the process
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


def _is_about_output(error: OSError) -> bool:
    """Tell whether an error is one of writing, and of no file that has a name."""
    return error.filename is None and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def _discard(stream: TextIO) -> None:
    """Let a standard stream lead to nowhere: the interpreter flushes it again on its way out."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _complain(text: str) -> None:
    try:
        print(f"{PROGRAM}: error: {one_line(text)}", file=sys.stderr)
    except OSError:
        # Where nobody can be told, the exit code still tells.
        _discard(sys.stderr)


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
            help=command.SUMMARY,
            description=command.SUMMARY[0].upper() + command.SUMMARY[1:] + ".",
            epilog=command.EXAMPLES,
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
