"""Lines to a reader that has stopped: nobody waits; what is kept arrives whole and in order, the rest is refused."""

import os
import pty
import select
import socket
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest

from antquic_server.log_lines import MAX_PENDING_BYTES, LineWriter, has_room

PATIENCE_S = 0.2


class Place:
    """``fd`` is written to, ``read`` takes what has come, ``stop`` and ``go_on`` are the reader's."""

    def __init__(self, kind: str, stack: ExitStack) -> None:
        self._stops_itself = kind != "terminal"
        if kind == "socket":
            ours, theirs = socket.socketpair()
            stack.enter_context(closing(ours))
            stack.enter_context(closing(theirs))
            self._reading, self.fd = ours.fileno(), theirs.fileno()
        else:
            self._reading, self.fd = pty.openpty() if kind == "terminal" else os.pipe()
            stack.callback(os.close, self._reading)
            stack.callback(os.close, self.fd)
        if kind == "terminal":
            modes = termios.tcgetattr(self.fd)
            modes[1] &= ~termios.OPOST
            termios.tcsetattr(self.fd, termios.TCSANOW, modes)

    def stop(self) -> None:
        """As Ctrl-S does; other readers just do not read."""
        if not self._stops_itself:
            termios.tcflow(self.fd, termios.TCOOFF)

    def go_on(self) -> None:
        """As Ctrl-Q does."""
        if not self._stops_itself:
            termios.tcflow(self.fd, termios.TCOON)

    def read(self, writer: LineWriter) -> bytes:
        """Return everything the writer has taken, which it is given the chance to write."""
        taken = b""
        while not writer.flush() or self.has_unread():
            taken += os.read(self._reading, 65536)
        return taken

    def read_some(self) -> bytes:
        """Return a little of what has come or comes in a moment, else nothing."""
        return os.read(self._reading, 1000) if self.has_unread(timeout_s=0.05) else b""

    def has_unread(self, *, timeout_s: float = 0.0) -> bool:
        """Tell whether there is something to read, now or within the time."""
        return bool(select.select([self._reading], [], [], timeout_s)[0])


