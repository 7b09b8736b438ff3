"""Traces of one worker: which connections, which files, and that nothing happens without a request."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

import workers.qlog
from antquic_server.ipc.log_messages import QlogEnded, QlogStart, QlogStop, QlogWritten, qlog_file_name
from antquic_server.protocol.raw_public_key import peer_id
from antquic_server.protocol.seam.connection import NodeQuicConnection
from support.in_process import Bench, run, running_worker, until
from support.pair import node_key
from support.qlog import check_qlog, events_named, frames_of
from workers.qlog import QlogDesk

TIMEOUT_S = 10.0
PEER = peer_id(node_key("client").public_key)


def request(directory: Path, **changes: Any) -> QlogStart:
    """Return a request for the peer that a bench connects as."""
    fields: dict[str, Any] = {
        "capture": 3,
        "peer_id": PEER,
        "seconds": 60.0,
        "directory": str(directory),
        "max_connections": 4,
        "max_bytes": 1 << 20,
    }
    return QlogStart(**(fields | changes))


def begin(it: Bench, directory: Path, **changes: Any) -> None:
    """Hand a request to the worker."""
    it.worker.qlog.begin(request(directory, **changes), it.endpoint.connections.values())


def told(it: Bench, kind: type[Any]) -> list[Any]:
    """Return what the worker has said of one kind."""
    return [message for message in it.told_hub if isinstance(message, kind)]


def test_connection_that_is_there_is_traced_until_the_end(tmp_path: Path) -> None:
    """One file, complete when the request is ended, with what happened in between."""

    async def story() -> None:
        async with running_worker() as it:
            connection = await it.connected()
            begin(it, tmp_path)
            assert await connection.echo(b"hello", TIMEOUT_S) == b"hello"
            it.worker.qlog.end(QlogStop(capture=99))
            assert told(it, QlogEnded) == []
            it.worker.qlog.end(QlogStop(capture=3))
            (written,) = told(it, QlogWritten)
            assert (written.capture, written.connection, written.from_start) == (3, 1, False)
            assert told(it, QlogEnded) == [QlogEnded(capture=3, refused=0, error="")]
            (server,) = it.endpoint.connections.values()
            assert server.quic.trace is None
            assert await connection.echo(b"again", TIMEOUT_S) == b"again"

    run(story())
    trace = check_qlog((tmp_path / qlog_file_name(0, 1, 1)).read_text())
    assert [frame["length"] for frame in frames_of(trace, "received") if frame["frame_type"] == "stream"] == [5]
    assert json.loads(trace["description"])["peer_id"] == PEER.hex()


def test_new_connection_of_the_peer_is_traced_from_its_first_packet(tmp_path: Path) -> None:
    """The handshake included; its file is complete when the connection ends, before the request does."""

    async def story() -> None:
        async with running_worker() as it:
            begin(it, tmp_path)
            connection = await it.connected()
            assert await connection.echo(b"hello", TIMEOUT_S) == b"hello"
            connection.close()
            await until(lambda: told(it, QlogWritten), "file")
            (written,) = told(it, QlogWritten)
            assert written.from_start
            assert not written.truncated
            assert told(it, QlogEnded) == []
            it.worker.qlog.stop()
            assert len(told(it, QlogEnded)) == 1

    run(story())
    trace = check_qlog((tmp_path / qlog_file_name(0, 1, 1)).read_text())
    assert events_named(trace, "transport:packet_received")[0]["header"]["packet_type"] == "initial"
    assert "connection_close" in {frame["frame_type"] for frame in frames_of(trace, "received")}


def test_others_are_not_traced(tmp_path: Path) -> None:
    """Neither a stranger that is there, nor one that comes: its trace ends as soon as its key is known."""

    async def story() -> None:
        async with running_worker() as it:
            await it.connected(node_key=node_key("stranger"))
            begin(it, tmp_path)
            await it.connected(node_key=node_key("another"))
            assert all(each.quic.trace is None for each in it.endpoint.connections.values())
            it.worker.qlog.stop()
            assert told(it, QlogWritten) == []

    run(story())
    assert list(tmp_path.iterdir()) == []


def test_without_a_request_no_connection_is_touched() -> None:
    """Not even a new one."""

    async def story() -> None:
        async with running_worker() as it:
            await it.connected()
            (server,) = it.endpoint.connections.values()
            assert server.quic._quic_logger is None
            assert it.worker.qlog._newcomers == {}

    run(story())


def test_time_ends_the_request(tmp_path: Path) -> None:
    """By the worker's own heartbeat."""

    async def story() -> None:
        async with running_worker() as it:
            await it.connected()
            begin(it, tmp_path, seconds=0.0)
            it.worker.qlog.tick()
            assert len(told(it, QlogWritten)) == len(told(it, QlogEnded)) == 1

    run(story())
    check_qlog((tmp_path / qlog_file_name(0, 1, 1)).read_text())


