"""What workers say about traces goes to the desk of traces; everything they say otherwise, to the fleet."""

from antquic_server.ipc.log_messages import QlogEnded, QlogWritten
from antquic_server.ipc.messages import Message, Ready
from antquic_server.supervisor.process import WorkerListener, WorkerProcess
from antquic_server.supervisor.qlog_desk import QlogDesk

__all__ = ["TraceListener"]


class TraceListener:
    """Stands between a worker and the fleet; a ``WorkerListener``."""

    def __init__(self, fleet: WorkerListener, traces: QlogDesk) -> None:
        self._fleet = fleet
        self._traces = traces

    def worker_said(self, worker: WorkerProcess, message: Message) -> None:
        """Pass one message on."""
        if isinstance(message, QlogWritten | QlogEnded):
            if worker.slot is not None:
                self._traces.heard(worker.slot, worker.generation, message)
            return
        self._fleet.worker_said(worker, message)
        if isinstance(message, Ready) and worker.is_ready:
            self._traces.slot_ready(message.slot)

    def worker_exited(self, worker: WorkerProcess) -> None:
        """Pass on that a worker has ended."""
        if worker.slot is not None:
            self._traces.slot_down(worker.slot)
        self._fleet.worker_exited(worker)
