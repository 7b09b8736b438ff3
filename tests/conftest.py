"""Fixtures every test may ask for: foreign peers (or the reason why not), our node, a miniature NAT."""

import importlib.util
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from support.ant_quic import find_program
from support.client_process import OPENSSL_CLIENT, QH3_CLIENT, HoldClient, RunClient, held_client, run_client
from support.forwarder import StartForwarder, UdpForwarder
from support.node import Node, StartNode, running_node
from support.openssl_client import find_libraries
from support.require import require, slow_tests_wanted

MAX_UNSTEADY = 3
"""Tests of one run that may fail once and pass then; of some 6000 on two shared cores, none or one do."""


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker for tests that take long, and let signals end what is asked to end."""
    config.addinivalue_line("markers", "slow: runs only in CI and with ANTQUIC_SLOW=1")
    # Whoever runs the tests in the background may have these ignored, and every process they start would, too.
    ends: dict[signal.Signals, Any] = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGQUIT: signal.SIG_DFL,
        signal.SIGHUP: signal.SIG_DFL,
    }
    for number, usual in ends.items():
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """
    Name the tests that passed at the second try only.

    CI grants one (``--reruns 1``), since its machine is shared: a test of real processes that got no processor for
    seconds says nothing about them. What needs it is listed, and more than a few fail the run all the same.
    """
    unsteady = terminalreporter.stats.get("rerun", [])
    if unsteady:
        terminalreporter.section("unsteady tests: each is a bug to be found, here or in the node")
        for report in unsteady:
            crash = getattr(report.longrepr, "reprcrash", None)
            reason = crash.message.splitlines()[0] if crash else str(report.longrepr).splitlines()[-1]
            terminalreporter.write_line(f"{report.nodeid} ({report.when}): {reason}")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run in which too many tests needed a second try."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    unsteady = reporter.stats.get("rerun", []) if isinstance(reporter, pytest.TerminalReporter) else []
    if len(unsteady) > MAX_UNSTEADY and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave slow tests out where nobody asked for them."""
    if item.get_closest_marker("slow") is not None and not slow_tests_wanted():
        pytest.skip("slow: set ANTQUIC_SLOW=1")


@pytest.fixture
def root() -> None:
    """Only root can become somebody else, or make network namespaces."""
    require(os.geteuid() == 0, "needs root")


@pytest.fixture
def start_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartNode]:
    """Return a function that starts a node (arguments of ``running_node``); all of them end with the test."""
    with ExitStack() as stack:

        def start(**options: Any) -> Node:
            directory = tmp_path_factory.mktemp("node")
            return stack.enter_context(running_node(directory, **options))

        yield start


@pytest.fixture(scope="module")
def echo_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """One node with two workers that echoes and knows the clients' ALPN, shared by the tests of a module."""
    directory, settings = tmp_path_factory.mktemp("node"), ['endpoint.alpn=["test"]']
    with running_node(directory, workers=2, echo=True, settings=settings) as node:
        yield node


@pytest.fixture
def start_forwarder() -> Iterator[StartForwarder]:
    """Return a function that puts a miniature NAT before a node; all of them end with the test."""
    with ExitStack() as stack:
        yield lambda node: stack.enter_context(UdpForwarder(("127.0.0.1", node.port)))


@pytest.fixture(scope="session")
def ant_quic_program() -> Path:
    """The real ``ant-quic``."""
    return _peer_program("ant-quic")


@pytest.fixture(scope="session")
def e2e_test_node_program() -> Path:
    """The real ``e2e-test-node``."""
    return _peer_program("e2e-test-node")


def _peer_program(name: str) -> Path:
    program = find_program(name)
    require(program, f"{name} is not built: run `make peers`")
    assert program is not None
    return program


@pytest.fixture(scope="session")
def openssl_client() -> RunClient:
    """Run the OpenSSL 3.5 client to its end: ``openssl_client(port, "--groups", "MLKEM768")``."""
    _require_openssl()
    return partial(run_client, OPENSSL_CLIENT)


@pytest.fixture(scope="session")
def held_openssl_client() -> HoldClient:
    """Keep the OpenSSL 3.5 client connected inside a ``with`` block; arguments as for ``openssl_client``."""
    _require_openssl()
    return partial(held_client, OPENSSL_CLIENT)


def _require_openssl() -> None:
    require(find_libraries(sys.path), "OpenSSL 3.5 is missing: install the wheel psycopg-binary")


@pytest.fixture(scope="session")
def qh3_client() -> RunClient:
    """Run the qh3 client to its end: ``qh3_client(port, "--echo-bytes", "1000")``."""
    require(importlib.util.find_spec("qh3"), "the wheel qh3 is missing")
    return partial(run_client, QH3_CLIENT)
