"""What workers say about traces does not reach the fleet, and everything else does."""

from types import SimpleNamespace
from typing import Any

from antquic_server.ipc.log_messages import QlogEnded
from antquic_server.ipc.messages import Drained, Ready
from antquic_server.supervisor.traces import TraceListener


class Recorder:
    """Notes every call."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: self.calls.append((name, *arguments))


ENDED = QlogEnded(capture=1, refused=0, error="")
READY = Ready(slot=2, generation=3, pqc_provider="x", offloads=[])


def test_messages_go_where_they_belong() -> None:
    """A worker without a slot has nothing to say about traces; one that is ready joins in."""
    fleet, desk = Recorder(), Recorder()
    listener = TraceListener(fleet, desk)  # type: ignore[arg-type]
    worker: Any = SimpleNamespace(slot=2, generation=3, is_ready=True)
    spare: Any = SimpleNamespace(slot=None, generation=0, is_ready=False)

    listener.worker_said(worker, ENDED)
    listener.worker_said(spare, ENDED)
    listener.worker_said(worker, READY)
    listener.worker_said(spare, READY)
    listener.worker_said(worker, Drained(connections=1))
    listener.worker_exited(worker)
    listener.worker_exited(spare)

    assert desk.calls == [("heard", 2, 3, ENDED), ("slot_ready", 2), ("slot_down", 2)]
    assert fleet.calls == [
        ("worker_said", worker, READY),
        ("worker_said", spare, READY),
        ("worker_said", worker, Drained(connections=1)),
        ("worker_exited", worker),
        ("worker_exited", spare),
    ]
