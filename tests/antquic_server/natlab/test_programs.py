"""The programs of a meeting: how they are started, and what they say of a failure."""

import os
import sys
from pathlib import Path
from typing import Any, cast

import pytest

from antquic_server.natlab import programs
from antquic_server.natlab.json_process import JsonProcess
from antquic_server.natlab.namespaces import LabUnavailableError
from antquic_server.natlab.programs import AntQuic, Library, PeerProgram, default_program, package_environment

NODES = ["198.18.0.1:4433", "198.18.0.2:4433"]
PEER = "ab" * 32


class Said:
    """A program that has said all it will say."""

    def __init__(self, *, line: str = "", messages: tuple[dict[str, Any], ...] = ()) -> None:
        self._line = line
        self._messages = messages

    def last_line(self, part: str = "") -> str:
        """Return the line if it has that part."""
        return self._line if part in self._line else ""

    def find(self, matches: Any) -> list[dict[str, Any]]:
        """Return the messages that match."""
        return [message for message in self._messages if matches(message)]


def test_ant_quic_is_told_one_node_and_the_library_both() -> None:
    """Two addresses of one node teach how a NAT maps, of which ant-quic makes nothing."""
    ant_quic = AntQuic(program=Path("/bin/ant-quic"))
    for program, known in ((ant_quic, NODES[0]), (Library(), ",".join(NODES))):
        command = program.command(NODES, PEER, verbose=False)
        assert command[command.index("--known-peers") + 1] == known
        assert command[-2:] == ["--connect-peer-id", PEER]
        assert "--connect-peer-id" not in program.command(NODES, None, verbose=False)
    assert "--verbose" in ant_quic.command(NODES, None, verbose=True)
    assert ant_quic.node_command("0.0.0.0:1", verbose=False)[-2:] == ["--listen", "0.0.0.0:1"]


def test_the_library_runs_as_installed_here() -> None:
    """With this interpreter, and this package first."""
    assert Library().command(NODES, None, verbose=False)[:2] == [sys.executable, "-m"]
    root = Path(programs.__file__).parents[2]
    assert package_environment()["PYTHONPATH"].split(os.pathsep)[0] == str(root)


@pytest.mark.parametrize("program", [AntQuic(program=Path("ant-quic")), Library()], ids=lambda item: item.name)
def test_peers_have_a_home_of_their_own(program: PeerProgram, tmp_path: Path) -> None:
    """What one peer remembers is not to help the next one."""
    assert program.environment(tmp_path)["HOME"] == str(tmp_path)


def test_the_peers_own_word_for_a_failure() -> None:
    """ant-quic logs it, the library reports it; neither is made up."""
    ant_quic, library = AntQuic(program=Path("ant-quic")), Library()
    logged = Said(line="ERROR Failed to connect to peer abab: NAT traversal error: timed out")
    reported = Said(messages=({"event": "connect_failed", "reason": "no_path", "detail": "in vain"},))

    assert ant_quic.failure(cast("JsonProcess", logged)) == "NAT traversal error: timed out"
    assert library.failure(cast("JsonProcess", reported)) == "no_path: in vain"
    for program in (ant_quic, library):
        assert program.failure(cast("JsonProcess", Said())) == ""


def test_the_program_is_found_where_it_was_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """First the cache, then PATH; without either the line says what to do, with exit code 3."""
    monkeypatch.setenv("ANTQUIC_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(LabUnavailableError, match=r"run scripts/build-peers\.sh") as caught:
        default_program()
    assert caught.value.exit_code == 3
    for directory in (tmp_path / "bin", tmp_path / "peers" / f"ant-quic-{programs.ANT_QUIC_VERSION}" / "bin"):
        directory.mkdir(parents=True)
        program = directory / "ant-quic"
        program.touch(mode=0o755)
        assert default_program() == program
        assert os.access(program, os.X_OK)
