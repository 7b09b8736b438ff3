"""
Traces of connections on demand, as the supervisor sees them: it asks the workers, and keeps their files until fetched.

A capture is one request: the connections of one peer for some seconds. Workers write its files into a private
directory, from which they are read out piece by piece over the control socket, so that whoever asked gets them with
rights of their own. What nobody fetches is thrown away.

Everything is bounded: captures at a time, seconds, connections and bytes for each.
"""

import contextlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from antquic_server.ipc.log_messages import QlogEnded, QlogStart, QlogStop, QlogWritten, qlog_file_name
from antquic_server.ipc.messages import Message

__all__ = ["MAX_SECONDS", "PIECE_BYTES", "QlogDesk"]

MAX_CAPTURES: Final = 4
MAX_SECONDS: Final = 600.0
MAX_CONNECTIONS: Final = 16
"""Of one capture on each worker. An ant-quic peer has a handful."""

MAX_FILES: Final = 64
"""Of one capture, all workers together."""

MAX_FILE_BYTES: Final = 16 << 20
"""Some fifty thousand events: what a viewer in a browser still opens, and seconds of a connection at full speed."""

PIECE_BYTES: Final = 1 << 18
"""Read at a time, so that the supervisor's loop is held up for a millisecond at most."""

GRACE_S: Final = 5.0
"""For workers to say that they are done; one that is killed meanwhile never does."""

KEEP_S: Final = 120.0
"""How long files wait to be fetched."""

_NAME: Final = re.compile(r"slot[0-9]{1,9}-generation[0-9]{1,9}-connection[0-9]{1,18}\.qlog")


@dataclass(slots=True)
class _Capture:
    number: int
    peer_id: bytes
    directory: Path
    ends_at_s: float
    waiting_for: set[int]
    """Slots whose workers have not said that they are done."""
    files: dict[str, dict[str, object]] = field(default_factory=dict)
    refused: int = 0
    errors: list[str] = field(default_factory=list)
    done_at_s: float | None = None


