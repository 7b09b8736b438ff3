"""Tests of ``workers.endpoint`` with a whole worker on a loopback socket, in the test's own process."""

import asyncio
import os
import socket
from typing import Any

import pytest
from aioquic.quic.events import HandshakeCompleted

from antquic_server.net.udp import PathAddress
from antquic_server.protocol.address import SocketAddress
from antquic_server.protocol.codepoints import ApplicationErrorCode, NamedGroup, TransportErrorCode
from antquic_server.protocol.frames import AddAddress
from antquic_server.protocol.profiles import HandshakeProfile
from antquic_server.protocol.raw_public_key import peer_id
from support.in_process import Bench, run, running_worker, settings_with, until
from support.initials import first_flight, long_header
from support.pair import node_key
from workers.connection import MAX_HANDSHAKE_DATAGRAMS

CLIENT_PEER_ID = peer_id(node_key("client").public_key)


def send(bench: Bench, *datagrams: bytes) -> None:
    """Send datagrams from the client's socket, as they are."""
    bench.client.udp.send(PathAddress("127.0.0.1", bench.port, 0, 0, b"", 0), list(datagrams))


async def only(bench: Bench, count: int, **settings: Any) -> list[Any]:
    """Establish so many connections."""
    return [await bench.connected(**settings) for _ in range(count)]


def test_connection_from_handshake_to_close() -> None:
    """A peer comes, is announced under its id, is served, closes, and nothing of it remains."""

    async def story() -> None:
        async with running_worker() as bench:
            connection = await bench.connected()
            ((up_id, number, host, port),) = bench.up
            assert (up_id, host, port) == (CLIENT_PEER_ID, "127.0.0.1", bench.client.port)
            assert bench.counted("handshakes", "ant_quic") == 1
            assert bench.endpoint.half_open == 0
            assert await connection.echo(b"stream" * 1000, 5.0) == b"stream" * 1000
            assert await connection.echo_message(b"message", 5.0) == b"message"
            assert await connection.echo_datagram(b"datagram", 5.0) == b"datagram"
            connection.close(ApplicationErrorCode.PEER_SHUTDOWN, "bye")
            await until(lambda: not bench.endpoint.connections, "end of the connection")
            assert bench.down == [(CLIENT_PEER_ID, number)]
            assert bench.counted("connections_closed", "peer_shutdown") == 1
            assert bench.endpoint._table == {}
            assert bench.counted("handshake_failures") == 0

    run(story())


@pytest.mark.parametrize(
    ("profile", "groups", "announced"),
    [
        (HandshakeProfile.ANT_QUIC, (NamedGroup.ML_KEM_768,), True),
        (HandshakeProfile.RAW_PUBLIC_KEY, (NamedGroup.X25519_ML_KEM_768,), True),
        (HandshakeProfile.X509, (NamedGroup.X25519_ML_KEM_768,), False),
    ],
)
def test_only_authenticated_peers_are_announced(
    profile: HandshakeProfile, groups: tuple[int, ...], announced: bool
) -> None:
    """A client without a raw key has no id to announce it under, and is counted under its own profile."""

    async def story() -> None:
        async with running_worker() as bench:
            connection = await bench.connected(profile=profile, groups=groups)
            assert len(bench.up) == announced
            assert bench.counted("handshakes", str(profile)) == 1
            connection.close()
            await until(lambda: not bench.endpoint.connections, "end of the connection")
            assert len(bench.down) == announced

    run(story())


def test_classical_client_is_counted_as_a_failure() -> None:
    """A refused handshake ends with the alert, under its name, and leaves nothing behind."""

    async def story() -> None:
        async with running_worker() as bench:
            connection = bench.connect(profile=HandshakeProfile.X509, groups=(NamedGroup.X25519,))
            await asyncio.wait_for(connection.closed.wait(), 5.0)
            assert connection.termination is not None
            assert connection.termination.error_code == 0x128
            await until(lambda: not bench.endpoint.connections, "end of the connection")
            assert bench.counted("handshake_failures", "alert_handshake_failure") == 1
            assert bench.endpoint.half_open == 0
            assert bench.counted("handshakes") == 0

    run(story())


