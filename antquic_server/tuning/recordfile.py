"""
Where the record of what was found is kept: in a directory of root's own.

The state directory of the node is no place for it. At the first start systemd gives that directory to the node's
account, with everything in it (``StateDirectory=`` in ``systemd.exec(5)``), and a record that is not root's is not
believed. Early versions kept it there: such a record counts as long as it is root's, and is moved by whatever
changes something.
"""

import stat
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from antquic_server.tuning.record import Record, RecordError, RecordForbiddenError, load_record, save_record

__all__ = ["OLD_RECORD_FILE", "RECORD_FILE", "OldRecordError", "find_record", "move_record"]

RECORD_FILE = Path("var", "lib", "antquic-server-tuning", "tuning.json")
OLD_RECORD_FILE = Path("var", "lib", "antquic-server", "tuning.json")


class OldRecordError(RecordError):
    """There is a record in the node's state directory that cannot be believed; the text says what to do."""


def find_record(root: Path) -> Record:
    """
    Return the record below ``root``, from the node's state directory if there is none in its own.

    Raises:
        RecordForbiddenError: This process may not read it.
        OldRecordError: The one in the node's state directory is not root's, or is no record.
        RecordError: The one in its own directory cannot be read, or is no record.
    """
    record = load_record(root / RECORD_FILE)
    return record if record.entries else _old_record(root)


def move_record(root: Path, made: Iterable[str] = ()) -> bool:
    """
    Move a record out of the node's state directory; returns whether there was one to move.

    Args:
        root: The system.
        made: Directories that were made for the new place, which go when the settings are put back.

    Raises:
        OldRecordError: It is not root's, or is no record.
        RecordError: It cannot be written in the new place, or the one there cannot be read.
    """
    is_due = not load_record(root / RECORD_FILE).entries
    if is_due:
        record = _old_record(root)
        if not record.entries:
            return False
        save_record(root / RECORD_FILE, replace(record, made=(*record.made, *made)))
    # Also what a run has left that was killed at this point: it must not come back as if it were news.
    with suppress(OSError):
        (root / OLD_RECORD_FILE).unlink()
    return is_due


def _old_record(root: Path) -> Record:
    path = root / OLD_RECORD_FILE
    try:
        _refuse_other_kinds(path)
        return load_record(path)
    except RecordForbiddenError:
        raise
    except RecordError as error:
        raise OldRecordError(
            f"{error}; if it has the values that were found, make it root's (chown root:root), otherwise remove it"
        ) from None


def _refuse_other_kinds(path: Path) -> None:
    """The directory is the node's: a link in it may lead to any file of root's, and a pipe would be waited for."""
    with suppress(OSError):
        if not stat.S_ISREG(path.lstat().st_mode):
            raise RecordError(f"{path}: expected a file")
