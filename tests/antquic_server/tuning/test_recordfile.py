"""The record is in a directory of root's own; one of an early version is believed if it is root's, and moved."""

import os
from pathlib import Path

import pytest

from antquic_server.tuning.record import Entry, Record, RecordError, load_record, make_directories, save_record
from antquic_server.tuning.recordfile import OLD_RECORD_FILE, RECORD_FILE, OldRecordError, find_record, move_record
from support.require import require

RECORD = Record(entries=(Entry(key="a", topic="buffers", found="1\t2", applied="3 4"),), made=("/x",))
OTHER = Record(entries=(Entry(key="a", topic="buffers", found="5", applied="6"),))


def put(path: Path, record: Record) -> Path:
    """Write a record where there may be no directory yet."""
    make_directories(path.parent)
    save_record(path, record)
    return path


def test_its_directory_is_not_the_nodes() -> None:
    """Nor in it, nor above it: systemd hands over what is below."""
    unit = Path(__file__).resolve().parents[3] / "deploy/systemd/antquic-server.service"
    assert "StateDirectory=antquic-server\n" in unit.read_text()
    state = Path("var/lib/antquic-server")

    assert state not in RECORD_FILE.parents
    assert RECORD_FILE.parent not in state.parents
    assert OLD_RECORD_FILE.parent == state


def test_the_new_place_counts_first(tmp_path: Path) -> None:
    """The old one where there is nothing else; nothing at all is an empty record."""
    assert find_record(tmp_path) == Record()
    put(tmp_path / OLD_RECORD_FILE, OTHER)
    assert find_record(tmp_path) == OTHER
    put(tmp_path / RECORD_FILE, RECORD)
    assert find_record(tmp_path) == RECORD


def test_an_old_record_is_moved(tmp_path: Path) -> None:
    """With the directories that the new place needed; a second time nothing is to do."""
    old = put(tmp_path / OLD_RECORD_FILE, RECORD)
    make_directories((tmp_path / RECORD_FILE).parent)

    assert move_record(tmp_path, ["/y"])
    assert load_record(tmp_path / RECORD_FILE) == Record(entries=RECORD.entries, made=("/x", "/y"))
    assert not old.exists()
    assert not move_record(tmp_path)


def test_what_a_killed_move_has_left_goes(tmp_path: Path) -> None:
    """The record in the new place is the one that counts."""
    old = put(tmp_path / OLD_RECORD_FILE, OTHER)
    put(tmp_path / RECORD_FILE, RECORD)

    assert not move_record(tmp_path)
    assert not old.exists()
    assert load_record(tmp_path / RECORD_FILE) == RECORD


def test_an_old_record_of_the_nodes_account_is_refused(tmp_path: Path) -> None:
    """Whoever took that account over could have written it; the way out is told."""
    require(os.geteuid() == 0, "needs root")
    old = put(tmp_path / OLD_RECORD_FILE, RECORD)
    make_directories((tmp_path / RECORD_FILE).parent)
    os.chown(old, 65534, 65534)

    for action in (find_record, move_record):
        with pytest.raises(OldRecordError, match=r"belongs to root .*chown root:root.*otherwise remove it"):
            action(tmp_path)
    assert load_record(old.rename(tmp_path / "kept").parent / RECORD_FILE) == Record()

    put(tmp_path / RECORD_FILE, OTHER)
    (tmp_path / "kept").rename(old)
    assert find_record(tmp_path) == OTHER, "it is in nobody's way once there is one of root's"


def test_what_else_is_in_the_old_place_is_not_opened(tmp_path: Path) -> None:
    """A link may lead to a file of root's, a pipe would be waited for, for ever."""
    old = tmp_path / OLD_RECORD_FILE
    put(tmp_path / "record", RECORD)
    old.parent.mkdir(parents=True)
    old.symlink_to(tmp_path / "record")
    with pytest.raises(OldRecordError, match="expected a file"):
        find_record(tmp_path)
    old.unlink()
    os.mkfifo(old)
    with pytest.raises(OldRecordError, match="expected a file"):
        find_record(tmp_path)


def test_a_broken_record_in_the_new_place_is_not_passed_over(tmp_path: Path) -> None:
    """The old one would be an answer to another question."""
    put(tmp_path / OLD_RECORD_FILE, RECORD)
    put(tmp_path / RECORD_FILE, RECORD).write_text("{")

    with pytest.raises(RecordError, match=f"{RECORD_FILE}: cannot be read"):
        find_record(tmp_path)
