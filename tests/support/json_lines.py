"""A child process that reports on standard output, one JSON object per line, among other lines or alone."""

import json
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

__all__ = ["JsonLineProcess"]

# How much ordinary output is kept for the message of a failing test.
KEPT_LINES = 60
Message = dict[str, Any]


class JsonLineProcess:
    """
    A started process whose JSON lines are read by a thread, so that it never blocks on a full pipe.

    Standard input stays open until ``end_input`` or ``stop``: a child may take its end as a signal to finish.
    Standard error goes to ``stderr_path``, or is mixed into standard output when there is none.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        stderr_path: Path | None = None,
        directory: Path | None = None,
    ) -> None:
        self.command = list(command)
        self.messages: list[Message] = []
        self._other_lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._changed = threading.Condition()
        self._ended = False
        self.stderr_path = stderr_path
        stderr = stderr_path.open("ab") if stderr_path else subprocess.STDOUT
        try:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=None if environment is None else dict(environment),
                cwd=directory,
            )
        finally:
            if not isinstance(stderr, int):
                stderr.close()
        self._reader = threading.Thread(target=self._read, name=f"reader of {self.pid}", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Process id."""
        return self.process.pid

    @property
    def running(self) -> bool:
        """Whether the process has not ended yet."""
        return self.process.poll() is None

    def _read(self) -> None:
        stream = self.process.stdout
        assert stream is not None
        for raw in stream:
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
                self.messages.append(message)
                self._changed.notify_all()
            else:
                self._other_lines.append(line)

    def wait_for(self, matches: Callable[[Message], object], *, timeout_s: float, what: str, after: int = 0) -> Message:
        """
        Return the first message from number ``after`` on that ``matches``.

        Raises:
            AssertionError: None came in time, or the process ended; the text has the tail of its output.
        """
        deadline_s = time.monotonic() + timeout_s
        looked_at = after
        with self._changed:
            while True:
                for message in self.messages[looked_at:]:
                    if matches(message):
                        return message
                looked_at = max(looked_at, len(self.messages))
                remaining_s = deadline_s - time.monotonic()
                if self._ended or remaining_s <= 0:
                    why = "the process ended" if self._ended else f"nothing within {timeout_s} s"
                    raise AssertionError(f"no {what}: {why}\n{self.describe()}")
                self._changed.wait(remaining_s)

    def describe(self) -> str:
        """Return the command, its exit status and the tail of everything it wrote."""
        tail = "\n".join([*map(json.dumps, self.messages[-KEPT_LINES:]), *self._other_lines])
        if self.stderr_path is not None and self.stderr_path.exists():
            errors = self.stderr_path.read_text(errors="replace").splitlines()[-KEPT_LINES:]
            tail = "\n".join([tail, "-- stderr --", *errors])
        return f"{' '.join(self.command)}\nexit status: {self.process.poll()}\n{tail}"

    def end_input(self) -> None:
        """Close the child's standard input."""
        if self.process.stdin is not None and not self.process.stdin.closed:
            self.process.stdin.close()

    def wait(self, *, timeout_s: float) -> int:
        """Return the exit status; kill the process and raise ``AssertionError`` when it is late."""
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"still running after {timeout_s} s\n{self.describe()}") from None
        finally:
            self._release()

    def stop(self, *, timeout_s: float = 10.0) -> int:
        """Ask the process to end with SIGTERM and return its exit status; the rules of ``wait`` apply."""
        if self.running:
            self.process.terminate()
        return self.wait(timeout_s=timeout_s)

    def _release(self) -> None:
        self.end_input()
        # Only after the child's end: its own children may hold the pipe open, so the thread gets a deadline too.
        self._reader.join(timeout=5.0)
        stream: IO[bytes] | None = self.process.stdout
        if stream is not None and not self._reader.is_alive():
            stream.close()
