"""
A pytest plugin that puts our connection class in the place of aioquic's, before any of its tests import it.

Loaded by ``test_suite.py`` into the process that runs aioquic's own tests. ``ANTQUIC_SUITE_PROFILE`` selects what the
class does: ``stock`` leaves our options at their default, under which it must behave as aioquic's; ``post_quantum``
gives every connection our TLS, with the X.509 profile on both sides.
"""

import fcntl
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aioquic.asyncio.client
import aioquic.asyncio.protocol
import aioquic.asyncio.server
import aioquic.h0.connection
import aioquic.h3.connection
import aioquic.quic.connection
import pytest

from antquic_server.pqc.select import load_provider
from antquic_server.protocol.profiles import POST_QUANTUM_GROUPS, HandshakeProfile
from antquic_server.protocol.seam import connection as seam
from antquic_server.protocol.seam.options import ConnectionOptions
from antquic_server.protocol.seam.tls_context import TlsOptions

PROFILE_VARIABLE = "ANTQUIC_SUITE_PROFILE"

FIXED_PORT_TESTS = frozenset({"test_connect_local_port"})
"""Tests of aioquic's that bind a port by number, and so disturb each other in two runs at a time."""

_MODULES = (
    aioquic.quic.connection,
    aioquic.asyncio.client,
    aioquic.asyncio.protocol,
    aioquic.asyncio.server,
    aioquic.h0.connection,
    aioquic.h3.connection,
)


def replace_connection_class() -> None:
    """Bind ``QuicConnection`` to our class wherever aioquic itself holds the name."""
    for module in _MODULES:
        if "QuicConnection" in vars(module):
            vars(module)["QuicConnection"] = seam.NodeQuicConnection


def post_quantum_options() -> ConnectionOptions:
    """Return options under which client and server meet with a hybrid share and an X.509 certificate."""
    return ConnectionOptions(
        tls=TlsOptions(
            pqc=load_provider("cryptography"),
            client_profile=HandshakeProfile.X509,
            client_groups=POST_QUANTUM_GROUPS,
        )
    )


def pytest_collection_modifyitems() -> None:
    """
    Check that the tests hold our class, and let the helper that starts a lone client send a longer first flight.

    aioquic's helper insists on one datagram; a hybrid ClientHello takes two. Some forty tests start with it and are
    about something else, so adjusting it keeps them in the run.
    """
    module: Any = sys.modules["tests.test_connection"]
    if module.QuicConnection is not seam.NodeQuicConnection:
        raise pytest.UsageError("aioquic's tests were imported before the plugin could replace the class")
    if os.environ.get(PROFILE_VARIABLE) != "post_quantum":
        return

    def create_standalone_client(_: object, **options: Any) -> Any:
        configuration = module.QuicConfiguration(is_client=True, quic_logger=module.QuicLogger(), **options)
        client = module.QuicConnection(configuration=configuration)
        client._ack_delay = 0
        client.connect(module.SERVER_ADDR, now=time.time())
        assert module.drop(client) in (1, 2)
        return client

    module.create_standalone_client = create_standalone_client


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Have tests with a port of their own wait for each other, whoever runs them on this machine."""
    if item.name not in FIXED_PORT_TESTS:
        yield
        return
    with (Path(tempfile.gettempdir()) / f"antquic-aioquic-suite-{os.getuid()}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


replace_connection_class()
if os.environ.get(PROFILE_VARIABLE) == "post_quantum":
    vars(seam)["DEFAULT_OPTIONS"] = post_quantum_options()