def test_many_connections_on_one_socket() -> None:
    """Connections of one client are kept apart by their IDs."""

    async def story() -> None:
        async with running_worker() as bench:
            connections = await only(bench, 10)
            answers = await asyncio.gather(*(item.echo(b"%d" % n, 5.0) for n, item in enumerate(connections)))
            assert answers == [b"%d" % n for n in range(10)]
            assert len(bench.endpoint.connections) == 10

    run(story())


def test_full_node_refuses() -> None:
    """At max_connections the next client gets CONNECTION_REFUSED; a place that becomes free can be taken."""

    async def story() -> None:
        async with running_worker(settings_with(endpoint={"max_connections": 3})) as bench:
            connections = await only(bench, 2)
            bench.endpoint.connections_elsewhere = 1
            refused = bench.connect()
            await asyncio.wait_for(refused.closed.wait(), 5.0)
            assert refused.termination is not None
            assert refused.termination.error_code == TransportErrorCode.CONNECTION_REFUSED
            assert bench.counted("handshake_failures", "max_connections") >= 1
            connections[0].close()
            await until(lambda: len(bench.endpoint.connections) == 1, "free place")
            await bench.connected()

    run(story())


def test_handshake_that_does_not_go_on_is_given_up() -> None:
    """A hello without the rest occupies the table until the timeout, and then nothing."""

    async def story() -> None:
        async with running_worker(limits={"handshake_timeout_s": 0.2}) as bench:
            send(bench, first_flight()[0])
            await until(lambda: bench.endpoint.half_open == 1, "half-open handshake")
            await until(lambda: not bench.endpoint.connections, "end of the handshake")
            assert bench.counted("handshake_failures", "handshake_timeout") == 1
            assert bench.endpoint.half_open == 0
            assert bench.endpoint._table == {}

    run(story())


def test_timeout_spares_those_who_have_finished() -> None:
    """The handshake timeout ends with the handshake."""

    async def story() -> None:
        async with running_worker(limits={"handshake_timeout_s": 1.0}) as bench:
            connection = await bench.connected()
            await asyncio.sleep(1.2)
            assert await connection.echo(b"still here", 5.0) == b"still here"

    run(story())


def test_idle_connection_ends() -> None:
    """Without a word from the peer a connection ends after its idle timeout, silently."""

    async def story() -> None:
        settings = settings_with(endpoint={"idle_timeout_s": 0.5, "keep_alive_s": 0.0})
        async with running_worker(settings) as bench:
            await bench.connected()
            bench.client.abandon_all()
            await until(lambda: not bench.endpoint.connections, "end of the connection")
            assert bench.counted("connections_closed", "idle_timeout") == 1
            assert len(bench.down) == 1

    run(story())


@pytest.mark.parametrize(("keep_alive_s", "survives"), [(0.2, True), (0.0, False)])
def test_keep_alive(keep_alive_s: float, survives: bool) -> None:
    """Keep-alive pings hold a quiet connection open on both sides; without them it ends."""

    async def story() -> None:
        settings = settings_with(endpoint={"idle_timeout_s": 2.0, "keep_alive_s": keep_alive_s})
        async with running_worker(settings) as bench:
            connection = await bench.connected()
            if survives:
                await asyncio.sleep(3.0)
                assert bench.endpoint.connections
                assert not connection.closed.is_set()
            else:
                # Longer than the timeout where answers take long (RFC 9000, section 10.1): busy machines.
                await until(lambda: not bench.endpoint.connections, "end of the connection")
                await asyncio.wait_for(connection.closed.wait(), 10.0)

    run(story())


def test_keep_alive_does_not_hold_a_dead_peer() -> None:
    """Pings nobody answers do not keep a connection."""

    async def story() -> None:
        settings = settings_with(endpoint={"idle_timeout_s": 0.6, "keep_alive_s": 0.1})
        async with running_worker(settings) as bench:
            await bench.connected()
            bench.client.abandon_all()
            await until(lambda: not bench.endpoint.connections, "end of the connection", 5.0)

    run(story())


