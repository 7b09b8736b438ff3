"""Tests of one worker process: real processes, and the fake worker as program."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Sequence

import pytest
import uvloop

from antquic_server.ipc.messages import BootFailed, Drained, Heartbeat, Hello, Message
from antquic_server.supervisor import process
from antquic_server.supervisor.process import EndReason, FiguresReader, WorkerProcess, WorkerState
from support.fake_node import FAKE_WORKER, ROOT

pytestmark = pytest.mark.end_to_end


class Observer:
    """Remembers what a worker said and waits for it."""

    def __init__(self) -> None:
        self.said: list[Message] = []
        self.exited: list[WorkerProcess] = []
        self.news = asyncio.Event()

    def worker_said(self, worker: WorkerProcess, message: Message) -> None:
        """Remember a message."""
        self.said.append(message)
        self.news.set()

    def worker_exited(self, worker: WorkerProcess) -> None:
        """Remember the end."""
        self.exited.append(worker)
        self.news.set()

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait for a condition, looking at each piece of news."""
        while not condition():
            self.news.clear()
            await self.news.wait()

    def heard(self, kind: type[Message]) -> bool:
        """Whether a message of this kind has come."""
        return any(isinstance(message, kind) for message in self.said)


def start(observer: Observer, mode: str = "", command: Sequence[str] = ()) -> WorkerProcess:
    """Start the fake worker, or another program."""
    return WorkerProcess(
        command=command or (sys.executable, str(FAKE_WORKER)),
        environment={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "FAKE_WORKER": mode},
        inherited_fds=(),
        loop=asyncio.get_running_loop(),
        listener=observer,
    )


def play(story: Callable[[Observer], Awaitable[None]]) -> None:
    """Run a story within ten seconds, on the supervisor's kind of loop."""

    async def bounded() -> None:
        async with asyncio.timeout(10):
            await story(Observer())

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(bounded())


def test_worker_greets_and_leaves_when_asked() -> None:
    """Hello comes first, Drained last, and the exit code is 0."""

    async def story(observer: Observer) -> None:
        worker = start(observer)
        await observer.until(lambda: observer.said)
        assert observer.said[0] == Hello(version=1, pid=worker.pid)
        worker.drain(1.0)
        worker.drain(1.0)
        states = [worker.state]
        await observer.until(lambda: observer.exited)
        assert observer.heard(Drained)
        assert worker.exit_code == 0
        states.append(worker.state)
        assert states == [WorkerState.DRAINING, WorkerState.GONE]

    play(story)


def test_stopped_process_can_be_killed() -> None:
    """SIGKILL ends even what SIGSTOP holds; the end is told once."""

    async def story(observer: Observer) -> None:
        worker = start(observer)
        await observer.until(lambda: observer.said)
        os.kill(worker.pid, signal.SIGSTOP)
        worker.kill(EndReason.FROZEN)
        await observer.until(lambda: observer.exited)
        worker.check_exit()
        assert worker.exit_code == -signal.SIGKILL
        assert worker.end_reason is EndReason.FROZEN
        assert observer.exited == [worker]
        worker.kill(EndReason.LATE)
        assert worker.end_reason is EndReason.FROZEN
        assert not worker.send(Drained(connections=0))

    play(story)


@pytest.mark.parametrize("watched", [True, False])
def test_end_is_noticed_with_and_without_process_descriptors(watched: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel has no process descriptors, asking now and then does."""
    if not watched:
        monkeypatch.setattr(process, "_watch_exit", lambda _: None)

    async def story(observer: Observer) -> None:
        worker = start(observer, "exit-3")
        while not observer.exited:
            if not watched:
                worker.check_exit()
            await asyncio.sleep(0.01)
        assert worker.exit_code == 3

    play(story)


def test_last_words_are_heard_before_the_end() -> None:
    """Why a worker could not boot is known when its end is judged."""

    async def story(observer: Observer) -> None:
        message = BootFailed(reason="x" * 100_000)
        code = (
            "import os, socket\n"
            "from antquic_server.ipc.codec import encode\n"
            "from antquic_server.ipc.messages import BootFailed\n"
            "sock = socket.socket(fileno=int(os.environ['ANTQUIC_CHANNEL_FD']))\n"
            "sock.sendall(encode(BootFailed(reason='x' * 100_000)))\n"
            "os._exit(3)\n"
        )
        worker = start(observer, command=(sys.executable, "-c", code))
        await observer.until(lambda: observer.exited)
        assert observer.said == [message]
        assert worker.exit_code == 3

    play(story)


def test_worker_that_closes_its_channel_and_stays_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody could ask it to leave any more."""
    monkeypatch.setattr(process, "SPEECHLESS_GRACE_S", 0.05)

    async def story(observer: Observer) -> None:
        code = "import os, time; os.close(int(os.environ['ANTQUIC_CHANNEL_FD'])); time.sleep(60)"
        worker = start(observer, command=(sys.executable, "-c", code))
        await observer.until(lambda: observer.exited)
        assert worker.exit_code == -signal.SIGKILL
        assert worker.end_reason is EndReason.CHANNEL

    play(story)


def test_worker_that_talks_nonsense_is_killed_for_it() -> None:
    """The framing is lost: nothing it says later could be understood."""

    async def story(observer: Observer) -> None:
        code = (
            "import os, socket, time\n"
            "socket.socket(fileno=int(os.environ['ANTQUIC_CHANNEL_FD'])).sendall(b'\\xff' * 9)\n"
            "time.sleep(60)\n"
        )
        worker = start(observer, command=(sys.executable, "-c", code))
        await observer.until(lambda: observer.exited)
        assert worker.exit_code == -signal.SIGKILL
        assert worker.end_reason is EndReason.PROTOCOL

    play(story)


def test_program_that_does_not_exist_is_an_oserror() -> None:
    """And nothing stays open or running."""

    async def story(observer: Observer) -> None:
        with pytest.raises(FileNotFoundError):
            start(observer, command=("/no/such/program",))

    play(story)


def test_snapshot_has_the_figures_of_the_heartbeat() -> None:
    """Connections and loop lag are gauges like any other; what the kernel said last stays, for the slot's total."""

    async def story(observer: Observer) -> None:
        worker = start(observer)
        assert worker.snapshot() == {}
        assert worker.open_connections == 0
        await observer.until(lambda: observer.heard(Heartbeat))
        beat = next(message for message in observer.said if isinstance(message, Heartbeat))
        worker.beat(beat)
        snapshot = worker.snapshot()
        assert snapshot["loop_lag_s"] == beat.loop_lag_s
        assert snapshot["datagrams_received"] == beat.counters["datagrams_received"]
        worker.read_figures()
        assert worker.figures is not None
        assert worker.figures.rss_bytes > 0
        assert worker.figures.open_files > 0
        assert 0 < worker.figures.open_files < worker.figures.max_files
        assert abs(worker.figures.started_unix_s - time.time()) < 600
        assert worker.snapshot()["process_cpu_s"] == worker.figures.cpu_s
        worker.kill(EndReason.LATE)
        await observer.until(lambda: observer.exited)
        last = worker.figures
        worker.read_figures()
        assert worker.figures is last

    play(story)


def test_figures_of_a_process_that_never_was_are_none() -> None:
    """A process that is gone has no figures, and asking is no error."""
    assert FiguresReader(2**22 - 1).read() is None
