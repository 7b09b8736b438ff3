"""
What ``tune apply`` has found and set, kept until ``tune revert`` has put it back.

The value found first is kept for good: applying twice, or after an interruption, never takes a value of our
own for the original. The record is written before anything is changed and names what is about to be, so that an
interruption at any moment leaves a record which is enough to go back.
"""

import json
import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from antquic_server.errors import AntQuicError

__all__ = [
    "Entry",
    "Record",
    "RecordError",
    "RecordForbiddenError",
    "load_record",
    "make_directories",
    "save_record",
    "write_atomically",
]

_VERSION = 1


class RecordError(AntQuicError):
    """The record, or the file for the next start, cannot be read, written or understood."""


class RecordForbiddenError(RecordError):
    """There is a record, and this process may not read it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One setting: ``found`` is exactly what the kernel had, ``applied`` what was or is about to be set."""

    key: str
    topic: str
    found: str
    applied: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """The settings in the order of applying; ``made`` are directories that did not exist before."""

    entries: tuple[Entry, ...] = ()
    made: tuple[str, ...] = ()

    def entry(self, key: str) -> Entry | None:
        """Return what is recorded of a setting."""
        return next((entry for entry in self.entries if entry.key == key), None)

    def with_entry(self, entry: Entry) -> "Record":
        """Return a record with one more setting, or another applied value; the value found first stays."""
        earlier = self.entry(entry.key)
        if earlier is None:
            return Record(entries=(*self.entries, entry), made=self.made)
        merged = Entry(key=entry.key, topic=entry.topic, found=earlier.found, applied=entry.applied)
        kept = tuple(merged if one is earlier else one for one in self.entries)
        return Record(entries=kept, made=self.made)

    def without(self, keys: Iterable[str]) -> "Record":
        """Return a record without some settings."""
        gone = set(keys)
        return Record(entries=tuple(entry for entry in self.entries if entry.key not in gone), made=self.made)


def load_record(path: Path) -> Record:
    """
    Read the record; an empty one where there is none.

    Raises:
        RecordForbiddenError: This process may not read it.
        RecordError: It cannot be read otherwise, or is not a record.
    """
    try:
        with path.open() as file:
            _refuse_foreign(path, os.fstat(file.fileno()))
            content = json.load(file)
    except (FileNotFoundError, NotADirectoryError):
        return Record()
    except PermissionError:
        raise RecordForbiddenError(f"{path}: cannot be read: Permission denied") from None
    except (OSError, ValueError) as error:
        raise RecordError(f"{path}: cannot be read: {error}") from None
    wanted = {field.name for field in fields(Entry)}
    try:
        if content["version"] != _VERSION:
            raise RecordError(f"{path}: version {content['version']!r}: expected {_VERSION}")
        entries, made = content["settings"], content["made"]
        well_formed = all(set(one) == wanted and all(isinstance(one[name], str) for name in wanted) for one in entries)
        well_formed = well_formed and all(isinstance(one, str) for one in made)
    except (KeyError, TypeError):
        well_formed, entries, made = False, [], []
    if not well_formed:
        raise RecordError(f"{path}: expected a record of antquic-server tune apply")
    return Record(entries=tuple(Entry(**one) for one in entries), made=tuple(made))


def _refuse_foreign(path: Path, status: os.stat_result) -> None:
    """
    Refuse a record that somebody else may have written.

    Root writes to the kernel what a record says, and one of an early version is in the directory of the node's
    account, which parses the datagrams of strangers: whoever took that over must not be given the kernel's settings.
    """
    if status.st_uid not in (0, os.geteuid()) or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise RecordError(f"{path}: expected a file that belongs to root and that nobody else may write")


def save_record(path: Path, record: Record) -> None:
    """
    Write the record, or remove it where nothing is left to put back.

    Raises:
        RecordError: It cannot be written.
    """
    if not record.entries:
        with suppress(FileNotFoundError):
            path.unlink()
        return
    content = {
        "version": _VERSION,
        "settings": [asdict(entry) for entry in record.entries],
        "made": list(record.made),
    }
    write_atomically(path, json.dumps(content, indent=2) + "\n")


def make_directories(directory: Path) -> list[Path]:
    """
    Make a directory and what is missing above it; returns what was made, the outermost first.

    Raises:
        RecordError: It cannot be made.
    """
    missing = [one for one in (directory, *directory.parents) if not one.exists()]
    try:
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    except OSError as error:
        raise RecordError(f"{directory}: cannot be made: {os.strerror(error.errno or 0)}") from None
    return missing[::-1]


def write_atomically(path: Path, text: str) -> None:
    """
    Write a file that is whole at every moment, with permissions that let everybody read it.

    What an earlier run that was killed has left half-written is removed. Nothing is written through a link that
    somebody else has put there, for the directory may belong to the account of the node.

    Raises:
        RecordError: It cannot be written; the old content, if any, is still there.
    """
    temporary = path.with_name(f".{path.name}.new")
    try:
        with suppress(FileNotFoundError):
            temporary.unlink()
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            with os.fdopen(descriptor, "w") as file:
                os.fchmod(descriptor, 0o644)
                file.write(text)
                file.flush()
                os.fsync(descriptor)
            temporary.replace(path)
        finally:
            with suppress(FileNotFoundError):
                temporary.unlink()
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise RecordError(f"{path}: cannot be written: {os.strerror(error.errno or 0)}") from None
