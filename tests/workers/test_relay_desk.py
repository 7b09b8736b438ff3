"""Tests of ``workers.relay_desk``: how sessions of the stream relay are granted, used and ended."""

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest

from antquic_server.config.model import to_plain
from antquic_server.ipc.messages import LimitsChanged
from antquic_server.ipc.relay_messages import RelayAddress, RelayRate, RelayReserved, RelayRevoked, RelayShare
from antquic_server.protocol.address import SocketAddress
from antquic_server.protocol.relay_stream import BIND_REQUEST
from antquic_server.protocol.seam.connection import NodeQuicConnection
from support.in_process import Bench, run, running_worker, settings_with, until
from support.relay_client import RelayClient, RelayRefusedError, third_party, write
from support.relay_hub import fake_hub
from workers import relay_desk
from workers.relay_desk import MAX_WAITING
from workers.relay_session import RelaySession

LOOPBACK = ("127.0.0.0/8",)
UNKNOWN_SESSION = 10**6


def with_loopback(**relay: Any) -> Any:
    """Settings that let sessions reach the test's own sockets."""
    return settings_with(relay={"allowed_targets": LOOPBACK} | relay)


def sessions(bench: Bench) -> float:
    """The gauge of sessions."""
    return bench.counted("relay_sessions", "stream")