@pytest.fixture(params=["pipe", "socket", "terminal"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    """One of each kind that can keep a writer waiting."""
    with ExitStack() as stack:
        yield Place(request.param, stack)


def _lines(count: int, *, size_bytes: int = 200) -> list[bytes]:
    return [f"{number:06} ".encode().ljust(size_bytes - 1, b"x") + b"\n" for number in range(count)]


def test_reader_that_stops_keeps_nobody_waiting(place: Place) -> None:
    """Lines are kept up to the bound and refused beyond it; the shared descriptor stays one that waits, for others."""
    place.stop()
    writer = LineWriter(place.fd)
    lines = _lines(10_000)
    accepted = [line for line in lines if writer.write(line)]

    assert os.get_blocking(place.fd)
    assert 0 < len(accepted) < len(lines)
    assert accepted == lines[: len(accepted)]
    assert sum(map(len, accepted)) >= MAX_PENDING_BYTES - len(lines[0])
    place.go_on()
    assert place.read(writer) == b"".join(accepted)
    writer.close()


def test_line_longer_than_a_pipe_arrives_whole(place: Place) -> None:
    """In pieces, as the reader takes them."""
    place.stop()
    writer = LineWriter(place.fd)
    lines = [b"begin\n", b"y" * (MAX_PENDING_BYTES - 100) + b"\n", b"end\n"]
    assert all(map(writer.write, lines))
    place.go_on()
    assert place.read(writer) == b"".join(lines)
    writer.close()


def test_end_waits_for_a_slow_reader_and_not_for_one_that_has_stopped(place: Place) -> None:
    """Half a second in a node, and less here."""
    place.stop()
    writer = LineWriter(place.fd)
    while writer.write(b"z" * 999 + b"\n"):
        pass
    started_s = time.monotonic()
    writer.close(patience_s=PATIENCE_S)
    assert PATIENCE_S * 0.9 <= time.monotonic() - started_s < 10 * PATIENCE_S

    place.go_on()
    slow = LineWriter(place.fd)
    slow.put_pending(writer.take_pending())
    finished = threading.Event()
    reader = threading.Thread(target=lambda: [place.read_some() for _ in iter(finished.is_set, True)])
    reader.start()
    slow.close(patience_s=10.0)
    finished.set()
    reader.join()
    assert slow.flush()


def test_pipe_of_another_user_is_asked_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """It cannot be opened once more; what it has room for is written all the same, and no more."""

    def refuse(*_arguments: object) -> int:
        raise PermissionError

    with ExitStack() as stack:
        place = Place("pipe", stack)
        with monkeypatch.context() as patched:
            patched.setattr("antquic_server.log_lines.os.open", refuse)
            writer = LineWriter(place.fd)
        assert writer.fd == place.fd
        lines = _lines(3_000, size_bytes=700)
        accepted = [line for line in lines if writer.write(line)]
        assert 0 < len(accepted) < len(lines)
        assert place.read(writer) == b"".join(accepted)


@pytest.mark.parametrize("size_bytes", [100, 4096])
def test_lines_of_several_processes_are_not_torn(size_bytes: int) -> None:
    """As those of the supervisor and its workers: each line up to PIPE_BUF bytes is whole, whatever is full."""
    with ExitStack() as stack:
        place = Place("pipe", stack)
        writers = [LineWriter(place.fd), LineWriter(place.fd)]
        lines = [[bytes([65 + which]) * (size_bytes - 1) + b"\n" for _ in range(40)] for which in range(2)]
        for pair in zip(*lines, strict=True):
            assert all(writer.write(line) for writer, line in zip(writers, pair, strict=True))
        taken = b""
        while place.has_unread():
            taken += place.read_some()
            for writer in writers:
                writer.flush()
        arrived = taken.splitlines(keepends=True)
        assert sorted(arrived) == sorted(lines[0] + lines[1])


def test_full_disk_and_reader_that_is_gone_are_no_errors() -> None:
    """What they do not take is kept and then refused, like everything else."""
    reading, writing = os.pipe()
    os.close(reading)
    full = os.open("/dev/full", os.O_WRONLY)
    for fd in (writing, full):
        writer = LineWriter(fd)
        assert not all(writer.write(line) for line in _lines(2_000))
        started_s = time.monotonic()
        writer.close(patience_s=30.0)
        assert time.monotonic() - started_s < 15.0
        os.close(fd)


def test_file_takes_everything(tmp_path: Path) -> None:
    """Through the descriptor itself, so that its place and its append mode are those of all who share it."""
    path = tmp_path / "node.log"
    with path.open("ab") as file:
        writer = LineWriter(file.fileno())
        assert writer.fd == file.fileno()
        assert all(map(writer.write, _lines(5_000)))
        writer.close()
    assert path.read_bytes() == b"".join(_lines(5_000))


def test_line_after_the_end_goes_to_nobody_else() -> None:
    """The number of our descriptor may be another file's by then."""
    reading, writing = os.pipe()
    writer = LineWriter(writing)
    ours = writer.fd
    writer.close()
    other_reading, other = os.pipe()
    assert ours in (other_reading, other)
    assert writer.write(b"late\n")
    assert os.read(reading, 100) == b"late\n"
    for fd in (reading, writing, other_reading, other):
        os.close(fd)


def test_child_that_inherits_the_descriptor_does_not_wait_either() -> None:
    """What it is given is already one that does not, and it opens no other."""
    reading, writing = os.pipe()
    writer = LineWriter(writing)
    assert not os.get_blocking(writer.fd)
    assert LineWriter(writer.fd).fd == writer.fd
    assert not os.get_inheritable(writer.fd)
    writer.close()
    os.close(reading)
    os.close(writing)


def test_room_is_waited_for_no_longer_than_told() -> None:
    """There is some in an empty pipe, and none in a full one."""
    reading, writing = os.pipe()
    assert has_room(writing)
    os.set_blocking(writing, False)
    with suppress(BlockingIOError):
        while os.write(writing, bytes(4096)):
            pass
    started_s = time.monotonic()
    assert not has_room(writing, timeout_s=PATIENCE_S)
    assert time.monotonic() - started_s >= PATIENCE_S * 0.9
    os.close(reading)
    os.close(writing)
