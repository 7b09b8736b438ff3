"""Our node as a child process: start it, ask its admin endpoint, look after its log, stop it."""

import http.client
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from prometheus_client.parser import text_string_to_metric_families

from support.json_lines import JsonLineProcess

__all__ = ["REPOSITORY", "Node", "StartNode", "node_environment", "running_node"]

REPOSITORY = Path(__file__).resolve().parents[2]
READY_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0
ADMIN_TIMEOUT_S = 10.0
TRACEBACK = "Traceback (most recent call last)"


def node_environment(*, traced: bool = True) -> dict[str, str]:
    """
    Return this process's environment with the repository in front of the module path.

    Without ``traced`` the processes are not part of a coverage run, which makes them half as fast as a user's.
    """
    path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]))
    kept = {name: value for name, value in os.environ.items() if traced or not name.startswith("COVERAGE_")}
    return {**kept, "PYTHONPATH": path}


class Node:
    """
    One running node on free ports of 127.0.0.1, ready to serve.

    ``ready`` is its ready line, ``log_path`` what it writes to standard error, ``identity_path`` its key file.
    """

    def __init__(self, directory: Path, arguments: Sequence[str], *, traced: bool = True) -> None:
        self.log_path = directory / "node.log"
        self.identity_path = directory / "node.pem"
        command = [sys.executable, "-m", "antquic_server", "serve", "--listen", "127.0.0.1:0"]
        command += ["--admin", "127.0.0.1:0", "--identity", str(self.identity_path), *arguments]
        self._process = JsonLineProcess(
            command, environment=node_environment(traced=traced), stderr_path=self.log_path, directory=directory
        )
        try:
            self.ready = self._process.wait_for(
                lambda message: message.get("event") == "ready", timeout_s=READY_TIMEOUT_S, what="ready line"
            )
        except BaseException:
            self.kill()
            raise

    @property
    def pid(self) -> int:
        """Process id of the supervisor."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the supervisor has not ended."""
        return self._process.running

    @property
    def port(self) -> int:
        """UDP port of the first listen address."""
        return int(str(self.ready["listen"][0]).rpartition(":")[2])

    @property
    def address(self) -> str:
        """First listen address, ``127.0.0.1:PORT``."""
        return f"127.0.0.1:{self.port}"

    @property
    def peer_id(self) -> str:
        """The node's peer id, 64 hex digits."""
        return str(self.ready["peer_id"])

    @property
    def admin(self) -> str:
        """URL of the admin endpoint."""
        return str(self.ready["admin"])

    @property
    def worker_pids(self) -> list[int]:
        """Process ids of the workers that serve a slot now, in slot order."""
        return [int(worker["pid"]) for worker in self.status()["workers"] if worker["pid"] is not None]

    @property
    def public_key_info(self) -> bytes:
        """The node's public key as the DER ``SubjectPublicKeyInfo`` it presents."""
        key = load_pem_private_key(self.identity_path.read_bytes(), password=None)
        return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    def get(self, path: str) -> tuple[int, bytes]:
        """Return status code and body of one request to the admin endpoint."""
        connection = http.client.HTTPConnection(urlsplit(self.admin).netloc, timeout=ADMIN_TIMEOUT_S)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def status(self) -> dict[str, Any]:
        """Return ``/status``."""
        code, body = self.get("/status")
        assert code == 200, body
        status: dict[str, Any] = json.loads(body)
        return status

    def healthy(self) -> bool:
        """Whether ``/healthz`` says that every slot is served."""
        return self.get("/healthz")[0] == 200

    def peer(self, peer_id: str) -> list[dict[str, Any]]:
        """Return the connections that ``/peers/<peer_id>`` knows of a peer (64 hex digits); none is an empty list."""
        code, body = self.get(f"/peers/{peer_id}")
        assert code in (200, 404), body
        connections: list[dict[str, Any]] = json.loads(body)["connections"]
        assert bool(connections) == (code == 200), body
        return connections

    def total(self, name: str) -> float:
        """Return one metric summed over workers and labels; 0 while nobody has reported it yet."""
        return sum(value for key, value in self.metrics().items() if key.partition("{")[0] == name)

    def metrics(self) -> dict[str, float]:
        """Return ``/metrics`` summed over workers: ``name`` or ``name{label="value",…}`` without ``worker``."""
        code, body = self.get("/metrics")
        assert code == 200, body
        sums: dict[str, float] = {}
        for family in text_string_to_metric_families(body.decode()):
            for sample in family.samples:
                labels = sorted((name, value) for name, value in sample.labels.items() if name != "worker")
                suffix = ",".join(f'{name}="{value}"' for name, value in labels)
                key = f"{sample.name}{{{suffix}}}" if suffix else sample.name
                sums[key] = sums.get(key, 0.0) + sample.value
        return sums

    def log(self) -> str:
        """Return everything the node has logged."""
        return self.log_path.read_text(errors="replace")

    def describe(self) -> str:
        """Return command, exit status and the tail of the log, for the message of a failing test."""
        return self._process.describe()

    def stop(self) -> int:
        """Ask the node to end and return its exit status; late is a failure."""
        return self._process.stop(timeout_s=STOP_TIMEOUT_S)

    def kill(self) -> None:
        """End the supervisor with force; its workers leave when they see it gone."""
        self._process.process.kill()
        self._process.wait(timeout_s=STOP_TIMEOUT_S)


@contextmanager
def running_node(
    directory: Path,
    *,
    workers: int = 1,
    echo: bool = False,
    settings: Sequence[str] = (),
    arguments: Sequence[str] = (),
    traced: bool = True,
) -> Iterator[Node]:
    """
    Run a node inside the ``with`` block; its files go to ``directory``.

    Args:
        directory: An empty directory.
        workers: How many.
        echo: Whether streams and datagrams come back.
        settings: ``section.key=VALUE`` each, in TOML syntax.
        arguments: More of the command line.
        traced: False where the node's own speed is what a test is about.

    Raises:
        AssertionError: It did not become ready, did not end cleanly, or logged a traceback.
    """
    options = ["--workers", str(workers), *(["--echo"] if echo else []), *arguments]
    for setting in settings:
        options += ["--set", setting]
    node = Node(directory, options, traced=traced)
    try:
        yield node
    except BaseException:
        # The test has failed already: end the node, and let the test's own error be the one that is told.
        node.kill()
        raise
    status = node.stop()
    assert TRACEBACK not in node.log(), node.describe()
    assert status == 0, node.describe()


# What the fixture ``start_node`` hands out: ``running_node`` with the directory filled in.
StartNode = Callable[..., Node]
