"""What was found is kept, whole at every moment, and believed only if root has written it."""

import json
import os
from pathlib import Path

import pytest

from antquic_server.tuning.record import (
    Entry,
    Record,
    RecordError,
    load_record,
    make_directories,
    save_record,
    write_atomically,
)
from support.require import require


def entry(key: str, found: str, applied: str) -> Entry:
    """Return an entry of the topic ``buffers``."""
    return Entry(key=key, topic="buffers", found=found, applied=applied)


RECORD = Record(entries=(entry("a", "1\t2", "3 4"), entry("b", "", "5")), made=("/x",))


def test_a_record_survives_being_written(tmp_path: Path) -> None:
    """Every byte of what was found, tabs and empty values included."""
    save_record(tmp_path / "r", RECORD)

    assert load_record(tmp_path / "r") == RECORD
    assert (tmp_path / "r").stat().st_mode & 0o777 == 0o644


def test_the_value_found_first_stays() -> None:
    """However often something is applied."""
    again = RECORD.with_entry(entry("a", "3 4", "6 7"))

    assert again.entry("a") == entry("a", "1\t2", "6 7")
    assert [one.key for one in again.entries] == ["a", "b"]
    assert again.with_entry(entry("c", "8", "9")).entries[-1].found == "8"


def test_nothing_left_removes_the_file(tmp_path: Path) -> None:
    """An empty record is no record; removing it twice is no mistake."""
    save_record(tmp_path / "r", RECORD)
    rest = load_record(tmp_path / "r").without(["a", "b"])
    save_record(tmp_path / "r", rest)
    save_record(tmp_path / "r", rest)

    assert list(tmp_path.iterdir()) == []
    assert load_record(tmp_path / "r") == Record()


def test_no_record_is_an_empty_one(tmp_path: Path) -> None:
    """Also where a directory is missing or is none."""
    (tmp_path / "file").touch()

    assert load_record(tmp_path / "none" / "r") == Record()
    assert load_record(tmp_path / "file" / "r") == Record()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{", "cannot be read"),
        ("[]", "expected a record of antquic-server tune apply"),
        ("{}", "expected a record"),
        ('{"version": 2, "settings": [], "made": []}', "version 2: expected 1"),
        ('{"version": 1, "settings": [{"key": "a"}], "made": []}', "expected a record"),
        ('{"version": 1, "settings": [1], "made": []}', "expected a record"),
        ('{"version": 1, "settings": [], "made": [1]}', "expected a record"),
        ('{"version": 1, "settings": 5, "made": []}', "expected a record"),
    ],
)
def test_what_is_no_record_is_refused(tmp_path: Path, content: str, complaint: str) -> None:
    """By its path; nothing is written to a kernel on a guess."""
    (tmp_path / "r").write_text(content)

    with pytest.raises(RecordError, match=f"{tmp_path}/r: {complaint}"):
        load_record(tmp_path / "r")


def test_a_value_that_is_no_text_is_refused(tmp_path: Path) -> None:
    """As it would not be what was found."""
    save_record(tmp_path / "r", RECORD)
    content = json.loads((tmp_path / "r").read_text())
    content["settings"][0]["found"] = 1
    (tmp_path / "r").write_text(json.dumps(content))

    with pytest.raises(RecordError, match="expected a record"):
        load_record(tmp_path / "r")


@pytest.mark.parametrize("mode", [0o664, 0o646])
def test_a_record_that_others_may_write_is_refused(tmp_path: Path, mode: int) -> None:
    """Who may write it could have root set anything."""
    save_record(tmp_path / "r", RECORD)
    (tmp_path / "r").chmod(mode)

    with pytest.raises(RecordError, match="nobody else may write"):
        load_record(tmp_path / "r")


def test_a_record_of_the_nodes_account_is_refused(tmp_path: Path) -> None:
    """The directory may belong to it; the kernel's settings do not."""
    require(os.geteuid() == 0, "needs root")
    save_record(tmp_path / "r", RECORD)
    os.chown(tmp_path / "r", 65534, 65534)

    with pytest.raises(RecordError, match="belongs to root"):
        load_record(tmp_path / "r")


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    """Otherwise a link in the node's directory would have root overwrite another file."""
    (tmp_path / "other").write_text("theirs")
    (tmp_path / "r").symlink_to(tmp_path / "other")
    save_record(tmp_path / "r", RECORD)

    assert (tmp_path / "other").read_text() == "theirs"
    assert not (tmp_path / "r").is_symlink()


def test_what_a_killed_run_has_left_is_replaced(tmp_path: Path) -> None:
    """Also where it is a link of somebody else's to a file of root's."""
    (tmp_path / "other").write_text("theirs")
    (tmp_path / ".r.new").symlink_to(tmp_path / "other")
    write_atomically(tmp_path / "r", "new")

    assert (tmp_path / "other").read_text() == "theirs"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "r"]


def test_a_write_that_fails_leaves_the_old_content_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a full disk."""

    def full(descriptor: int) -> None:
        raise OSError(28, "ignored")

    write_atomically(tmp_path / "r", "old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RecordError, match="cannot be written: No space left on device"):
        write_atomically(tmp_path / "r", "new")

    assert [path.name for path in tmp_path.iterdir()] == ["r"]
    assert (tmp_path / "r").read_text() == "old"


def test_directories_that_were_made_are_told(tmp_path: Path) -> None:
    """The outermost first; nothing the second time."""
    assert make_directories(tmp_path / "a" / "b") == [tmp_path / "a", tmp_path / "a" / "b"]
    assert make_directories(tmp_path / "a" / "b") == []

    (tmp_path / "file").touch()
    with pytest.raises(RecordError, match="cannot be made"):
        make_directories(tmp_path / "file" / "b")
