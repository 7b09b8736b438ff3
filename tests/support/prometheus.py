"""Debian's Prometheus and promtool: a server that scrapes nodes on loopback, and the checks of its command line."""

import json
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import psutil

from support.node import REPOSITORY, Node
from support.require import require
from support.waiting import wait_until

__all__ = ["MONITORING", "Prometheus", "exposition", "promtool", "running_prometheus"]

MONITORING = REPOSITORY / "deploy" / "monitoring"
SCRAPE_INTERVAL_S = 0.5
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 15.0
REQUEST_TIMEOUT_S = 10.0


def promtool(*arguments: str | Path, given: bytes = b"", directory: Path = MONITORING) -> str:
    """
    Run promtool in ``directory`` and return what it writes.

    Raises:
        AssertionError: It has found something.
    """
    program = shutil.which("promtool")
    require(program, "promtool is missing: Debian's package prometheus has it")
    assert program is not None
    done = subprocess.run(
        [program, *map(str, arguments)], input=given, capture_output=True, cwd=directory, timeout=60, check=False
    )
    output = (done.stdout + done.stderr).decode()
    assert done.returncode == 0, output
    return output


class Prometheus:
    """A running server; ``url`` is where it answers."""

    def __init__(self, process: "subprocess.Popen[bytes]", log_path: Path) -> None:
        self._process = process
        self._log_path = log_path
        self.url = wait_until(self._listening, timeout_s=START_TIMEOUT_S, what="listening Prometheus")

    def _listening(self) -> str:
        assert self._process.poll() is None, self._log_path.read_text()
        for connection in psutil.Process(self._process.pid).net_connections("tcp4"):
            if connection.status == psutil.CONN_LISTEN:
                return f"http://127.0.0.1:{connection.laddr.port}"
        return ""

    def ask(self, path: str, **parameters: str) -> Any:
        """Return ``data`` of an answer of the HTTP API; HTTPError for a query that is wrong."""
        query = f"?{urlencode(parameters)}" if parameters else ""
        with urlopen(f"{self.url}/api/v1/{path}{query}", timeout=REQUEST_TIMEOUT_S) as response:
            answer = json.load(response)
        assert answer["status"] == "success", answer
        return answer["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the series that an expression yields now."""
        found: list[dict[str, Any]] = self.ask("query", query=expression)["result"]
        return found

    def targets(self) -> list[dict[str, Any]]:
        """Return what is scraped, with health and last error."""
        found: list[dict[str, Any]] = self.ask("targets")["activeTargets"]
        return found


@contextmanager
def running_prometheus(directory: Path, nodes: Sequence[Node]) -> Iterator[Prometheus]:
    """
    Run a Prometheus inside the ``with`` block that scrapes ``nodes`` and has our alert rules.

    Its configuration is the example of ``deploy/monitoring``, with other targets and a shorter interval; its data is in
    ``directory``.
    """
    program = shutil.which("prometheus")
    require(program, "prometheus is missing: Debian's package of that name has it")
    assert program is not None
    targets = ", ".join(f'"{node.admin.removeprefix("http://")}"' for node in nodes)
    example = (MONITORING / "prometheus.yml").read_text()
    configuration = example.replace('"127.0.0.1:10001"', targets).replace("15s", f"{int(SCRAPE_INTERVAL_S * 1000)}ms")
    assert configuration.count(targets) == 1
    (directory / "prometheus.yml").write_text(configuration)
    shutil.copy(MONITORING / "antquic-server.rules.yml", directory)
    log_path = directory / "prometheus.log"
    command = [program, "--config.file=prometheus.yml", "--storage.tsdb.path=data", "--web.listen-address=127.0.0.1:0"]
    with log_path.open("wb") as log:
        process = subprocess.Popen(command, cwd=directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield Prometheus(process, log_path)
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def exposition(node: Node) -> bytes:
    """Return the page of a node as Prometheus gets it."""
    code, body = node.get("/metrics")
    assert code == 200, body
    return body
