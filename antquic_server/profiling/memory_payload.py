"""
What runs inside a worker while its memory is profiled.

This file is read as text and executed in the worker, on a thread and in a namespace of its own, where ``track`` is
called. It needs nothing but memray. Everything depends on one connection to whoever asked: when that ends, for whatever
reason, so does the tracking, and the capture is removed. It ends when its time is up in any case.
"""

import shutil
import socket
import tempfile
from contextlib import suppress
from pathlib import Path

__all__ = ["track"]

CONNECT_TIMEOUT_S = 5.0

COLLECT_S = 120.0
"""How long the capture is kept for whoever asked to copy it."""


def track(port: int, token: str, seconds: float, small_objects: bool) -> None:
    """
    Track allocations for some seconds, or until the asker, on ``port`` of this machine, goes away.

    Lines to the asker begin with ``token``: ``tracking FILE``, then ``done``, or ``failed`` and why.
    """
    with socket.create_connection(("127.0.0.1", port), timeout=CONNECT_TIMEOUT_S) as asker:
        directory = tempfile.mkdtemp(prefix="antquic-memory-")
        try:
            _track(asker, token, seconds, small_objects, str(Path(directory) / "capture.bin"))
        except Exception as error:  # noqa: BLE001 - a worker must not suffer from being looked at
            with suppress(OSError):
                asker.sendall(f"{token} failed {type(error).__name__} {error!r}\n".encode())
        finally:
            shutil.rmtree(directory, ignore_errors=True)


def _track(asker: socket.socket, token: str, seconds: float, small_objects: bool, capture: str) -> None:
    import memray  # noqa: PLC0415 - where it is missing the asker is to hear of it

    with memray.Tracker(capture, trace_python_allocators=small_objects):
        asker.sendall(f"{token} tracking {capture}\n".encode())
        _hold(asker, seconds)
    asker.sendall(f"{token} done\n".encode())
    _hold(asker, COLLECT_S)


def _hold(asker: socket.socket, seconds: float) -> None:
    """Return when the asker says something or has gone, or when the time is up."""
    asker.settimeout(seconds)
    with suppress(OSError):
        asker.recv(1)
