"""
What runs in the worker, run in a process of its own: how long it tracks, what it says, and that it cleans up.

Never in the process of the tests. While it tracks, memray redirects every pointer to ``free`` that the linker wrote,
and afterwards writes ``free`` there again: also where a library has since put another function, as tree-sitter does.
"""

import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from antquic_server.profiling import memory_payload

pytest.importorskip("memray")

TRACK = f"import sys; from {memory_payload.__name__} import track; track(int(sys.argv[1]), 'token', {{seconds}}, False)"


class Asker:
    """Whoever asked for the tracking, with the process that does it."""

    def __init__(self, seconds: float = 60.0, prelude: str = "") -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(30.0)
        port = self.listener.getsockname()[1]
        command = [sys.executable, "-c", prelude + TRACK.format(seconds=seconds), str(port)]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.connection = self.listener.accept()[0]
        self.connection.settimeout(30.0)
        self.lines = self.connection.makefile("r")

    def close(self) -> None:
        """Go away, and see the process end well; memray may remark that its file has gone, but nothing was raised."""
        self.lines.close()
        self.connection.close()
        self.listener.close()
        _, said = self.process.communicate(timeout=30.0)
        assert self.process.returncode == 0
        assert "Traceback" not in said


@pytest.fixture(autouse=True)
def own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Temporary files go to the test's directory, and nothing is left there."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    yield
    assert list(tmp_path.iterdir()) == []


def tracked_file(asker: Asker) -> Path:
    """The file that it says it writes."""
    token, word, path = asker.lines.readline().split()
    assert (token, word) == ("token", "tracking")
    return Path(path)


def test_tracking_ends_when_its_time_is_up() -> None:
    """The file stays until whoever asked has gone."""
    asker = Asker(seconds=0.05)
    path = tracked_file(asker)
    assert asker.lines.readline() == "token done\n"
    assert path.stat().st_size > 0
    asker.close()
    assert not path.exists()


def test_tracking_ends_when_it_is_told_to() -> None:
    """By any byte."""
    asker = Asker()
    tracked_file(asker)
    asker.connection.sendall(b"\n")
    assert asker.lines.readline() == "token done\n"
    asker.close()


def test_tracking_ends_with_the_asker() -> None:
    """As when that is killed."""
    asker = Asker()
    path = tracked_file(asker)
    asker.close()
    assert not path.parent.exists()


def test_missing_memray_is_told() -> None:
    """The worker's environment may be another than the asker's."""
    asker = Asker(prelude="import sys; sys.modules['memray'] = None; ")
    assert asker.lines.readline().startswith("token failed ModuleNotFoundError ")
    asker.close()


def test_removing_twice_does_no_harm() -> None:
    """Somebody may have cleaned up meanwhile."""
    asker = Asker()
    shutil.rmtree(tracked_file(asker).parent)
    asker.close()
