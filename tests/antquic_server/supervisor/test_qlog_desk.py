"""Captures: what workers are asked, which files are given out, and that all of it ends."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from antquic_server.ipc.log_messages import QlogEnded, QlogStart, QlogStop, QlogWritten, qlog_file_name
from antquic_server.ipc.messages import Message
from antquic_server.supervisor.qlog_desk import GRACE_S, KEEP_S, MAX_CAPTURES, MAX_FILES, PIECE_BYTES, QlogDesk

PEER = b"p" * 32


class Stage:
    """A desk with two workers that do what the test says."""

    def __init__(self) -> None:
        self.now_s = 50.0
        self.slots: dict[int, object] = {0: None, 1: None}
        self.told: list[tuple[int, Message]] = []
        self.desk = QlogDesk(self._tell, lambda: self.slots, clock=lambda: self.now_s)

    def _tell(self, slot: int, message: Message) -> bool:
        self.told.append((slot, message))
        return slot in self.slots

    def start(self, peer_id: bytes = PEER, seconds: float = 10.0) -> int:
        """Begin a capture, which must be possible."""
        number = self.desk.start(peer_id, seconds)
        assert isinstance(number, int), number
        return number

    def directory(self, number: int) -> Path:
        """Where the workers were told to write."""
        return next(
            Path(message.directory)
            for _, message in self.told
            if isinstance(message, QlogStart) and message.capture == number
        )

    def write(self, number: int, connection: int, data: bytes = b"{}", slot: int = 0) -> str:
        """Do what a worker does; returns the name of the file."""
        name = qlog_file_name(slot, 1, connection)
        (self.directory(number) / name).write_bytes(data)
        written = QlogWritten(capture=number, connection=connection, events=1, from_start=True, truncated=False)
        self.desk.heard(slot, 1, written)
        return name

    def end(self, number: int) -> None:
        """Let both workers say that they are done."""
        for slot in (0, 1):
            self.desk.heard(slot, 1, QlogEnded(capture=number, refused=0, error=""))

    def done(self, number: int) -> object:
        """Look whether a capture is complete."""
        self.desk.tick()
        document = self.desk.document(number)
        return None if document is None else document["done"]


@pytest.fixture
def stage() -> Iterator[Stage]:
    """A stage that leaves no directory behind."""
    it = Stage()
    yield it
    it.desk.close()


def test_every_worker_is_asked_and_the_capture_ends_with_them(stage: Stage) -> None:
    """After its time, once all have said so."""
    number = stage.start()
    assert [slot for slot, _ in stage.told] == [0, 1]
    stage.now_s += 10
    assert stage.done(number) is False
    stage.end(number)
    assert stage.done(number) is True


def test_worker_that_says_nothing_is_not_waited_for_longer_than_the_grace(stage: Stage) -> None:
    """Nor one that has died."""
    number = stage.start()
    stage.desk.slot_down(0)
    stage.now_s += 10 + GRACE_S / 2
    assert stage.done(number) is False
    stage.now_s += GRACE_S
    assert stage.done(number) is True


def test_worker_that_takes_over_joins_in(stage: Stage) -> None:
    """For what is left of the time, and not when it is over."""
    number = stage.start()
    stage.now_s += 4
    stage.desk.slot_down(1)
    stage.desk.slot_ready(1)
    slot, message = stage.told[-1]
    assert isinstance(message, QlogStart)
    assert (slot, message.capture, message.seconds) == (1, number, 6.0)
    stage.now_s += 6
    stage.desk.slot_ready(1)
    assert len(stage.told) == 3


def test_files_are_given_out_piece_by_piece(stage: Stage) -> None:
    """And forgotten with the capture."""
    number = stage.start()
    data = os.urandom(PIECE_BYTES + 1000)
    name = stage.write(number, 7, data)
    document = stage.desk.document(number)
    assert document is not None
    assert document["files"] == [
        {
            "name": name,
            "slot": 0,
            "connection": 7,
            "events": 1,
            "size_bytes": len(data),
            "from_start": True,
            "truncated": False,
        }
    ]
    pieces = [stage.desk.read(number, name, offset) for offset in (0, PIECE_BYTES, len(data))]
    assert pieces == [data[:PIECE_BYTES], data[PIECE_BYTES:], b""]
    directory = stage.directory(number)
    assert stage.desk.remove(number)
    assert not directory.exists()
    assert stage.desk.read(number, name, 0) is None
    assert not stage.desk.remove(number)


def test_directory_is_private(stage: Stage) -> None:
    """Traces hold addresses."""
    assert stage.directory(stage.start()).stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("kind", ["link", "pipe", "directory", "gone"])
def test_worker_cannot_lead_the_supervisor_elsewhere(kind: str, stage: Stage) -> None:
    """It owns the directory: what is there may be no file by the time somebody fetches it."""
    number = stage.start()
    name = stage.write(number, 7)
    path = stage.directory(number) / name
    path.unlink()
    if kind == "link":
        path.symlink_to("/etc/passwd")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    assert stage.desk.read(number, name, 0) is None


@pytest.mark.parametrize("name", ["../../etc/passwd", "slot0-generation1-connection8.qlog", "", "/etc/passwd"])
def test_only_files_that_were_reported_are_read(name: str, stage: Stage) -> None:
    """Whatever name is asked for."""
    number = stage.start()
    stage.write(number, 7)
    assert stage.desk.read(number, name, 0) is None


def test_file_that_is_not_there_and_files_beyond_the_bound_are_refused(stage: Stage) -> None:
    """A worker may say what it likes."""
    number = stage.start()
    stage.desk.heard(0, 1, QlogWritten(capture=number, connection=-1, events=1, from_start=True, truncated=False))
    stage.desk.heard(0, 1, QlogWritten(capture=77, connection=1, events=1, from_start=True, truncated=False))
    for connection in range(MAX_FILES + 5):
        stage.write(number, connection)
    document = stage.desk.document(number)
    assert document is not None
    assert len(document["files"]) == MAX_FILES  # type: ignore[arg-type]
    assert document["refused"] == 6


def test_errors_and_refusals_of_workers_are_told(stage: Stage) -> None:
    """A long one is cut."""
    number = stage.start()
    stage.desk.heard(1, 1, QlogEnded(capture=number, refused=3, error="x" * 1000))
    document = stage.desk.document(number)
    assert document is not None
    assert (document["refused"], document["errors"]) == (3, ["x" * 200])


def test_captures_are_bounded_and_one_peer_has_one(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a line that says why; what nobody fetches makes room by itself."""
    first = stage.start()
    assert stage.desk.start(PEER, 1.0) == "this peer is traced already"
    for number in range(MAX_CAPTURES - 1):
        stage.start(bytes([number]) * 32)
    refusal = stage.desk.start(b"z" * 32, 1.0)
    assert refusal == "4 traces are running or wait to be fetched; try again in a minute"
    stage.now_s += 10 + GRACE_S
    assert stage.done(first) is True
    stage.now_s += KEEP_S
    stage.desk.tick()
    assert stage.desk.documents() == []

    def no_space(**_: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.mkdtemp", no_space)
    assert stage.desk.start(PEER, 1.0) == "the node cannot make a directory for its files: No space left on device"


def test_capture_can_be_ended_early(stage: Stage) -> None:
    """Workers are told, and their files are kept."""
    number = stage.start()
    assert stage.desk.stop(number)
    assert [message for _, message in stage.told[2:]] == [QlogStop(capture=number)] * 2
    stage.write(number, 7)
    stage.end(number)
    assert stage.done(number) is True
    assert stage.desk.stop(number)
    assert not stage.desk.stop(number + 1)
    assert len(stage.told) == 4