def test_drain_closes_with_peer_shutdown() -> None:
    """Every peer is told the node shuts down; newcomers are dropped."""

    async def story() -> None:
        async with running_worker() as bench:
            connections = await only(bench, 3)
            assert bench.endpoint.drain(ApplicationErrorCode.PEER_SHUTDOWN, "PeerShutdown") == 3
            for connection in connections:
                await asyncio.wait_for(connection.closed.wait(), 5.0)
                assert connection.termination.error_code == 0x4E5B02
                assert connection.termination.reason_phrase == "PeerShutdown"
            send(bench, first_flight()[0])
            await until(lambda: bench.counted("drops", "draining"), "drop")
            await until(lambda: not bench.endpoint.connections, "end of the connections")
            assert bench.counted("connections_closed", "peer_shutdown") == 3

    run(story())


def test_client_that_moves_is_followed() -> None:
    """A new address is validated, counted, told to the peer and to the hub, and the connection goes on."""

    async def story() -> None:
        async with running_worker() as bench:
            connection = await bench.connected()
            before = bench.client.port
            bench.client.rebind()
            assert await connection.echo(b"moved", 5.0) == b"moved"
            assert bench.counted("address_changes") == 1
            assert [port for _, _, _, port in bench.up] == [before, bench.client.port]
            observed = connection.quic.observed_by_peer
            await until(lambda: observed.address and observed.address.port == bench.client.port, "report")
            assert bench.counted("observed_addresses_sent") >= 2

    run(story())


@pytest.mark.parametrize("method", ["receive_datagram", "datagrams_to_send", "handle_timer"])
def test_fault_in_one_connection_spares_the_others(method: str) -> None:
    """An exception in one state machine ends that connection, is counted, and nobody else notices."""

    async def story() -> None:
        async with running_worker() as bench:
            victim, other = await only(bench, 2)
            connection = bench.endpoint.connections[1]

            def fail(*_: Any, **__: Any) -> Any:
                raise ZeroDivisionError("made up")

            setattr(connection.quic, method, fail)
            if method == "handle_timer":
                connection.quic.get_timer = lambda: 0.0  # type: ignore[method-assign]
            victim.quic.send_datagram_frame(b"x")
            bench.client.flush([victim])
            await until(lambda: list(bench.endpoint.connections) == [2], "end of the connection")
            assert bench.counted("connections_closed", "internal_error") == 1
            assert bench.down == [(CLIENT_PEER_ID, 1)]
            assert await other.echo(b"unharmed", 5.0) == b"unharmed"
            assert set(bench.endpoint._table.values()) == {bench.endpoint.connections[2]}

    run(story())


def test_fault_of_the_service_spares_the_others() -> None:
    """The same for whatever serves the streams."""

    async def story() -> None:
        async with running_worker() as bench:
            victim, other = await only(bench, 2)
            service: Any = bench.endpoint._service
            handle = service.handle_event

            def fail(connection: Any, event: Any) -> None:
                if connection.number == 1:
                    raise ValueError("made up")
                handle(connection, event)

            service.handle_event = fail
            victim.quic.send_stream_data(0, b"x")
            bench.client.flush([victim])
            await until(lambda: list(bench.endpoint.connections) == [2], "end of the connection")
            assert await other.echo(b"unharmed", 5.0) == b"unharmed"

    run(story())


def test_fault_leaves_no_trace_of_unread_events() -> None:
    """What a connection had still to say when it failed is not acted upon: it is not announced as a peer."""

    async def story() -> None:
        async with running_worker() as bench:
            victim = await bench.connected()
            connection = bench.endpoint.connections[1]
            bench.up.clear()

            def fail(*_: Any) -> None:
                connection.quic._events.append(
                    HandshakeCompleted(alpn_protocol=None, early_data_accepted=False, session_resumed=False)
                )
                raise ZeroDivisionError("made up")

            setattr(connection.quic, "receive_datagram", fail)  # noqa: B010
            victim.quic.send_ping(1)
            bench.client.flush([victim])
            await until(lambda: not bench.endpoint.connections, "end of the connection")
            await asyncio.sleep(0.02)
            assert bench.up == []
            assert bench.endpoint._table == {}

    run(story())


