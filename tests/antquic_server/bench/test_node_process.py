"""Servers under measurement."""

import os
import socket

import psutil
import pytest

from antquic_server.bench.node_process import running_node, running_stock_server
from antquic_server.errors import CannotBootError

pytestmark = pytest.mark.end_to_end


def test_node_runs_with_one_worker_and_is_gone_afterwards() -> None:
    """The measured process is the worker, a grandchild of ours, and nothing is left behind."""
    with running_node() as server:
        worker = psutil.Process(server.pid)
        supervisor = worker.ppid()
        assert psutil.Process(supervisor).ppid() == os.getpid()
        assert server.cpu_s() > 0

    assert not psutil.pid_exists(supervisor)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_stock_server_holds_the_port_it_names(loop: str) -> None:
    """Its port is taken while it runs."""
    with (
        running_stock_server(loop) as server,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe,
        pytest.raises(OSError, match="in use"),
    ):
        probe.bind(("127.0.0.1", server.port))


def test_node_that_cannot_boot_is_reported() -> None:
    """A wrong setting ends the benchmark with a reason, not with a hang."""
    with pytest.raises(CannotBootError, match="exit code"), running_node("--set", "endpoint.max_connections=-1"):
        pass
