"""
Starts a worker process: event loop, channel, and the wait for a slot.

Runs in the child only. Everything expensive, above all imports, happens before the slot is assigned, so that a spare
takes over within milliseconds.
"""

import asyncio
import contextlib
import gc
import os
import resource
import signal
import socket
import sys

import uvloop

from antquic_server.config.model import LogSettings, from_plain
from antquic_server.errors import ExitCode
from antquic_server.ipc.messages import Assign
from antquic_server.logs import configure_logging, get_logger
from workers.control import Control
from workers.orphan import CHANNEL_VARIABLE
from workers.surroundings import Hooks
from workers.worker import Worker, build_worker

GC_THRESHOLD = 50_000
"""Container objects made and not freed between two looks at the youngest: those of about a hundred connections."""

log = get_logger(__name__)


def main() -> int:
    """Run a worker until the supervisor sends it away or is gone; returns the exit code."""
    value = os.environ.get(CHANNEL_VARIABLE, "")
    if not value.isdigit():
        sys.stderr.write("antquic-server: error: workers are started by the supervisor (antquic-server serve)\n")
        return ExitCode.USAGE
    # A terminal's interrupt goes to the whole process group; when to stop is the supervisor's decision.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Until the settings come with the slot.
    configure_logging(LogSettings(), process="worker", slot=None)
    _tame_garbage_collector()
    _take_descriptors()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(int(value)))


def _tame_garbage_collector() -> None:
    """
    Keep the cyclic collector from stopping the loop.

    Modules are never garbage, so they are left out of every collection. Connections break their own cycles
    (``NodeQuicConnection.dispose``), which leaves little to find, so looking every 700 allocations is too often.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, 10, 10)


def _take_descriptors() -> None:
    """Allow as many descriptors as the system lets us: a relay session is a socket, and the default is often 1024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # macOS says "infinity" and means less: what it does not take leaves things as they were.
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _run(channel_fd: int) -> int:
    loop = asyncio.get_running_loop()
    stopped: asyncio.Future[int] = loop.create_future()
    sock = socket.socket(fileno=channel_fd)
    Control(sock, pid=os.getpid(), build=_build, stopped=stopped, loop=loop)
    return await stopped


def _build(assign: Assign, control: Control) -> Worker:
    settings = from_plain(assign.settings)
    configure_logging(settings.log, process="worker", slot=assign.slot)
    if assign.cpu >= 0:
        try:
            os.sched_setaffinity(0, {assign.cpu})
        except OSError as error:
            # A speed matter only; the node works without.
            log.warning("cannot pin to core", cpu=assign.cpu, error=str(error))
    hooks = Hooks(peer_up=control.peer_up, peer_down=control.peer_down, tell_hub=control.tell_hub)
    return build_worker(assign, hooks, asyncio.get_running_loop())
