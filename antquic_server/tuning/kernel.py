"""
Reading and writing kernel settings as files below ``/proc/sys``.

Everything goes through one root directory, ``/`` on a real system: an image that is mounted somewhere, or a
test, has its own. Nothing is cached, so that what is reported is what is there.
"""

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from antquic_server.errors import AntQuicError

__all__ = ["FixedHereError", "Kernel", "KernelError", "NoSuchKeyError"]


class KernelError(AntQuicError):
    """A setting cannot be read or written; ``reason`` says why in a few words."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(key, reason)
        self.key = key
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.key}: {self.reason}"


class NoSuchKeyError(KernelError):
    """The kernel has no such setting: a module is not loaded, or the namespace does not have it."""


class FixedHereError(KernelError):
    """The setting is there but belongs to somebody else: in a container, to the machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """The settings of the kernel, below ``root``."""

    root: Path

    def path(self, key: str) -> Path:
        """Return the file of a setting; its name has dots where the path has slashes."""
        return self.root / "proc" / "sys" / key.replace(".", "/")

    def read(self, key: str) -> str:
        """
        Return the value of a setting as the kernel writes it, without the line's end.

        Raises:
            NoSuchKeyError: There is none.
            KernelError: It cannot be read.
        """
        try:
            return self.path(key).read_text().rstrip("\n")
        except (FileNotFoundError, NotADirectoryError):
            raise NoSuchKeyError(key, "not there") from None
        except (OSError, UnicodeDecodeError) as error:
            raise KernelError(key, f"cannot be read: {_words(error)}") from None

    def require_writable(self, key: str) -> None:
        """
        Look at the permissions of a setting, without writing.

        In a network namespace the kernel shows settings of the whole machine without any right to write, and root
        is no exception (``proc(5)``); on a mount of ``/proc/sys`` for reading, as most containers have, the same
        holds for all.

        Raises:
            NoSuchKeyError: There is no such setting.
            FixedHereError: Nobody may write it here.
        """
        path = self.path(key)
        try:
            writable = stat.S_IMODE(path.stat().st_mode) & 0o222
            read_only = os.statvfs(path).f_flag & os.ST_RDONLY
        except (FileNotFoundError, NotADirectoryError):
            raise NoSuchKeyError(key, "not there") from None
        except OSError as error:
            raise KernelError(key, f"cannot be read: {_words(error)}") from None
        if not writable or read_only:
            raise FixedHereError(key, "can be changed only on the machine, outside this container or namespace")

    def write(self, key: str, value: str) -> None:
        """
        Set a value and make sure that the kernel took it.

        Raises:
            NoSuchKeyError: There is no such setting.
            FixedHereError: Nobody may write it here.
            KernelError: The kernel refused the value, or took another one, or the rights are missing.
        """
        self.require_writable(key)
        try:
            # Opened without O_CREAT: a setting that vanishes in between is not made into a file.
            descriptor = os.open(self.path(key), os.O_WRONLY | os.O_CLOEXEC | os.O_TRUNC)
            with os.fdopen(descriptor, "w") as file:
                file.write(value + "\n")
        except OSError as error:
            if error.errno == errno.EROFS:
                raise FixedHereError(key, "is mounted for reading only") from None
            raise KernelError(key, f"cannot be set to {value!r}: {_words(error)}") from None
        taken = self.read(key)
        if taken.split() != value.split():
            raise KernelError(key, f"was set to {value!r}, but the kernel has {taken!r}")


def _words(error: OSError | UnicodeDecodeError) -> str:
    return os.strerror(error.errno) if isinstance(error, OSError) and error.errno is not None else str(error)
