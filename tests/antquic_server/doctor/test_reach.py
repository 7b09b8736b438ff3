"""Looking at a node from outside: a real node here, and everything that may answer in its place."""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from antquic_server.doctor import reach as module
from antquic_server.doctor.finding import Finding, Verdict
from antquic_server.doctor.reach import REACH_CHECKS, reach, resolve
from antquic_server.errors import ConfigurationError
from antquic_server.protocol.version_negotiation import ID_BYTES
from support.node import StartNode

Answer = Callable[[bytes], bytes]


def _findings(target: str) -> dict[str, Finding]:
    return {result.check.name: result.finding for result in reach(target)}


@contextmanager
def _answering(answer: Answer) -> Iterator[str]:
    """A UDP socket that answers every datagram; yields its address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(0.1)
        ended = threading.Event()

        def serve() -> None:
            while not ended.is_set():
                try:
                    data, sender = sock.recvfrom(2000)
                except TimeoutError:
                    continue
                if reply := answer(data):
                    sock.sendto(reply, sender)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"127.0.0.1:{sock.getsockname()[1]}"
        finally:
            ended.set()
            thread.join()


def _offering(version: bytes) -> Answer:
    """A server that negotiates this version and says no more."""

    def answer(data: bytes) -> bytes:
        destination, source = data[6 : 6 + ID_BYTES], data[7 + ID_BYTES : 7 + 2 * ID_BYTES]
        return b"\x80\0\0\0\0" + bytes((ID_BYTES,)) + source + bytes((ID_BYTES,)) + destination + version

    return answer


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait for what will not come."""
    monkeypatch.setattr(module, "PROBE_WAIT_S", 0.05)
    monkeypatch.setattr(module, "DIAL_TIMEOUT_S", 0.3)


@pytest.mark.end_to_end
def test_a_real_node_is_reached(start_node: StartNode) -> None:
    """Versions, handshake, observed address and a port of the relay."""
    node = start_node(settings=['relay.allowed_targets=["127.0.0.0/8"]'])

    found = _findings(node.address)
    assert {name: each.verdict for name, each in found.items()} == dict.fromkeys(
        [check.name for check in REACH_CHECKS], Verdict.OK
    )
    assert found["reach-versions"].found == "it speaks QUIC versions 0x1"
    assert node.peer_id in found["reach-handshake"].found
    assert "we are seen at 127.0.0.1:" in found["reach-address"].found
    assert "a handshake through its port " in found["reach-relay"].found


@pytest.mark.end_to_end
def test_a_node_without_relay_says_so(start_node: StartNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be meant so."""
    monkeypatch.setattr(module, "RELAY_WAIT_S", 1.0)
    node = start_node(settings=["relay.enabled=false"])

    found = _findings(node.address)
    assert found["reach-handshake"].verdict is Verdict.OK
    assert found["reach-relay"].verdict is Verdict.NOTE
    assert "no relay session" in found["reach-relay"].found


def test_a_closed_port_is_found(impatient: None) -> None:
    """The machine answers for it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{sock.getsockname()[1]}"
    found = _findings(address)

    assert "nobody listens there" in found["reach-versions"].found
    assert found["reach-handshake"].verdict is Verdict.FAULT
    assert not found["reach-address"].known
    assert not found["reach-relay"].known


@pytest.mark.parametrize("answer", [lambda _: b"", lambda _: b"nonsense"])
def test_silence_and_nonsense_are_found(impatient: None, answer: Answer) -> None:
    """A firewall that drops, or another program."""
    with _answering(answer) as address:
        found = _findings(address)

    assert found["reach-versions"].verdict is Verdict.FAULT
    assert "no answer to 3 probes" in found["reach-versions"].found
    assert found["reach-handshake"].verdict is Verdict.FAULT


@pytest.mark.parametrize(("version", "verdict"), [(b"\0\0\0\1", Verdict.OK), (b"\xff\0\0\x1d", Verdict.FAULT)])
def test_the_version_must_be_ours(impatient: None, version: bytes, verdict: Verdict) -> None:
    """Another QUIC server may not speak it."""
    with _answering(_offering(version)) as address:
        found = _findings(address)

    assert found["reach-versions"].verdict is verdict
    assert found["reach-handshake"].verdict is Verdict.FAULT


def test_an_address_without_a_route_is_found() -> None:
    """The system's own words are told."""
    finding = asyncio.run(asyncio.to_thread(module._versions, resolve("255.255.255.255:9")))

    assert finding.verdict is Verdict.FAULT
    assert finding.found.startswith("255.255.255.255:9: ")


def test_names_are_looked_up() -> None:
    """Unlike those of the configuration: there is a user to wait for the resolver."""
    assert resolve("localhost:10000").port == 10_000
    assert str(resolve("[2001:db8::1]:443")) == "[2001:db8::1]:443"


@pytest.mark.parametrize(
    "text", ["", "host", "host:", ":1", "host:0", "host:65536", "host:x", "no-such-host.invalid:1"]
)
def test_what_is_no_address_is_a_mistake(text: str) -> None:
    """With an example of what was expected."""
    with pytest.raises(ConfigurationError, match="expected HOST:PORT, like"):
        resolve(text)
