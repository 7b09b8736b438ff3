"""Which node a command is meant for: its socket, or the admin endpoint that knows the socket."""

import argparse
from pathlib import Path

import pytest

from antquic_server.commands import control_client as module
from antquic_server.commands.control_client import add_control_arguments, control_client
from antquic_server.errors import ControlRefusedError


def test_path_comes_from_the_node_unless_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node without one says so in its log."""
    parser = argparse.ArgumentParser()
    add_control_arguments(parser)
    monkeypatch.setattr(module, "fetch_status", lambda host, port: {"control": f"/run/{host}-{port}.sock"})

    assert control_client(parser.parse_args(["--control", "/a.sock"])).path == Path("/a.sock")
    found = control_client(parser.parse_args(["--admin", "http://127.0.0.1:5"]))
    assert found.path == Path("/run/127.0.0.1-5.sock")
    monkeypatch.setattr(module, "chosen_admin", lambda option: ("::1", 6) if option is None else None)
    assert control_client(parser.parse_args([])).path == Path("/run/::1-6.sock")
    monkeypatch.setattr(module, "fetch_status", lambda _host, _port: {"control": None})
    with pytest.raises(ControlRefusedError, match="has no control socket"):
        control_client(parser.parse_args([]))