def test_lost_connection_is_reset() -> None:
    """A connection the worker has forgotten, as after a crash, is ended by a stateless reset the client accepts."""

    async def story() -> None:
        async with running_worker() as bench:
            connection = await bench.connected()
            await asyncio.sleep(0.1)
            bench.endpoint._table.clear()
            connection.quic.send_datagram_frame(bytes(100))
            bench.client.flush([connection])
            await asyncio.wait_for(connection.closed.wait(), 5.0)
            assert connection.stateless_reset
            assert bench.counted("stateless_resets") == 1

    run(story())


def test_garbage_is_dropped_and_counted() -> None:
    """Whatever arrives is counted under a reason and answered by nothing."""

    async def story() -> None:
        async with running_worker() as bench:
            first = bytearray(first_flight()[0])
            first[-1] ^= 1
            send(bench, bytes(100))
            send(bench, b"\x40" + os.urandom(99))
            send(bench, b"\xc0")
            send(bench, long_header(0xC0, 1, bytes(8), size=1199))
            send(bench, bytes(first))
            await until(lambda: bench.counted("datagrams_received") == 5, "datagrams")
            for reason in (
                "not_quic",
                "unknown_connection_id",
                "header_malformed",
                "initial_too_small",
                "initial_undecryptable",
            ):
                assert bench.counted("drops", reason) == 1, reason
            assert bench.endpoint.connections == {}
            assert bench.endpoint._table == {}
            assert bench.counted("datagrams_sent") == 0

    run(story())


def test_repeated_initial_costs_a_bounded_amount() -> None:
    """One Initial sent over and over is looked at a fixed number of times."""

    async def story() -> None:
        async with running_worker() as bench:
            data = first_flight()[0]
            for _ in range(10):
                send(bench, *[data] * 10)
                await asyncio.sleep(0)
            await until(lambda: bench.counted("datagrams_received") == 100, "datagrams")
            assert bench.counted("drops", "handshake_datagrams") == 100 - MAX_HANDSHAKE_DATAGRAMS
            assert len(bench.endpoint.connections) == 1

    run(story())


def test_retry_when_demanded() -> None:
    """With Retry always on, a client proves its address and is served."""

    async def story() -> None:
        async with running_worker(settings_with(limits={"retry": "always"})) as bench:
            connection = await bench.connected()
            assert bench.counted("retries") >= 1
            assert bench.counted("tokens", "valid") >= 1
            assert await connection.echo(b"x", 5.0) == b"x"

    run(story())


def test_datagram_of_another_slot_goes_there_once() -> None:
    """A datagram for slot 1 that surfaces in slot 0 is passed on; one that comes from there is not sent back."""

    async def story() -> None:
        async with running_worker(worker_count=2) as bench:
            mine = long_header(0xE0, 1, bytes([8, 8, 8, 0, 8, 8, 8, 8]), b"\x44\x00")
            other = long_header(0xE0, 1, bytes([8, 8, 8, 1, 8, 8, 8, 8]), b"\x44\x00")
            send(bench, mine)
            send(bench, other)
            await until(lambda: bench.counted("datagrams_received") == 2, "datagrams")
            assert bench.counted("misrouted_forwarded") == 1
            assert bench.counted("drops", "not_initial") == 1
            passed_on = bench.stray[1].receiver.recv(4096)
            assert passed_on.endswith(other)
            # As if slot 1 had found it to be ours: it must not go round in circles.
            bench.stray[0].sender.send(passed_on)
            await until(lambda: bench.counted("misrouted_received") == 1, "stray")
            assert bench.counted("drops", "not_initial") == 2
            with pytest.raises(BlockingIOError):
                bench.stray[1].receiver.recv(4096)

    run(story())