def test_connections_and_bytes_are_bounded(tmp_path: Path) -> None:
    """A file that is full is valid and says so; one connection too many is counted."""

    async def story() -> None:
        async with running_worker() as it:
            connection = await it.connected()
            await it.connected()
            begin(it, tmp_path, max_connections=1, max_bytes=5000)
            assert await connection.echo(bytes(100_000), TIMEOUT_S)
            it.worker.qlog.tick()
            it.worker.qlog.stop()
            (written,) = told(it, QlogWritten)
            assert written.truncated
            assert told(it, QlogEnded)[0].refused == 1

    run(story())
    path = tmp_path / qlog_file_name(0, 1, 1)
    assert 3000 < path.stat().st_size <= 5000 + 100
    check_qlog(path.read_text())


def test_newcomers_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In number, in bytes and in time; a peer that was too many is traced from the end of its handshake on."""
    monkeypatch.setattr(workers.qlog, "MAX_NEWCOMERS", 0)

    async def story() -> None:
        async with running_worker() as it:
            begin(it, tmp_path)
            await it.connected()
            monkeypatch.setattr(workers.qlog, "MAX_NEWCOMERS", 1)
            monkeypatch.setattr(workers.qlog, "NEWCOMER_BYTES", 100)
            await it.connected()
            monkeypatch.setattr(workers.qlog, "NEWCOMER_S", -1.0)
            counts: list[int] = []

            def watch_and_tick(desk: QlogDesk, quic: NodeQuicConnection) -> NodeQuicConnection:
                # Here and not after a look from outside, which comes too late where a handshake takes no time.
                watched = watch(desk, quic)
                counts.append(len(desk._newcomers))
                desk.tick()
                counts.append(len(desk._newcomers))
                return watched

            watch = QlogDesk.watch
            monkeypatch.setattr(QlogDesk, "watch", watch_and_tick)
            it.connect(node_key=node_key("slow"))
            await until(lambda: counts, "newcomer")
            assert counts == [1, 0]
            it.worker.qlog.stop()
            assert [each.from_start for each in told(it, QlogWritten)] == [False, False]

    run(story())
    for path in tmp_path.iterdir():
        check_qlog(path.read_text())


def test_second_request_for_a_peer_is_refused(tmp_path: Path) -> None:
    """A connection has one trace."""

    async def story() -> None:
        async with running_worker() as it:
            begin(it, tmp_path)
            begin(it, tmp_path, capture=4)
            assert told(it, QlogEnded) == [QlogEnded(capture=4, refused=0, error="this peer is traced already")]
            it.worker.qlog.stop()

    run(story())


def test_directory_that_is_gone_is_told(tmp_path: Path) -> None:
    """In one line, and the connection goes on."""

    async def story() -> None:
        async with running_worker() as it:
            connection = await it.connected()
            begin(it, tmp_path / "missing")
            assert await connection.echo(b"hello", TIMEOUT_S) == b"hello"
            it.worker.qlog.stop()
            (ended,) = told(it, QlogEnded)
            assert "slot0-generation1-connection1.qlog: No such file or directory" in ended.error

    run(story())


def test_full_disk_ends_the_file_and_not_the_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written is cut off, which is said."""

    class FullDisk:
        def write(self, text: str) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def close(self) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def full_disk(fd: int, *_: object, **__: object) -> FullDisk:
        os.close(fd)
        return FullDisk()

    async def story() -> None:
        async with running_worker() as it:
            connection = await it.connected()
            with monkeypatch.context() as patch:
                patch.setattr("os.fdopen", full_disk)
                begin(it, tmp_path)
            assert await connection.echo(b"hello", TIMEOUT_S) == b"hello"
            it.worker.qlog.stop()
            assert told(it, QlogWritten)[0].truncated

    run(story())
