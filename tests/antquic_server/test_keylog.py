"""The key log's file: whose it must be, and that lines of several processes stay whole."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from antquic_server.errors import CannotBootError
from antquic_server.keylog import KeyLog, open_key_log


def test_file_is_made_for_its_owner_only(tmp_path: Path) -> None:
    """Whatever the umask; a second time it is appended to."""
    path = tmp_path / "keys"
    before = os.umask(0)
    try:
        first = open_key_log(path)
    finally:
        os.umask(before)
    first.write("A 1 2\n")
    first.flush()
    first.close()
    second = open_key_log(path)
    second.write("B 3 4\n")
    second.close()

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text() == "A 1 2\nB 3 4\n"


def test_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    """With the command that mends it."""
    path = tmp_path / "keys"
    path.touch()
    path.chmod(0o644)
    with pytest.raises(CannotBootError, match=f"only its owner can read \\(chmod 600 {path}\\)"):
        open_key_log(path)


@pytest.mark.parametrize("kind", ["link", "directory", "pipe", "nowhere"])
def test_what_is_no_file_of_ours_is_refused(kind: str, tmp_path: Path) -> None:
    """A link could lead anywhere, a pipe to anybody."""
    path = tmp_path / "keys"
    if kind == "link":
        path.symlink_to(tmp_path / "elsewhere")
    elif kind == "directory":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path, 0o600)
    else:
        path = tmp_path / "missing" / "keys"
    with pytest.raises(CannotBootError, match="key log"):
        open_key_log(path)
    assert not (tmp_path / "elsewhere").exists()


def test_full_disk_is_counted_and_breaks_no_handshake() -> None:
    """/dev/full takes nothing."""
    log = KeyLog(os.open("/dev/full", os.O_WRONLY))
    log.write("A 1 2\n")
    log.close()
    assert log.lost == 1


def test_lines_of_several_processes_never_mix(tmp_path: Path) -> None:
    """Four processes, two thousand lines each, all of them whole."""
    path = tmp_path / "keys"
    program = (
        "import sys; from pathlib import Path; from antquic_server.keylog import open_key_log\n"
        "log = open_key_log(Path(sys.argv[1]))\n"
        "for number in range(2000): log.write(sys.argv[2] * 150 + f' {number}\\n')"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    writers = [
        subprocess.Popen([sys.executable, "-c", program, str(path), letter], env=environment) for letter in "ABCD"
    ]
    assert [writer.wait(60) for writer in writers] == [0] * 4

    lines = path.read_text().splitlines()
    assert sorted(lines) == sorted(f"{letter * 150} {number}" for letter in "ABCD" for number in range(2000))