def test_connection_over_strays() -> None:
    """A connection whose datagrams all surface in the wrong slot works, and is answered directly."""

    async def story() -> None:
        async with running_worker(worker_count=2) as bench:
            # Everything the worker gets comes by way of the other slot.
            sock = bench.endpoint._sockets[0]
            asyncio.get_running_loop().remove_reader(sock.fileno())

            def pass_on() -> None:
                for data, path in sock.receive_datagrams():
                    bench.endpoint._handle_burst([(data, path)], forward_strays=False)

            asyncio.get_running_loop().add_reader(sock.fileno(), pass_on)
            connection = await bench.connected()
            assert await connection.echo(b"strayed", 5.0) == b"strayed"

    run(story())


def test_extension_frames_are_counted() -> None:
    """Each kind of frame has its own counter."""

    async def story() -> None:
        async with running_worker() as bench:
            await bench.connected()
            await until(lambda: bench.counted("extension_frames_received", "ObservedAddress"), "frame")

    run(story())


@pytest.mark.parametrize("length", [20, 21, 255])
def test_version_with_long_connection_ids_is_negotiated(length: int) -> None:
    """RFC 9000, section 17.2: IDs longer than those of version 1 are mirrored in Version Negotiation as they are."""
    cid, source = bytes(range(length)), bytes(reversed(range(length)))
    probe = b"\xc0\x1a\x2a\x3a\x4a" + bytes([length]) + cid + bytes([length]) + source

    async def story() -> None:
        async with running_worker() as bench:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                sock.connect(("127.0.0.1", bench.port))
                version_1 = probe[:1] + b"\0\0\0\1" + probe[5:]
                if length > 20:
                    sock.send(version_1.ljust(1200, b"\0"))
                    await until(lambda: bench.counted("drops", "header_malformed") == 1, "drop")
                sock.send(probe.ljust(1199, b"\0"))
                sock.send(probe.ljust(1200, b"\0"))
                answer = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(sock, 2000), 5.0)
            assert answer[0] & 0x80
            assert answer[1:] == bytes(4) + bytes([length]) + source + bytes([length]) + cid + b"\0\0\0\1"
            assert bench.counted("version_negotiations") == 1
            assert bench.counted("drops", "initial_too_small") == 1
            assert bench.endpoint.connections == {}

    run(story())


def test_counters_of_sockets_are_collected() -> None:
    """System calls, datagrams and bytes are those of the socket."""

    async def story() -> None:
        async with running_worker() as bench:
            await bench.connected()
            sock = bench.endpoint._sockets[0]
            assert bench.counted("send_calls") == sock.send_calls > 0
            assert bench.counted("receive_calls") == sock.receive_calls > 0
            assert bench.counted("datagrams_sent") > 0
            assert bench.counted("bytes_received") >= 2400
            assert bench.counted("timers") >= 1
            assert bench.counted("active_connections") == 1
            assert bench.endpoint.outgoing_datagrams == 0

    run(story())


def test_stopped_endpoint_reads_no_more() -> None:
    """After ``stop`` the sockets are open and nobody listens."""

    async def story() -> None:
        async with running_worker() as bench:
            bench.endpoint.stop()
            send(bench, bytes(100))
            await asyncio.sleep(0.05)
            assert bench.counted("datagrams_received") == 0
            sock: socket.socket = bench.endpoint._sockets[0].sock
            assert sock.fileno() >= 0

    run(story())


def test_peer_is_reported_again_when_it_advertises_other_addresses() -> None:
    """Once, with the next packet."""

    async def story() -> None:
        async with running_worker() as bench:
            client = await bench.connected()
            (connection,) = bench.endpoint.connections.values()
            frame = AddAddress(sequence_number=1, address=SocketAddress.parse("203.0.113.9:9"))
            connection.quic.candidates.add(frame)
            assert await client.echo(b"a packet", 5.0) == b"a packet"
            assert await client.echo(b"another", 5.0) == b"another"
            assert len(bench.up) == 2

    run(story())