class QlogDesk:
    """
    The captures of the node.

    Args:
        tell_slot: Sends a message to the worker of a slot, False if there is none.
        ready_slots: Returns the slots that have a ready worker, as keys.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        tell_slot: Callable[[int, Message], bool],
        ready_slots: Callable[[], Mapping[int, object]],
        *,
        clock: Callable[[], float],
    ) -> None:
        self._tell_slot = tell_slot
        self._ready_slots = ready_slots
        self._clock = clock
        self._captures: dict[int, _Capture] = {}
        self._next_number = 1

    # What is asked over the control socket.

    def start(self, peer_id: bytes, seconds: float) -> int | str:
        """Begin a capture; returns its number, or in one line why not."""
        running = [each for each in self._captures.values() if each.done_at_s is None]
        if any(each.peer_id == peer_id for each in running):
            return "this peer is traced already"
        if len(self._captures) >= MAX_CAPTURES:
            return f"{MAX_CAPTURES} traces are running or wait to be fetched; try again in a minute"
        try:
            directory = Path(tempfile.mkdtemp(prefix="antquic-qlog-"))
        except OSError as error:
            return f"the node cannot make a directory for its files: {error.strerror}"
        number = self._next_number
        self._next_number += 1
        capture = _Capture(number, peer_id, directory, self._clock() + seconds, set())
        self._captures[number] = capture
        for slot in self._ready_slots():
            self._ask(capture, slot)
        return number

    def document(self, number: int) -> dict[str, object] | None:
        """Return the state of a capture, None if there is none of this number."""
        capture = self._captures.get(number)
        if capture is None:
            return None
        return {
            "capture": number,
            "peer_id": capture.peer_id.hex(),
            "done": capture.done_at_s is not None,
            "remaining_s": round(max(0.0, capture.ends_at_s - self._clock()), 3),
            "files": [{"name": name, **facts} for name, facts in sorted(capture.files.items())],
            "refused": capture.refused,
            "errors": capture.errors,
        }

    def documents(self) -> list[dict[str, object] | None]:
        """Return the states of all captures."""
        return [self.document(number) for number in self._captures]

    def read(self, number: int, name: str, offset: int) -> bytes | None:
        """Return at most ``PIECE_BYTES`` of a complete file from ``offset`` on; None if there is no such file."""
        capture = self._captures.get(number)
        if capture is None or name not in capture.files or not _NAME.fullmatch(name):
            return None
        try:
            # A worker owns the file: it must not lead the supervisor elsewhere.
            fd = os.open(capture.directory / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            return os.pread(fd, PIECE_BYTES, offset) if stat.S_ISREG(os.fstat(fd).st_mode) else None
        finally:
            os.close(fd)

    def stop(self, number: int) -> bool:
        """End a capture before its time; False if there is none of this number."""
        capture = self._captures.get(number)
        if capture is None:
            return False
        if capture.done_at_s is None:
            capture.ends_at_s = min(capture.ends_at_s, self._clock())
            for slot in capture.waiting_for:
                self._tell_slot(slot, QlogStop(capture=number))
        return True

    def remove(self, number: int) -> bool:
        """Forget a capture and its files; False if there is none of this number."""
        self.stop(number)
        capture = self._captures.pop(number, None)
        if capture is None:
            return False
        shutil.rmtree(capture.directory, ignore_errors=True)
        return True

    def close(self) -> None:
        """Forget all captures."""
        for number in list(self._captures):
            self.remove(number)

    # What the workers say, and time.

    def slot_ready(self, slot: int) -> None:
        """Have a worker that took over a slot join in."""
        for capture in self._captures.values():
            if capture.done_at_s is None and self._clock() < capture.ends_at_s:
                self._ask(capture, slot)

    def slot_down(self, slot: int) -> None:
        """Do not wait for a worker that is gone; its unfinished files are lost."""
        for capture in self._captures.values():
            capture.waiting_for.discard(slot)

    def heard(self, slot: int, generation: int, message: QlogWritten | QlogEnded) -> None:
        """Take note of what a worker has done; one that was taken over by somebody else can at most lie about it."""
        capture = self._captures.get(message.capture)
        if capture is None:
            return
        if isinstance(message, QlogEnded):
            capture.waiting_for.discard(slot)
            capture.refused += max(0, message.refused)
            if message.error and len(capture.errors) < MAX_FILES:
                capture.errors.append(message.error[:200])
            return
        name = qlog_file_name(slot, generation, message.connection)
        size_bytes = None
        with contextlib.suppress(OSError):
            size_bytes = (capture.directory / name).lstat().st_size
        if size_bytes is None or len(capture.files) >= MAX_FILES:
            capture.refused += 1
            return
        capture.files[name] = {
            "slot": slot,
            "connection": message.connection,
            "events": message.events,
            "size_bytes": size_bytes,
            "from_start": message.from_start,
            "truncated": message.truncated,
        }

    def tick(self) -> None:
        """Notice captures that are complete, and throw away what nobody has fetched."""
        now_s = self._clock()
        for number, capture in list(self._captures.items()):
            if capture.done_at_s is None:
                over = now_s >= capture.ends_at_s
                if over and (not capture.waiting_for or now_s >= capture.ends_at_s + GRACE_S):
                    capture.done_at_s = now_s
            elif now_s >= capture.done_at_s + KEEP_S:
                self.remove(number)

    def _ask(self, capture: _Capture, slot: int) -> None:
        request = QlogStart(
            capture=capture.number,
            peer_id=capture.peer_id,
            seconds=capture.ends_at_s - self._clock(),
            directory=str(capture.directory),
            max_connections=MAX_CONNECTIONS,
            max_bytes=MAX_FILE_BYTES,
        )
        if self._tell_slot(slot, request):
            capture.waiting_for.add(slot)
