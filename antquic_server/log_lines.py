"""
Writes lines to a descriptor whose reader may have stopped reading, and never waits for it.

A pipe that nobody empties, a terminal after Ctrl-S, a service manager that hangs: whoever writes to them in the
ordinary way waits until they go on, and with it an event loop and everybody it serves. Here a line that is not taken is
kept, up to ``MAX_PENDING_BYTES`` of them, and tried again with the next one; what does not fit is refused, for the
caller to count.

The descriptor belongs to others too (a shell, a pipeline), so ``O_NONBLOCK`` must not be set on it: the flag is one of
the open file, not of the process. Sockets are told with each call not to wait. Pipes and terminals are opened once
more, which makes an open file of our own. Where the system refuses that, since they belong to another user, the
descriptor is asked first: a pipe that says it is writable takes ``PIPE_BUF`` bytes, unless another process is faster in
between. Everything else, files and ``/dev/null``, never keeps a writer waiting.
"""

import os
import select
import socket
import stat
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

__all__ = ["MAX_PENDING_BYTES", "LineWriter", "has_room"]

MAX_PENDING_BYTES: Final = 262_144
"""About a thousand lines: what a burst may be ahead of a reader that is merely slow."""

MAX_SEND_BYTES: Final = 32_768
"""At once to a socket: one that keeps messages apart refuses those that are too large for good."""


def has_room(fd: int, *, timeout_s: float = 0.0) -> bool:
    """Tell whether something can be written to a descriptor without waiting, now or within the time."""
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return bool(poll.poll(timeout_s * 1000))


class LineWriter:
    """
    Writes whole lines to ``fd``, in the order in which they come.

    Other processes may write to the same place: a line of up to ``PIPE_BUF`` (4096) bytes is never torn by theirs.
    Not safe to be used from several threads.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        """Written to; a child that inherits it does not wait either, where this can be had."""
        self._pending: deque[bytes] = deque()
        self._pending_bytes = 0
        self._given_fd = fd
        self._ask_first = False
        self._socket: socket.socket | None = None
        mode = os.fstat(fd).st_mode
        if stat.S_ISSOCK(mode):
            self._socket = socket.socket(fileno=os.dup(fd))
        elif (stat.S_ISFIFO(mode) or os.isatty(fd)) and os.get_blocking(fd):
            try:
                self.fd = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
            except OSError:
                self._ask_first = True

    def take_pending(self) -> list[bytes]:
        """Hand out what was kept and not written; it is somebody else's to write then."""
        taken = list(self._pending)
        self._pending.clear()
        self._pending_bytes = 0
        return taken

    def put_pending(self, lines: Sequence[bytes]) -> None:
        """Keep what another writer handed out, to be written after what is kept already."""
        self._pending.extend(lines)
        self._pending_bytes += sum(map(len, lines))

    def write(self, line: bytes) -> bool:
        """Write a line or keep it for later; False when it was refused."""
        self.flush()
        if self._pending and self._pending_bytes + len(line) > MAX_PENDING_BYTES:
            return False
        self._pending.append(line)
        self._pending_bytes += len(line)
        self.flush()
        return True

    def flush(self) -> bool:
        """Write as much as is taken; returns whether nothing is left."""
        # A pipe without reader and a full disk are no other than a full pipe: they may be mended.
        with suppress(OSError):
            while self._pending:
                line = self._pending.popleft()
                written = 0
                try:
                    written = self._write_some(line)
                finally:
                    if written < len(line):
                        self._pending.appendleft(line[written:])
                    self._pending_bytes -= written
        return not self._pending

    def close(self, *, patience_s: float = 0.0) -> None:
        """Write what is left, waiting for a slow reader no longer than this; then it is lost."""
        until_s = time.monotonic() + patience_s
        while not self.flush():
            left_bytes, left_s = self._pending_bytes, until_s - time.monotonic()
            if left_s <= 0 or not has_room(self.fd, timeout_s=left_s):
                break
            self.flush()
            if self._pending_bytes == left_bytes:
                # Room, and yet nothing was written: it is broken, and will not be mended in half a second.
                break
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self.fd != self._given_fd:
            os.close(self.fd)
        # A line that still comes, from a thread that outlives the log, must not go to whoever gets the number next.
        self.fd, self._ask_first = self._given_fd, True

    def _write_some(self, data: bytes) -> int:
        """Return how many bytes were taken; BlockingIOError if none can be now."""
        if self._socket is not None:
            return self._socket.send(data[:MAX_SEND_BYTES], socket.MSG_DONTWAIT)
        if not self._ask_first:
            return os.write(self.fd, data)
        if not has_room(self.fd):
            raise BlockingIOError
        return os.write(self.fd, data[: select.PIPE_BUF])
