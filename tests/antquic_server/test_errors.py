"""What the errors tell whoever meets them."""

import pickle

import pytest

from antquic_server import errors
from antquic_server.errors import (
    AdminUnreachableError,
    AntQuicError,
    CannotBootError,
    ConfigurationError,
    DecodeError,
    ExitCode,
    NoPortError,
    PeerClosedError,
    PeerUnreachableError,
    PortInUseError,
    UsageError,
)


def _leaves(kind: type[AntQuicError]) -> list[type[AntQuicError]]:
    return [kind, *(leaf for child in kind.__subclasses__() for leaf in _leaves(child))]


def test_exported_names_are_complete_and_sorted() -> None:
    """Everything the module defines can be imported from it by name, and the list is easy to search."""
    defined = {name for name, value in vars(errors).items() if getattr(value, "__module__", "") == errors.__name__}

    assert set(errors.__all__) == defined
    assert errors.__all__ == sorted(errors.__all__)


def test_exit_codes_are_those_the_documentation_promises() -> None:
    """Service managers act on these numbers, so they never change."""
    assert {code.name: int(code) for code in ExitCode} == {"OK": 0, "FAILURE": 1, "USAGE": 2, "CANNOT_BOOT": 3}


@pytest.mark.parametrize(
    ("family", "exit_code"),
    [(UsageError, ExitCode.USAGE), (CannotBootError, ExitCode.CANNOT_BOOT), (DecodeError, ExitCode.FAILURE)],
)
def test_a_family_shares_its_exit_code(family: type[AntQuicError], exit_code: ExitCode) -> None:
    """What the process returns depends on the family alone."""
    assert {leaf.exit_code for leaf in _leaves(family)} == {exit_code}


def test_configuration_error_names_source_key_value_and_expectation() -> None:
    """The four facts are attributes, and one line holds them all."""
    error = ConfigurationError("node.toml", "endpoint.workers", 65, "an integer from 0 to 64")

    assert (error.source, error.key, error.value) == ("node.toml", "endpoint.workers", 65)
    assert str(error) == "node.toml: endpoint.workers = 65: expected an integer from 0 to 64"


def test_configuration_error_stays_on_one_short_line() -> None:
    """A value with line breaks or of any length cannot spread over the operator's terminal."""
    message = str(ConfigurationError("--set", "log.modules", "a\n" * 500, "a table"))

    assert "\n" not in message
    assert len(message) < 150


def test_port_in_use_names_the_address() -> None:
    """The operator learns which of several listen addresses is taken, and by whom."""
    error = PortInUseError("0.0.0.0:10000", "process 17 has it")

    assert str(error) == "cannot listen on 0.0.0.0:10000: process 17 has it"


def test_admin_unreachable_names_the_url() -> None:
    """The operator sees where the command looked."""
    assert (
        str(AdminUnreachableError("http://127.0.0.1:1", "refused")) == "no node answers at http://127.0.0.1:1: refused"
    )


def test_errors_survive_pickling() -> None:
    """An error can cross a process boundary with its facts."""
    copy = pickle.loads(pickle.dumps(PortInUseError("[::]:1", "taken")))

    assert (copy.address, copy.detail) == ("[::]:1", "taken")


def test_peer_errors_say_whom_and_why() -> None:
    """A word for programs, a sentence for people."""
    unreachable = PeerUnreachableError("abcd", "no_path", "nothing came through")

    assert str(unreachable) == "cannot reach abcd: no_path: nothing came through"
    assert str(PeerClosedError(0x4E5B02, "")) == "the connection has ended: no reason given (code 0x4e5b02)"
    assert pickle.loads(pickle.dumps(unreachable)).reason == "no_path"


def test_no_port_says_whether_to_try_again() -> None:
    """A full range may have one later, an address that is not there never will."""
    assert str(NoPortError("198.18.0.1", False)) == "no free port at 198.18.0.1"
    assert str(NoPortError("::1", True)) == "no port at ::1"
    assert pickle.loads(pickle.dumps(NoPortError("::1", True))).unsupported
