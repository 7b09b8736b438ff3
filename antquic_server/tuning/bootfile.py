"""
What the kernel will be told at the next start: our file in ``/etc/sysctl.d``, and who overrules it.

systemd-sysctl reads the files of several directories in the order of their names, whatever directory they are
in, and a later one wins; of two with the same name only that of the first directory counts (``sysctl.d(5)``).
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from antquic_server.tuning.record import Record, RecordError, write_atomically
from antquic_server.tuning.rules import normal

__all__ = [
    "BOOT_FILE",
    "files_in_order",
    "foreign_lines",
    "remove_boot_file",
    "render_boot_file",
    "values_at_boot",
    "write_boot_file",
]

BOOT_FILE = Path("etc", "sysctl.d", "60-antquic-server.conf")
"""Before 99-sysctl.conf, so that what an operator has written there by hand wins."""

_DIRECTORIES = ("etc/sysctl.d", "run/sysctl.d", "usr/local/lib/sysctl.d", "usr/lib/sysctl.d", "lib/sysctl.d")
_HEADER = "# Written by `antquic-server tune apply`; `antquic-server tune revert` removes it."


def render_boot_file(record: Record) -> str:
    """Return the file that sets what is recorded as applied; the values found stand beside it, for people."""
    lines = [_HEADER]
    for entry in record.entries:
        lines += ["", f"# found: {normal(entry.found) or '(empty)'}", f"{entry.key} = {normal(entry.applied)}"]
    return "\n".join(lines) + "\n"


def foreign_lines(path: Path, record: Record) -> list[str]:
    """
    Return the lines of the file that did not come from applying what is recorded; none where there is no file.

    Raises:
        RecordError: The file cannot be read.
    """
    ours = {(entry.key, normal(entry.applied)) for entry in record.entries}
    with suppress(FileNotFoundError, NotADirectoryError):
        return [f"{key} = {value}" for key, value in _assignments(path) if (key, value) not in ours]
    return []


def write_boot_file(path: Path, record: Record) -> bool:
    """
    Make the file say what is recorded, or remove it where nothing is; returns whether that changed anything.

    Raises:
        RecordError: It cannot be written.
    """
    if not record.entries:
        return remove_boot_file(path)
    text = render_boot_file(record)
    with suppress(OSError, UnicodeDecodeError):
        if path.read_text() == text:
            return False
    write_atomically(path, text)
    return True


def remove_boot_file(path: Path) -> bool:
    """
    Remove the file; returns whether there was one.

    Raises:
        RecordError: It cannot be removed.
    """
    try:
        path.unlink()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise RecordError(f"{path}: cannot be removed: {os.strerror(error.errno or 0)}") from None
    return True


def values_at_boot(root: Path) -> dict[str, tuple[str, Path]]:
    """Return the value that a start of the system sets for each key, and the file that says so."""
    values: dict[str, tuple[str, Path]] = {}
    for path in files_in_order(root, _DIRECTORIES):
        with suppress(OSError, RecordError):
            values |= {key: (value, path) for key, value in _assignments(path)}
    return values


def files_in_order(root: Path, directories: Iterable[str]) -> list[Path]:
    """Return the ``.conf`` files that systemd reads of several directories, in the order in which it does."""
    by_name: dict[str, Path] = {}
    for directory in directories:
        with suppress(OSError):
            for path in sorted((root / directory).glob("*.conf")):
                by_name.setdefault(path.name, path)
    return [by_name[name] for name in sorted(by_name)]


def _assignments(path: Path) -> Iterator[tuple[str, str]]:
    """Keys with dots and their values, in the order of the file; a leading ``-`` (ignore errors) is left out."""
    try:
        lines = path.read_text().splitlines()
    except (FileNotFoundError, NotADirectoryError):
        raise
    except (OSError, UnicodeDecodeError) as error:
        raise RecordError(f"{path}: cannot be read: {error}") from None
    for line in map(str.strip, lines):
        key, equals, value = line.partition("=")
        if equals and not line.startswith(("#", ";")):
            yield key.strip().removeprefix("-").strip().replace("/", "."), normal(value)
