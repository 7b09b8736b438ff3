"""
The Unix socket through which the owner of a node acts on it: where it is, and who may use it.

Its directory and mode keep others away, and whoever gets through is asked for credentials once more. The name holds the
process id, so that several nodes of one machine, network namespaces included, never meet; a name that is left over
from a node that was killed is taken away by the next one that starts.

The directory is, in this order: ``$RUNTIME_DIRECTORY`` (systemd makes it for the unit), ``/run/antquic-server`` for
root, ``$XDG_RUNTIME_DIR/antquic-server``, ``antquic-server-UID`` among the temporary files.
"""

import contextlib
import errno
import os
import re
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from typing import Final

from antquic_server.errors import CannotBootError, PrivilegeError

__all__ = ["ControlSocket", "open_control_socket", "peer_user", "runtime_directories"]

MAX_PATH_BYTES: Final = 107
"""Of a Unix socket's name in Linux (unix(7)), without the zero at its end; macOS has four less."""

BACKLOG: Final = 16

_NAME: Final = re.compile(r"control-[0-9]+\.sock")
_CREDENTIALS: Final = Struct("3i")
"""``struct ucred``: process, user, group."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlSocket:
    """A listening socket and its path, which ``close`` removes."""

    sock: socket.socket
    path: Path

    def close(self) -> None:
        """Stop to listen and remove the path."""
        self.sock.close()
        with contextlib.suppress(OSError):
            self.path.unlink()


def open_control_socket(
    configured: str, *, environment: Mapping[str, str], pid: int, on_skipped: Callable[[str], None]
) -> ControlSocket | None:
    """
    Listen at the configured path, or at the first place of ours that can be used.

    Args:
        configured: ``admin.control``, absolute; empty for a place of ours.
        environment: Environment variables.
        pid: Of this process.
        on_skipped: Told, in one line each, which places could not be used. No control socket is no reason not to serve.

    Raises:
        CannotBootError: The configured path cannot be used; another node listens there, perhaps.
    """
    if configured:
        try:
            return _listen(Path(configured))
        except OSError as error:
            message = f"cannot listen on the control socket {configured}: {_reason(error)}"
            kind = PrivilegeError if error.errno in (errno.EACCES, errno.EPERM) else CannotBootError
            raise kind(message) from error
    for directory in runtime_directories(environment, os.geteuid()):
        path = directory / f"control-{pid}.sock"
        try:
            _prepare(directory)
            return _listen(path)
        except OSError as error:
            on_skipped(f"{path}: {_reason(error)}")
    return None


def runtime_directories(environment: Mapping[str, str], user: int) -> Iterator[Path]:
    """Yield the places for the socket, the best first."""
    given = environment.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    if given:
        yield Path(given)
    if user == 0:
        yield Path("/run/antquic-server")
    elif environment.get("XDG_RUNTIME_DIR"):
        yield Path(environment["XDG_RUNTIME_DIR"]) / "antquic-server"
    yield Path(tempfile.gettempdir()) / f"antquic-server-{user}"


def peer_user(sock: socket.socket) -> int | None:
    """Return the user id of the process that connected a Unix socket, None where the system does not tell."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return None
    _, user, _ = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, option, _CREDENTIALS.size))
    return int(user)


def _prepare(directory: Path) -> None:
    """Make the directory, or see that it is ours alone to write to; OSError if not, since names there would be free."""
    with contextlib.suppress(FileExistsError):
        directory.mkdir(mode=0o700)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    if found.st_uid not in (0, os.geteuid()) or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(errno.EACCES, "the directory belongs to others, or they can write to it")
    for path in directory.iterdir():
        if _NAME.fullmatch(path.name) and _is_abandoned(path):
            with contextlib.suppress(OSError):
                path.unlink()


def _listen(path: Path) -> ControlSocket:
    if len(os.fsencode(path)) > MAX_PATH_BYTES:
        raise OSError(errno.ENAMETOOLONG, f"longer than the {MAX_PATH_BYTES} bytes of a socket's name")
    if _is_abandoned(path):
        path.unlink()
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # No moment at which the socket is there and open to others.
        before = os.umask(0o177)
        try:
            sock.bind(str(path))
        finally:
            os.umask(before)
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return ControlSocket(sock=sock, path=path)


def _is_abandoned(path: Path) -> bool:
    """Whether a socket is there that nobody listens on."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            return False
    except OSError:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        # A full backlog answers EAGAIN instead of making us wait.
        probe.setblocking(False)
        return probe.connect_ex(str(path)) == errno.ECONNREFUSED


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__
