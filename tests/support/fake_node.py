"""
A node whose workers are ``fake_worker``: the real supervisor in a process of its own.

Run as a program, the arguments are settings (``section.key=VALUE``). Imported, ``FakeNode`` starts that program.
"""

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from antquic_server.config.load import load_settings
from antquic_server.errors import AntQuicError
from antquic_server.identity import identity_from_seed
from antquic_server.logs import configure_logging
from antquic_server.supervisor.loop import run_supervisor
from support.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
FAKE_WORKER = Path(__file__).with_name("fake_worker.py")
PATIENCE_S = 30.0
"""Longer than a start or an end takes on a machine that does other things as well."""
DEFAULTS = ("endpoint.listen=['127.0.0.1:0']", "admin.listen='127.0.0.1:0'", "endpoint.workers=2")


class FakeNode:
    """
    Starts the node; as a context manager, ends it by force at the end of the block.

    ``ready`` is the JSON line, ``errors`` what came on stderr by now.
    """

    def __init__(
        self, settings: Sequence[str] = (), *, mode: str = "", environment: Mapping[str, str] | None = None
    ) -> None:
        self.errors: list[str] = []
        self.output: list[str] = []
        paths = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
        self.process = subprocess.Popen(
            [sys.executable, __file__, *DEFAULTS, *settings],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": paths, "FAKE_WORKER": mode, **(environment or {})},
        )
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self._streams = (self.process.stdout, self.process.stderr)
        self._readers = [
            threading.Thread(target=lines.extend, args=(stream,), daemon=True)
            for stream, lines in zip(self._streams, (self.output, self.errors), strict=True)
        ]
        for reader in self._readers:
            reader.start()

    def __enter__(self) -> "FakeNode":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.wait()

    @property
    def ready(self) -> dict[str, Any]:
        """The ready line; waits for it."""
        wait_until(lambda: self.output or self.process.poll() is not None, timeout_s=PATIENCE_S, what="ready line")
        assert self.output, "".join(self.errors)
        facts: dict[str, Any] = json.loads(self.output[0])
        return facts

    def ask(self, path: str) -> tuple[int, str]:
        """Return status code and body of one admin request."""
        client = http.client.HTTPConnection(self.ready["admin"].removeprefix("http://"), timeout=5)
        try:
            client.request("GET", path)
            response = client.getresponse()
            return response.status, response.read().decode()
        finally:
            client.close()

    def status(self) -> dict[str, Any]:
        """Return the document of ``/status``."""
        document: dict[str, Any] = json.loads(self.ask("/status")[1])
        return document

    def worker_pids(self) -> list[int]:
        """Return the process ids of the ready workers, by slot."""
        return [row["pid"] for row in self.status()["workers"] if row["state"] == "ready"]

    def wait_for_slots(self, count: int, *, besides: Sequence[int] = (), timeout_s: float = PATIENCE_S) -> list[int]:
        """Return the ready workers' process ids once there are ``count``, none of them in ``besides``."""

        def look() -> list[int]:
            pids = self.worker_pids()
            return pids if len(pids) == count and not set(pids) & set(besides) else []

        return wait_until(look, timeout_s=timeout_s, what=f"{count} ready workers")

    def signal(self, number: signal.Signals) -> None:
        """Send the supervisor a signal."""
        self.process.send_signal(number)

    def wait(self, timeout_s: float = PATIENCE_S) -> int:
        """Return the exit code; everything written is in ``output`` and ``errors`` then."""
        exit_code = self.process.wait(timeout_s)
        for reader, stream in zip(self._readers, self._streams, strict=True):
            reader.join(timeout_s)
            stream.close()
        return exit_code


def main(arguments: Sequence[str]) -> int:
    """Run the supervisor as the command line does; ``$ANTQUIC_CONFIG`` names a file."""
    read = partial(load_settings, None, overrides=arguments, environment=os.environ)
    try:
        settings = read()
        configure_logging(settings.log, process="supervisor", slot=None)
        return run_supervisor(
            settings,
            identity_from_seed(bytes(32)),
            (b"certificate", b"key"),
            echo=False,
            reload=read,
            worker_command=(sys.executable, str(FAKE_WORKER)),
        )
    except AntQuicError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
