"""The file for the next start, and which files overrule it."""

from pathlib import Path

import pytest

from antquic_server.tuning.bootfile import (
    BOOT_FILE,
    foreign_lines,
    remove_boot_file,
    render_boot_file,
    values_at_boot,
    write_boot_file,
)
from antquic_server.tuning.record import Entry, Record, RecordError

RECORD = Record(
    entries=(
        Entry(key="net.core.rmem_max", topic="buffers", found="212992", applied="26214400"),
        Entry(key="net.ipv4.ip_local_reserved_ports", topic="ports", found="", applied="10000"),
    )
)
TEXT = """\
# Written by `antquic-server tune apply`; `antquic-server tune revert` removes it.

# found: 212992
net.core.rmem_max = 26214400

# found: (empty)
net.ipv4.ip_local_reserved_ports = 10000
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the file is, in a directory that exists."""
    path = tmp_path / BOOT_FILE
    path.parent.mkdir(parents=True)
    return path


def put(root: Path, name: str, text: str) -> Path:
    """Write one file of the system; returns its path."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_the_file_says_what_is_recorded(path: Path) -> None:
    """With what was found beside it, for whoever has only the file."""
    assert render_boot_file(RECORD) == TEXT
    assert write_boot_file(path, RECORD)
    assert not write_boot_file(path, RECORD), "a second time changes nothing"
    assert path.read_text() == TEXT
    assert foreign_lines(path, RECORD) == []


def test_nothing_recorded_means_no_file(path: Path) -> None:
    """Removing what is not there is no change."""
    write_boot_file(path, RECORD)

    assert write_boot_file(path, Record())
    assert not write_boot_file(path, Record())
    assert not remove_boot_file(path / "below")


def test_lines_that_are_not_ours_are_found(path: Path) -> None:
    """Another key, or another value for one of ours; comments and empty lines are no settings."""
    assert foreign_lines(path, RECORD) == []
    path.write_text(f"{TEXT}; vm.swappiness = 1\n-vm/swappiness=5\nnet.core.rmem_max =1\n")

    assert foreign_lines(path, RECORD) == ["vm.swappiness = 5", "net.core.rmem_max = 1"]


def test_a_file_that_cannot_be_read_or_removed_says_so(path: Path) -> None:
    """By its path."""
    path.mkdir()

    with pytest.raises(RecordError, match=f"{path}: cannot be read"):
        foreign_lines(path, RECORD)
    with pytest.raises(RecordError, match=f"{path}: cannot be removed"):
        remove_boot_file(path)


def test_the_last_file_by_name_wins_whatever_its_directory(tmp_path: Path) -> None:
    """As ``sysctl.d(5)`` says."""
    put(tmp_path, "etc/sysctl.d/60-ours.conf", "a.b = 2\n")
    last = put(tmp_path, "usr/lib/sysctl.d/99-theirs.conf", "a/b=3\n")
    put(tmp_path, "run/sysctl.d/10-early.conf", "a.b = 1\na.c = 1 \t 2\n")

    assert values_at_boot(tmp_path).get("a.b") == ("3", last)
    assert values_at_boot(tmp_path).get("a.c") == ("1 2", tmp_path / "run/sysctl.d/10-early.conf")
    assert values_at_boot(tmp_path).get("a.d") is None


def test_a_file_hides_those_of_its_name_in_later_directories(tmp_path: Path) -> None:
    """An empty file in /etc is how an operator switches one of the distribution off."""
    put(tmp_path, "etc/sysctl.d/50-default.conf", "")
    put(tmp_path, "usr/lib/sysctl.d/50-default.conf", "a.b = 1\n")

    assert values_at_boot(tmp_path).get("a.b") is None
