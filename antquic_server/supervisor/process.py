"""
One worker process, seen from the supervisor.

Everything here runs in the supervisor. A process is born without a slot; its life as the supervisor sees it::

    STARTING ── Hello ──► SPARE ── assign() ──► ASSIGNED ── Ready ──► READY ── drain() ──► DRAINING
        └──────────────────┴─────────────────────┴───────────────────────┴──────────────────┴──► GONE

It is GONE when the kernel says so, through a process descriptor, and not when its channel closes: whoever is
told of the end may rely on nobody reading the sockets any more.
"""

import asyncio
import os
import resource
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

import psutil

from antquic_server.ipc.channel import END_OF_STREAM, Channel
from antquic_server.ipc.messages import Assign, Drain, Heartbeat, Message, Ready
from antquic_server.logs import log_fd

CHANNEL_FD_VARIABLE: Final = "ANTQUIC_CHANNEL_FD"
"""Environment variable that tells a worker which descriptor is its channel."""

SPEECHLESS_GRACE_S: Final = 1.0
"""Between the end of the channel and SIGKILL: a worker that leaves on its own closes the channel first."""


class WorkerState(StrEnum):
    """Where in its life a worker is."""

    STARTING = "starting"
    SPARE = "spare"
    ASSIGNED = "assigned"
    READY = "ready"
    DRAINING = "draining"
    GONE = "gone"


class EndReason(StrEnum):
    """Why a worker had to be replaced, as counted and logged."""

    BOOT = "boot"
    CRASHED = "crashed"
    FROZEN = "frozen"
    LATE = "late"
    PROTOCOL = "protocol"
    CHANNEL = "channel"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessFigures:
    """
    What the kernel says about a process.

    ``cpu_percent`` is of one core, since the last reading, ``cpu_s`` since the start, ``started_unix_s``. ``max_files``
    is 0 where the system does not say.
    """

    cpu_percent: float
    rss_bytes: int
    open_files: int
    cpu_s: float = 0.0
    max_files: int = 0
    started_unix_s: float = 0.0

    def series(self) -> dict[str, float]:
        """Return them under the keys of ``stats.counters``."""
        return {
            "process_cpu_s": self.cpu_s,
            "process_resident_bytes": self.rss_bytes,
            "process_open_fds": self.open_files,
            "process_max_fds": self.max_files,
            "process_start_time_s": self.started_unix_s,
        }