def udp_sockets() -> int:
    """Sockets of this process."""
    links = [str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    return sum(1 for link in links if link.startswith("socket:"))


def is_free(address: SocketAddress) -> bool:
    """Whether nobody has a port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.bind((str(address.host), address.port))
        except OSError:
            return False
        return True


def test_session_carries_datagrams_both_ways() -> None:
    """From the request to the bytes: the port is in the range, the address is where the peer reached us."""

    async def story() -> None:
        settings = with_loopback(port_range=(50_000, 59_999))
        async with running_worker(settings, echo=False) as bench, fake_hub(bench) as hub, third_party() as party:
            relay = await RelayClient.open(await bench.connected())
            assert str(relay.address.host) == "127.0.0.1"
            assert 50_000 <= relay.address.port < 60_000
            assert sessions(bench) == bench.counted("relay_sessions_opened", "stream") == 1
            await until(lambda: hub.others, "address for the hub")
            assert hub.others == [RelayAddress(session=1, address=str(relay.address))]
            payloads = [bytes((number,)) * size for number, size in enumerate((1, 1200, 1200, 1300, 4096, 0))]
            relay.send(party.address, *payloads)
            assert [data for data, _ in await party.receive(len(payloads))] == payloads
            for payload in payloads:
                party.send(relay.address, payload)
            assert await relay.receive(len(payloads)) == [(party.address, payload) for payload in payloads]
            await until(lambda: hub.moved_bytes.get(1) == 2 * sum(map(len, payloads)), "report of usage")
            assert bench.counted("relay_bytes", "stream") == 2 * sum(map(len, payloads))

    run(story())


def test_two_peers_of_a_node_meet_through_their_ports() -> None:
    """Loopback is refused as a target, but not the port of another session."""

    async def story() -> None:
        async with running_worker(echo=False) as bench, fake_hub(bench):
            connection = await bench.connected()
            one = await RelayClient.open(connection)
            two = await RelayClient.open(connection)
            one.send(two.address, b"hello")
            assert await two.receive() == [(one.address, b"hello")]
            two.send(one.address, b"welcome")
            assert await one.receive() == [(two.address, b"welcome")]
            one.send(f"127.0.0.1:{bench.port}", b"loop")
            one.send("127.0.0.1:53", b"dns")
            await until(lambda: bench.counted("relay_drops", "stream|target_own") == 2, "refused targets")

    run(story())


def test_public_address_is_what_peers_are_told() -> None:
    """Behind address translation: the outside address for its family, and the one reached for the other."""

    async def story() -> None:
        async with running_worker(with_loopback(public_address="203.0.113.7"), echo=False) as bench, fake_hub(bench):
            connection = await bench.connected()
            one = await RelayClient.open(connection)
            two = await RelayClient.open(connection)
            assert str(one.address.host) == "203.0.113.7"
            one.send(two.address, b"hello")
            assert await two.receive() == [(one.address, b"hello")]
        async with running_worker(with_loopback(public_address="2001:db8::7"), echo=False) as bench, fake_hub(bench):
            relay = await RelayClient.open(await bench.connected())
            assert str(relay.address.host) == "127.0.0.1"

    run(story())


@pytest.mark.parametrize(
    ("word", "status", "reason"),
    [
        ("peer_sessions", 409, "peer_sessions"),
        ("node_sessions", 503, "node_sessions"),
        ("relay_disabled", 403, "relay_disabled"),
        ("a word of a later version", 500, "internal_error"),
    ],
)
def test_refusal_of_the_hub_is_passed_on(word: str, status: int, reason: str) -> None:
    """With the limit's name; it is the hub that counts it."""

    async def story() -> None:
        async with running_worker(echo=False) as bench, fake_hub(bench, refusal=word) as hub:
            with pytest.raises(RelayRefusedError) as caught:
                await RelayClient.open(await bench.connected())
            assert (caught.value.response.status, caught.value.response.reason) == (status, reason)
            assert bench.counted("relay_refusals") == 0
            assert sessions(bench) == 0
            assert hub.released == []

    run(story())


def test_hub_that_cannot_be_asked_is_an_internal_error() -> None:
    """A full queue refuses the session instead of keeping the peer waiting."""

    async def story() -> None:
        async with running_worker(echo=False) as bench:
            desk = bench.worker.relay_streams._desk
            object.__setattr__(desk._around, "tell_hub", lambda message: False)
            with pytest.raises(RelayRefusedError) as caught:
                await RelayClient.open(await bench.connected())
            assert caught.value.response.reason == "internal_error"
            assert bench.counted("relay_refusals", "stream|internal_error") == 1

    run(story())


def test_answer_that_never_comes_is_an_internal_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's queue to us was full: the peer is told after a while, and may ask again on the same connection."""
    monkeypatch.setattr(relay_desk, "ANSWER_TIMEOUT_S", 0.2)

    async def story() -> None:
        async with running_worker(echo=False) as bench, fake_hub(bench, silent=True) as hub:
            connection = await bench.connected()
            for number in (1, 2):
                with pytest.raises(RelayRefusedError) as caught:
                    await RelayClient.open(connection)
                assert (caught.value.response.status, caught.value.response.reason) == (500, "internal_error")
                assert bench.counted("relay_refusals", "stream|internal_error") == number
            await until(lambda: hub.held == [], "releases")
            # An answer that comes too late after all.
            hub.answer(2)
            hub.silent = False
            relay = await RelayClient.open(connection)
            assert sessions(bench) == bench.counted("relay_sessions_opened", "stream") == 1
            assert not relay.ended
            (stream,) = bench.worker.relay_streams._desk._numbered.values()
            assert stream.deadline is None

    run(story())


def test_questions_to_the_hub_are_bounded() -> None:
    """One connection may have so many unanswered ones; the rest are refused here."""

    async def story() -> None:
        async with running_worker(echo=False) as bench, fake_hub(bench, silent=True) as hub:
            connection = await bench.connected()
            for _ in range(MAX_WAITING):
                write(connection, connection.quic.get_next_available_stream_id(), BIND_REQUEST)
            with pytest.raises(RelayRefusedError) as caught:
                await RelayClient.open(connection)
            assert caught.value.response.reason == "open_rate"
            await until(lambda: len(hub.reserved) == MAX_WAITING, "questions to the hub")

    run(story())


def test_proven_address_is_the_one_that_is_charged() -> None:
    """A request whose source is forged fills its sender's prefix, not that of whoever has the address."""

    async def story() -> None:
        async with running_worker(echo=False) as bench, fake_hub(bench) as hub:
            connection = await bench.connected()
            (server,) = bench.endpoint.connections.values()
            # As a packet with this source does, until it turns out that nobody answers there.
            server.path = server.path._replace(host="127.0.0.66")
            await RelayClient.open(connection)
            assert [item.host for item in hub.reserved] == ["127.0.0.1"]

    run(story())


def test_nothing_is_reserved_before_an_address_is_proven(monkeypatch: pytest.MonkeyPatch) -> None:
    """The peer may ask again."""

    async def story() -> None:
        async with running_worker(echo=False) as bench, fake_hub(bench) as hub:
            connection = await bench.connected()
            monkeypatch.setattr(NodeQuicConnection, "validated_address", None)
            with pytest.raises(RelayRefusedError) as caught:
                await RelayClient.open(connection)
            assert caught.value.response.reason == "open_rate"
            assert hub.reserved == []

    run(story())


def test_no_port_and_no_address_family() -> None:
    """The reservation is given back, and the peer is told."""

    async def story() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
            taken.bind(("127.0.0.1", 0))
            port = taken.getsockname()[1]
            settings = with_loopback(port_range=(port, port))
            async with running_worker(settings, echo=False) as bench, fake_hub(bench) as hub:
                connection = await bench.connected()
                with pytest.raises(RelayRefusedError) as caught:
                    await RelayClient.open(connection)
                assert (caught.value.response.status, caught.value.response.reason) == (503, "no_free_port")
                desk = bench.worker.relay_streams._desk
                for unknown in ("", "0.0.0.0"):
                    object.__setattr__(desk._around, "local_host", lambda path, unknown=unknown: unknown)
                    with pytest.raises(RelayRefusedError) as caught:
                        await RelayClient.open(connection)
                    assert (caught.value.response.status, caught.value.response.reason) == (501, "address_family")
                await until(lambda: len(hub.released) == 3, "releases")
                assert hub.held == []

    run(story())


def test_half_close_between_frames_ends_the_session() -> None:
    """What was sent before the end still goes out; our side ends in order, and the port is free."""

    async def story() -> None:
        async with running_worker(with_loopback(), echo=False) as bench, fake_hub(bench) as hub:
            async with third_party() as party:
                relay = await RelayClient.open(await bench.connected())
                relay.send(party.address, b"last words")
                relay.write(b"", end=True)
                assert [data for data, _ in await party.receive()] == [b"last words"]
            await until(lambda: relay.ended, "end of our side")
            assert sessions(bench) == 0
            assert bench.counted("relay_sessions_closed", "stream|stream_ended") == 1
            assert is_free(relay.address)
            await until(lambda: hub.held == [], "release")
            assert hub.moved_bytes == {1: len(b"last words")}

    run(story())


@pytest.mark.parametrize(
    ("data", "end"), [(b"\x00\x01\x00\x01", False), (b"\x00\x00\x00\x0b\x00\x04", True), (b"\x00", True)]
)
def test_torn_or_malformed_streams_are_reset(data: bytes, end: bool) -> None:
    """A frame that is too long, or an end in the middle of one."""

    async def story() -> None:
        async with running_worker(echo=False) as bench, fake_hub(bench) as hub:
            connection = await bench.connected()
            honest = await RelayClient.open(connection)
            relay = await RelayClient.open(connection)
            relay.write(data, end=end)
            await until(lambda: sessions(bench) == 1, "end of the session")
            assert bench.counted("relay_sessions_closed", "stream|stream_malformed") == 1
            stream = connection.quic._streams.get(relay.stream_id)
            await until(lambda: stream is None or stream.receiver.is_finished, "reset")
            assert relay.stream_id not in connection.finished_streams
            assert is_free(relay.address)
            assert not is_free(honest.address)
            await until(lambda: hub.held == [1], "release")

    run(story())


@pytest.mark.parametrize("how", ["reset", "stop"])
def test_peer_that_gives_up_ends_the_session(how: str) -> None:
    """A reset of its side, or a wish not to hear ours."""

    async def story() -> None:
        async with running_worker(echo=False) as bench, fake_hub(bench) as hub:
            connection = await bench.connected()
            relay = await RelayClient.open(connection)
            if how == "reset":
                connection.quic.reset_stream(relay.stream_id, 7)
            else:
                connection.quic.stop_stream(relay.stream_id, 7)
            bench.client.flush([connection])
            await until(lambda: sessions(bench) == 0, "end of the session")
            assert bench.counted("relay_sessions_closed", "stream|closed") == 1
            await until(lambda: hub.held == [], "release")
            assert is_free(relay.address)
            await until(lambda: not any(bench.worker.relay_streams._streams.values()), "forgotten stream")

    run(story())


def _is_reset(relay: RelayClient) -> bool:
    stream = relay.connection.quic._streams.get(relay.stream_id)
    return stream is None or stream.sender._reset_error_code is not None


def test_lost_connection_frees_every_port() -> None:
    """All sessions of the connection end; those of others stay."""

    async def story() -> None:
        async with running_worker(echo=False) as bench, fake_hub(bench) as hub:
            lost = await bench.connected()
            other = await bench.connected()
            relays = [await RelayClient.open(lost) for _ in range(3)]
            kept = await RelayClient.open(other)
            lost.close()
            await until(lambda: sessions(bench) == 1, "end of the sessions")
            assert bench.counted("relay_sessions_closed", "stream|connection_lost") == 3
            assert all(is_free(relay.address) for relay in relays)
            assert not is_free(kept.address)
            await until(lambda: len(hub.held) == 1, "releases")

    run(story())


def test_hub_revokes_sessions() -> None:
    """An open one is reset, one that waits is refused; the hub hears that they are gone."""

    async def story() -> None:
        async with running_worker(echo=False) as bench, fake_hub(bench) as hub:
            connection = await bench.connected()
            relay = await RelayClient.open(connection)
            hub.say(RelayRevoked(session=1, reason="peer_bytes"))
            await until(lambda: _is_reset(relay), "reset")
            assert bench.counted("relay_sessions_closed", "stream|peer_bytes") == 1
            hub.silent = True
            opening = asyncio.create_task(RelayClient.open(connection))
            await until(lambda: len(hub.reserved) == 2, "question to the hub")
            hub.say(RelayRevoked(session=2, reason="draining"))
            with pytest.raises(RelayRefusedError) as caught:
                await opening
            assert caught.value.response.reason == "draining"
            await until(lambda: hub.held == [], "releases")
            # What is not known, or belongs to a channel, is none of its business.
            for number in (UNKNOWN_SESSION, 1 << 56):
                hub.say(RelayRevoked(session=number, reason="draining"))
                hub.say(RelayRate(session=number, rate_bytes_per_s=1.0, burst_bytes=1.0))
                hub.say(RelayReserved(session=number, refusal=""))

    run(story())


def test_rates_follow_the_hub() -> None:
    """Of one session, and of all of the worker together."""

    async def story() -> None:
        async with running_worker(with_loopback(), echo=False) as bench, fake_hub(bench) as hub, third_party() as party:
            relay = await RelayClient.open(await bench.connected())
            hub.say(RelayRate(session=1, rate_bytes_per_s=0.0, burst_bytes=100.0))
            relay.send(party.address, bytes(60), bytes(60))
            await until(lambda: bench.counted("relay_drops", "stream|rate") == 1, "drop")
            hub.say(RelayRate(session=1, rate_bytes_per_s=1e12, burst_bytes=1e12))
            hub.say(RelayShare(rate_bytes_per_s=0.0, burst_bytes=300.0))
            relay.send(party.address, bytes(301))
            await until(lambda: bench.counted("relay_drops", "stream|rate") == 2, "drop")
            relay.send(party.address, bytes(300))
            await party.receive(2)

    run(story())


def test_session_begins_with_what_the_hub_says() -> None:
    """Not with a whole burst, which whoever opens one after another would get each time."""

    async def story() -> None:
        async with running_worker(with_loopback(), echo=False) as bench, fake_hub(bench) as hub, third_party() as party:
            hub.silent = True
            opening = asyncio.create_task(RelayClient.open(await bench.connected()))
            await until(lambda: hub.reserved, "question to the hub")
            hub.say(RelayReserved(session=1, refusal="", rate_bytes_per_s=1e-3, burst_bytes=1000.0, start_bytes=200.0))
            relay = await opening
            relay.send(party.address, bytes(150), bytes(150))
            await party.receive()
            await until(lambda: bench.counted("relay_drops", "stream|rate") == 1, "drop")

    run(story())


def test_rules_may_change_while_sessions_are_open() -> None:
    """Targets are judged by the new ones at once, new sessions get the new public address."""

    async def story() -> None:
        async with running_worker(with_loopback(), echo=False) as bench, fake_hub(bench) as hub, third_party() as party:
            connection = await bench.connected()
            relay = await RelayClient.open(connection)
            relay.send(party.address, b"before")
            await party.receive()
            denied = with_loopback(denied_targets=LOOPBACK, queue_bytes=65_536)
            hub.say(LimitsChanged(settings=to_plain(denied)))
            relay.send(party.address, b"after")
            await until(lambda: bench.counted("relay_drops", "stream|target_denied") == 1, "refused target")

    run(story())


def test_receiver_that_never_reads_is_bounded() -> None:
    """What waits for it stays within ``queue_bytes``; the rest is dropped, and its neighbour notices nothing."""

    async def story() -> None:
        settings = with_loopback(queue_bytes=65_536)
        async with running_worker(settings, echo=False) as bench, fake_hub(bench), third_party() as party:
            silent = await bench.connected()
            relay = await RelayClient.open(silent)
            honest = await RelayClient.open(await bench.connected())
            server = next(iter(bench.endpoint.connections.values()))
            bench.endpoint.flush([server], asyncio.get_running_loop().time())
            # It takes nothing in any more, not even acknowledgements of what it gets.
            silent.quic.receive_datagram = lambda *_: None  # type: ignore[method-assign]
            worst = 0
            for _ in range(40):
                for _ in range(50):
                    party.send(relay.address, bytes(1200))
                party.send(honest.address, b"still there")
                await asyncio.sleep(0.01)
                worst = max(worst, server.quic.stream_backlog_bytes(relay.stream_id))
            assert 0 < worst <= 65_536
            assert bench.counted("relay_drops", "stream|queue_full") > 1000
            assert len(await honest.receive(40)) == 40

    run(story())


def test_thousand_sessions_leave_nothing_behind() -> None:
    """Opened and ended in every way, one after another: no socket, no entry and no reservation is left."""

    async def story() -> None:
        async with running_worker(echo=False) as bench, fake_hub(bench) as hub:
            connection = await bench.connected()
            await RelayClient.open(connection)
            before = udp_sockets()
            for number in range(0, 1000, 4):
                relays = await asyncio.gather(*[RelayClient.open(connection) for _ in range(4)])
                relays[0].write(b"", end=True)
                relays[1].write(b"", end=True)
                connection.quic.reset_stream(relays[2].stream_id, 0)
                connection.quic.reset_stream(relays[3].stream_id, 0)
                bench.client.flush([connection])
                await until(lambda: sessions(bench) == 1, f"end of sessions {number} and next")
            assert bench.counted("relay_sessions_opened") == 1001
            assert udp_sockets() == before
            await until(lambda: hub.held == [1], "releases")
            tables = list(bench.worker.relay_streams._streams.values())
            await until(lambda: len(tables[0]) == 1, "forgotten streams")

    run(story())


def test_drain_ends_sessions_and_refuses_new_ones() -> None:
    """A worker that is sent away gives back its ports at once."""

    async def story() -> None:
        async with running_worker(echo=False) as bench, fake_hub(bench) as hub:
            connection = await bench.connected()
            relay = await RelayClient.open(connection)
            bench.worker.relay_streams.drain()
            assert is_free(relay.address)
            assert bench.counted("relay_sessions_closed", "stream|draining") == 1
            with pytest.raises(RelayRefusedError) as caught:
                await RelayClient.open(connection)
            assert (caught.value.response.status, caught.value.response.reason) == (503, "draining")
            await until(lambda: hub.held == [], "release")

    run(story())


def test_fault_in_one_session_spares_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is logged, the session ends, and its neighbours' frames of the same turn go out."""

    async def story() -> None:
        async with running_worker(with_loopback(), echo=False) as bench, fake_hub(bench), third_party() as party:
            connection = await bench.connected()
            bad = await RelayClient.open(connection)
            good = await RelayClient.open(connection)
            desk = bench.worker.relay_streams._desk
            faulty = desk._numbered[1].session
            original = RelaySession.send_untrusted

            def send(session: RelaySession) -> None:
                if session is faulty:
                    raise RuntimeError("a fault of ours")
                original(session)

            monkeypatch.setattr(RelaySession, "send_untrusted", send)
            bad.send(party.address, b"bad")
            good.send(party.address, b"good")
            assert [data for data, _ in await party.receive()] == [b"good"]
            assert bench.counted("relay_sessions_closed", "stream|internal_error") == 1

    run(story())
