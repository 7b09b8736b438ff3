"""Programs in a lab that report by JSON lines on standard output, among other lines or alone."""

import json
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from antquic_server.natlab.lab import Lab
from antquic_server.natlab.namespaces import LabError

__all__ = ["JsonProcess", "Message"]

Message = dict[str, Any]

_KEPT_LINES = 2000
_STOP_TIMEOUT_S = 10.0


class JsonProcess:
    """
    A program inside a lab whose output is read by a thread, so that it never blocks on a full pipe.

    Standard error is mixed into standard output. ``log`` gets a copy of every line.
    ``name`` is what errors call it: the file name of the program, unless told otherwise.
    """

    def __init__(
        self,
        lab: Lab,
        role: str,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        directory: Path,
        log: Path,
        name: str | None = None,
    ) -> None:
        self._name = name or Path(command[0]).name
        self._role = role
        self._log = log
        self._messages: list[Message] = []
        self._other_lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._changed = threading.Condition()
        self._ended = False
        self._process = lab.popen(
            role, command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=dict(environment), cwd=directory
        )
        self._reader = threading.Thread(target=self._read, name=f"reader of {self._process.pid}", daemon=True)
        self._reader.start()

    @property
    def messages(self) -> list[Message]:
        """Every JSON line so far, oldest first."""
        with self._changed:
            return list(self._messages)

    def find(self, matches: Callable[[Message], object]) -> list[Message]:
        """Return the messages so far that match, oldest first."""
        return [message for message in self.messages if matches(message)]

    def wait_for(self, matches: Callable[[Message], object], *, what: str, timeout_s: float) -> Message:
        """
        Return the first message that matches, waiting for it.

        Raises:
            LabError: None came in time, or the program ended; the text says ``what`` was missing.
        """
        deadline_s = time.monotonic() + timeout_s
        looked_at = 0
        with self._changed:
            while True:
                for message in self._messages[looked_at:]:
                    if matches(message):
                        return message
                looked_at = len(self._messages)
                remaining_s = deadline_s - time.monotonic()
                if self._ended:
                    raise LabError(f"no {what}: {self._name} on {self._role} ended: {self._final_words()}")
                if remaining_s <= 0:
                    raise LabError(f"no {what} from {self._name} on {self._role} within {timeout_s:g} s")
                self._changed.wait(remaining_s)

    def ask_to_stop(self, number: int) -> None:
        """Send a signal and return at once: several programs end faster when all are asked before one is awaited."""
        if self._process.poll() is None:
            self._process.send_signal(number)

    def stop(self, number: int) -> None:
        """End the program with a signal; one that is late is killed."""
        self.ask_to_stop(number)
        try:
            self._process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        # Its own children may hold the pipe open a moment longer: hence a deadline here too.
        self._reader.join(_STOP_TIMEOUT_S)
        if self._process.stdout is not None and not self._reader.is_alive():
            self._process.stdout.close()

    def last_line(self, part: str = "") -> str:
        """Return the last line with ``part`` in it that is no JSON; empty if there is none."""
        with self._changed:
            return next((line for line in reversed(self._other_lines) if part in line), "")

    def _read(self) -> None:
        stream = self._process.stdout
        if stream is not None:
            with self._log.open("ab") as log:
                for raw in stream:
                    log.write(raw)
                    self._take(raw.decode(errors="replace").rstrip("\n"))
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _take(self, line: str) -> None:
        message = None
        if line.startswith("{"):
            try:
                message = json.loads(line)
            except json.JSONDecodeError:
                message = None
        with self._changed:
            if isinstance(message, dict):
                self._messages.append(message)
                self._changed.notify_all()
            else:
                self._other_lines.append(line)

    def _final_words(self) -> str:
        return next((line for line in reversed(self._other_lines) if line.strip()), "no message")