class FiguresReader:
    """Reads the figures of one process; psutil keeps the CPU time of the last reading in its object."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._process: psutil.Process | None = None

    def read(self) -> ProcessFigures | None:
        """Return the figures, or None if the process has just ended or may not be looked at."""
        try:
            if self._process is None:
                self._process = psutil.Process(self._pid)
            with self._process.oneshot():
                times = self._process.cpu_times()
                return ProcessFigures(
                    cpu_percent=self._process.cpu_percent(interval=None),
                    rss_bytes=self._process.memory_info().rss,
                    open_files=self._open_files(self._process),
                    cpu_s=times.user + times.system,
                    max_files=_max_files(self._pid),
                    started_unix_s=self._process.create_time(),
                )
        except psutil.Error:
            return None

    @staticmethod
    def _open_files(process: psutil.Process) -> int:
        try:
            return process.num_fds()
        except psutil.AccessDenied:
            # After a change of user the kernel hides the supervisor's own descriptors from itself.
            return 0


class WorkerListener(Protocol):
    """Who is told what a worker says and when it is gone."""

    def worker_said(self, worker: "WorkerProcess", message: Message) -> None:
        """Take note of one message."""

    def worker_exited(self, worker: "WorkerProcess") -> None:
        """Take note that the process has ended and ``exit_code`` is known; called once."""


class WorkerProcess:
    """
    Starts one worker and keeps what is known about it.

    Args:
        command: Program and arguments.
        environment: Its environment, to which the number of the channel descriptor is added.
        inherited_fds: Descriptors it keeps, under the same numbers.
        loop: The supervisor's event loop.
        listener: Told of messages and of the end.

    Raises OSError when the process cannot be started.
    """

    def __init__(
        self,
        *,
        command: Sequence[str],
        environment: Mapping[str, str],
        inherited_fds: Sequence[int],
        loop: asyncio.AbstractEventLoop,
        listener: WorkerListener,
    ) -> None:
        self.state = WorkerState.STARTING
        self.slot: int | None = None
        self.generation = 0
        self.started_s = self.changed_s = loop.time()
        self.ready_s: float | None = None
        self.last_heartbeat_s = self.started_s
        self.heartbeat: Heartbeat | None = None
        self.readiness: Ready | None = None
        self.boot_failure: str | None = None
        self.exit_code: int | None = None
        self.figures: ProcessFigures | None = None
        self.end_reason = EndReason.CRASHED
        self._killed = False
        self._loop = loop
        self._listener = listener
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self._process = _start(command, environment, inherited_fds, theirs.fileno())
            except OSError:
                ours.close()
                raise
        self.pid = self._process.pid
        self._figures_reader = FiguresReader(self.pid)
        self._channel = Channel(ours, self._heard, self._channel_closed, loop)
        self._exit_fd = _watch_exit(self.pid)
        if self._exit_fd is not None:
            loop.add_reader(self._exit_fd, self.check_exit)

    @property
    def is_ready(self) -> bool:
        """Whether it serves its slot."""
        return self.state is WorkerState.READY

    @property
    def dropped(self) -> int:
        """Messages to this worker that its full channel did not take."""
        return self._channel.dropped

    @property
    def open_connections(self) -> int:
        """Connections it held at its last heartbeat."""
        return self.heartbeat.connections if self.heartbeat is not None else 0

    def snapshot(self) -> dict[str, float]:
        """Return its counters and gauges as of the last heartbeat, and the kernel's figures; empty before the first."""
        heartbeat = self.heartbeat
        if heartbeat is None:
            return {}
        figures = {} if self.figures is None else self.figures.series()
        return (
            heartbeat.counters
            | figures
            | {
                "active_connections": heartbeat.connections,
                "handshakes_in_flight": heartbeat.handshakes_in_flight,
                "loop_lag_s": heartbeat.loop_lag_s,
            }
        )

    def send(self, message: Message) -> bool:
        """Send a message; False if it was dropped."""
        return self._channel.send(message)

    def enter(self, state: WorkerState) -> None:
        """Note the new state and since when."""
        self.state = state
        self.changed_s = self._loop.time()

    def assign(self, assignment: Assign) -> None:
        """Give a spare its slot."""
        self.slot = assignment.slot
        self.generation = assignment.generation
        self.enter(WorkerState.ASSIGNED)
        self.send(assignment)

    def ready(self, readiness: Ready) -> None:
        """Note that it serves its slot."""
        self.readiness = readiness
        self.enter(WorkerState.READY)
        self.ready_s = self.last_heartbeat_s = self.changed_s

    def beat(self, heartbeat: Heartbeat) -> None:
        """Note a sign of life."""
        self.heartbeat = heartbeat
        self.last_heartbeat_s = self._loop.time()

    def drain(self, deadline_s: float) -> None:
        """Ask it to leave; whoever cannot leave by itself within ``deadline_s`` has to be killed."""
        if self.state not in (WorkerState.DRAINING, WorkerState.GONE):
            self.enter(WorkerState.DRAINING)
            self.send(Drain(deadline_s=deadline_s))

    def kill(self, reason: EndReason) -> None:
        """Send SIGKILL, which also ends a stopped process; the listener hears of the end in a moment."""
        if self.exit_code is not None:
            return
        if not self._killed:
            # The first reason is the cause; a channel that breaks afterwards is a consequence.
            self._killed = True
            self.end_reason = reason
        self._process.kill()

    def read_figures(self) -> None:
        """Ask the kernel for CPU, memory and descriptors."""
        # One that has just ended keeps the last ones: the CPU time it has used is part of the slot's total.
        self.figures = self._figures_reader.read() or self.figures

    def check_exit(self) -> None:
        """Notice the end of the process; called by the loop where it can watch, else now and then."""
        if self.state is WorkerState.GONE or self._process.poll() is None:
            return
        self.exit_code = self._process.returncode
        # Its last words may still wait in the socket: why it could not boot, its last counters.
        self._channel.receive_pending()
        self._channel.close()
        if self._exit_fd is not None:
            self._loop.remove_reader(self._exit_fd)
            os.close(self._exit_fd)
            self._exit_fd = None
        self.enter(WorkerState.GONE)
        self._listener.worker_exited(self)

    def _heard(self, message: Message) -> None:
        self._listener.worker_said(self, message)

    def _channel_closed(self, reason: str) -> None:
        # Without a channel a worker can neither be seen nor asked to stop. One that leaves by itself has a
        # moment to do so, or its exit code, which may say "could not boot", would be lost.
        if reason == END_OF_STREAM:
            self._loop.call_later(SPEECHLESS_GRACE_S, self.kill, EndReason.CHANNEL)
        else:
            self.kill(EndReason.PROTOCOL)


def _max_files(pid: int) -> int:
    try:
        limit = resource.prlimit(pid, resource.RLIMIT_NOFILE)[0]
    except (AttributeError, OSError):
        # No such call on this system, or the process belongs to somebody else.
        return 0
    return 0 if limit == resource.RLIM_INFINITY else limit


def _start(
    command: Sequence[str], environment: Mapping[str, str], inherited_fds: Sequence[int], channel_fd: int
) -> subprocess.Popen[bytes]:
    errors = log_fd()
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        # The supervisor's standard output carries one line of JSON for whoever started it, and nothing else.
        stdout=errors,
        stderr=errors,
        env={**environment, CHANNEL_FD_VARIABLE: str(channel_fd)},
        pass_fds=(*inherited_fds, channel_fd),
        # Ctrl-C in a terminal goes to every process of the group; workers are asked to leave by the
        # supervisor.
        process_group=0,
    )


def _watch_exit(pid: int) -> int | None:
    """Return a descriptor that is readable when the process has ended, None where the system has none."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None
