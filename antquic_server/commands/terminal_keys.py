"""Keys that are pressed in a terminal, one by one and without Enter, and the resizing of its window."""

import os
import select
import signal
import termios
import tty
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Self

__all__ = ["Keys", "Terminal", "keys_in"]

_ARROWS = {b"A": "up", b"B": "down", b"C": "right", b"D": "left"}
_READ_BYTES = 256

Keys = list[str]
"""Single characters in lower case, and ``up``, ``down``, ``left``, ``right``."""


def keys_in(data: bytes) -> Keys:
    """Return the keys in what a terminal has sent; whatever else it sends is passed over."""
    keys: Keys = []
    position = 0
    while position < len(data):
        if data[position : position + 1] == b"\x1b":
            if data[position + 1 : position + 2] in (b"[", b"O"):
                # A control sequence ends with its first letter or tilde (ECMA-48, section 5.4).
                end = position + 2
                while end < len(data) and not 0x40 <= data[end] <= 0x7E:
                    end += 1
                arrow = _ARROWS.get(data[end : end + 1]) if end == position + 2 else None
                keys += [arrow] if arrow is not None else []
                position = end + 1
            else:
                position += 1
            continue
        character = chr(data[position])
        if character.isprintable() and character.isascii():
            keys.append(character.lower())
        position += 1
    return keys


class Terminal:
    """
    As a context manager, has the terminal ``fd`` give out keys as they are pressed, and puts it back afterwards.

    Ctrl-C stays what it is. Where ``fd`` is no terminal there are no keys, and only ``wait`` is of use.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._saved: list[object] | None = None
        self._wakeup_read = self._wakeup_write = -1
        self._old_handler: object = None

    @property
    def has_keys(self) -> bool:
        """Whether somebody can press any."""
        return self._saved is not None

    def __enter__(self) -> Self:
        if os.isatty(self._fd):
            self._saved = termios.tcgetattr(self._fd)
            tty.setcbreak(self._fd)
        self._wakeup_read, self._wakeup_write = os.pipe()
        os.set_blocking(self._wakeup_write, False)
        self._old_handler = signal.signal(signal.SIGWINCH, self._resized)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        signal.signal(signal.SIGWINCH, self._old_handler)  # type: ignore[arg-type]
        # A thread that wakes us a moment too late must not write to what has the number next.
        read, self._wakeup_read = self._wakeup_read, -1
        write, self._wakeup_write = self._wakeup_write, -1
        os.close(read)
        os.close(write)
        if self._saved is not None:
            with suppress(termios.error):
                termios.tcsetattr(self._fd, termios.TCSADRAIN, self._saved)  # type: ignore[arg-type]
            self._saved = None

    def wait(self, timeout_s: float) -> Keys:
        """Return the keys pressed, as soon as there are any; none when the window was resized or time is up."""
        watched = [self._wakeup_read, *([self._fd] if self.has_keys else [])]
        readable, _, _ = select.select(watched, [], [], max(0.0, timeout_s))
        if self._wakeup_read in readable:
            os.read(self._wakeup_read, _READ_BYTES)
        if self._fd not in readable:
            return []
        data = b""
        with suppress(OSError):
            data = os.read(self._fd, _READ_BYTES)
        # A terminal that is gone will never send another key.
        return keys_in(data) if data else ["q"]

    def wake(self) -> None:
        """End a ``wait``, from another thread."""
        # It may be full of reasons to wake up already, or closed meanwhile.
        with suppress(OSError):
            os.write(self._wakeup_write, b"\0")

    def _resized(self, _number: int, _frame: FrameType | None) -> None:
        self.wake()
