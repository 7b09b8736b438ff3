"""Labs go before the process does: signals that would end it on the spot unwind it instead."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

__all__ = ["SIGNALS", "SignalGuard"]

_ENDING_SIGNALS = (signal.SIGTERM, signal.SIGHUP)
"""Signals that would end the process without unwinding; SIGINT already raises KeyboardInterrupt."""


def _unwind(number: int, _frame: FrameType | None) -> NoReturn:
    """Leave every ``with`` block in order, with the exit code shells give for a signal."""
    raise SystemExit(128 + number)


class SignalGuard:
    """
    Makes signals that would end the process unwind it instead, as long as any lab is open.

    Labs may overlap, and close in another order than they were opened: only the last one puts the handlers back.
    """

    def __init__(self) -> None:
        self._labs: set[int] = set()
        self._found: dict[signal.Signals, Any] = {}
        """Handlers to put back."""

    def enter(self, lab: int) -> None:
        """Begin to catch signals for a lab; only the main thread can, and there labs are left as they are elsewhere."""
        if threading.current_thread() is not threading.main_thread():
            return
        self._labs.add(lab)
        for number in _ENDING_SIGNALS:
            # A program that handles the signal itself unwinds by itself.
            if signal.getsignal(number) is signal.SIG_DFL:
                self._found[number] = signal.signal(number, _unwind)

    @contextmanager
    def leaving(self, lab: int) -> Iterator[None]:
        """
        Let nothing interrupt the block, with which a lab ends; signals that came meanwhile act after it.

        Blocking them is not enough, since the kernel then hands them to another thread, and Python calls the handler in
        this one all the same: hence handlers that only take note.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        signals = {signal.SIGINT, *_ENDING_SIGNALS}
        held: list[int] = []
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        # None is a handler that is not Python's, and could not be put back.
        usual: dict[signal.Signals, Any] = {}
        for number in signals:
            if signal.getsignal(number) is not None:
                usual[number] = signal.signal(number, lambda number, _frame: held.append(number))
        try:
            yield
        finally:
            self._labs.discard(lab)
            if not self._labs:
                usual |= self._found
                self._found = {}
            for number, handler in usual.items():
                signal.signal(number, handler)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            for caught in held:
                signal.raise_signal(caught)


SIGNALS = SignalGuard()
"""The one of this process."""
