"""
The key log: the TLS secrets of every connection, in the format that Wireshark reads (SSLKEYLOGFILE).

With these lines whoever has recorded the traffic can read it, later too. So there is none unless the operator names a
file (``log.keylog``); the environment variable SSLKEYLOGFILE, which may come from anywhere, does nothing. The file is
readable by its owner only, and refused if it is not.

Every worker appends to the same file. A line goes out in one call to a file that was opened for appending, so lines of
different processes never mix.
"""

import os
import stat
from pathlib import Path
from typing import Final

from antquic_server.errors import CannotBootError, PrivilegeError

__all__ = ["KeyLog", "open_key_log"]

_MODE: Final = 0o600
_FLAGS: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class KeyLog:
    """An open key log; has the two methods of a text file that aioquic calls."""

    def __init__(self, fd: int) -> None:
        self.lost = 0
        """Lines that could not be written: the disk is full, perhaps."""
        self._fd = fd

    def write(self, text: str) -> int:
        """Append one line. A fault of the file is no fault of the connection."""
        data = text.encode("ascii")
        try:
            if os.write(self._fd, data) != len(data):
                self.lost += 1
        except OSError:
            self.lost += 1
        return len(text)

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


def open_key_log(path: Path) -> KeyLog:
    """
    Open the file to append to, make it if it is not there.

    Raises:
        CannotBootError: It cannot be written, is no regular file of ours, or others may read it.
    """
    try:
        fd = os.open(path, _FLAGS, _MODE)
    except OSError as error:
        raise CannotBootError(f"cannot write the key log {path}: {error.strerror}") from error
    found = os.fstat(fd)
    problem = None
    if not stat.S_ISREG(found.st_mode):
        problem = "expected a regular file"
    elif found.st_uid != os.geteuid():
        problem = f"expected a file of user {os.geteuid()}, not of {found.st_uid}"
    elif found.st_mode & 0o077:
        problem = f"expected a file that only its owner can read (chmod 600 {path})"
    if problem is not None:
        os.close(fd)
        raise PrivilegeError(f"cannot use the key log {path}: {problem}")
    return KeyLog(fd)
