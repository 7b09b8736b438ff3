"""The table of connections: what belongs to whom, what is let in, what is dropped."""

from typing import Any

from aioquic.quic.events import ConnectionTerminated

from antquic_server.peer.admission import MAX_UNPROVEN
from antquic_server.peer.link import Link
from antquic_server.peer.links import Links
from antquic_server.protocol.address import SocketAddress
from antquic_server.protocol.raw_public_key import peer_id
from support.stand_in import StandIn, public_key_of

HERE, THERE = ("198.18.0.1", 1111), ("198.18.0.2", 2222)


class Observer:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.ready: list[Link] = []
        self.closed: list[tuple[Link, str]] = []
        self.other: list[Any] = []

    def link_ready(self, link: Link, now_s: float) -> None:
        """Remember."""
        self.ready.append(link)

    def link_closed(self, link: Link, event: ConnectionTerminated) -> None:
        """Remember."""
        self.closed.append((link, event.reason_phrase))

    def link_event(self, link: Link, event: Any, now_s: float) -> None:
        """Remember."""
        self.other.append(event)


class End:
    """One endpoint's table with stand-ins."""

    def __init__(self, name: str, *, max_connections: int = 1000) -> None:
        self.name = name
        self.observer = Observer()
        self.serial = 0
        self.links = Links(
            observer=self.observer,
            make_server=self.quic,
            handshake_timeout_s=5,
            keep_alive_s=15,
            max_connections=max_connections,
        )

    def quic(self, first_cid: bytes | None = None) -> StandIn:
        """Make a connection, a server's if the client's connection ID is given."""
        self.serial += 1
        own = (self.name.encode() + self.serial.to_bytes(2, "big")).ljust(8, b".")
        return StandIn(
            public_key=public_key_of(self.name), own_cid=own, first_cid=first_cid or own, is_client=first_cid is None
        )

    def dial(self, now_s: float = 0.0, **facts: Any) -> Link:
        """Dial the other end."""
        dialled = SocketAddress.from_host(*THERE)
        return self.links.dial(self.quic(), THERE, now_s=now_s, deadline_s=now_s + 3, dialled=dialled, **facts)


def exchange(one: End, other: End, now_s: float = 0.0) -> None:
    """Move datagrams until neither has any."""
    while True:
        out, _ = one.links.flush(now_s)
        back, _ = other.links.flush(now_s)
        if not out and not back:
            return
        for _, datagrams in out:
            for data in datagrams:
                other.links.receive_datagram(data, HERE, now_s)
        for _, datagrams in back:
            for data in datagrams:
                one.links.receive_datagram(data, THERE, now_s)


def test_a_dial_and_its_acceptance_become_ready() -> None:
    """Each end knows who the other is."""
    client, server = End("client"), End("server")
    link = client.dial()
    exchange(client, server)

    (accepted,) = server.observer.ready
    assert client.observer.ready == [link]
    assert link.peer_id == peer_id(public_key_of("server"))
    assert accepted.peer_id == peer_id(public_key_of("client"))
    assert (link.dialled_by_us, accepted.dialled_by_us) == (True, False)
    assert list(client.links) == [link]
    assert client.links.find(link.number) is link
    assert client.links.find(None) is None


def test_another_peer_than_the_expected_one_is_sent_away() -> None:
    """It never becomes ready."""
    client, server = End("client"), End("server")
    client.dial(expected_peer_id=bytes(32))
    exchange(client, server)

    assert client.observer.ready == []
    assert [reason for _, reason in client.observer.closed] == ["another peer was expected"]
    assert len(client.links) == 0


def test_an_unanswered_dial_ends_at_its_deadline() -> None:
    """Silently."""
    client = End("client")
    client.dial()
    client.links.flush(0.0)
    now_s = 0.0
    while (deadline_s := client.links.next_deadline_s()) is not None:
        now_s = deadline_s
        client.links.handle_timer(now_s)
        client.links.flush(now_s)

    assert now_s == 3.0
    assert [reason for _, reason in client.observer.closed] == ["handshake timeout"]


def test_what_is_no_quic_of_ours_is_dropped_and_counted() -> None:
    """Nothing is kept for it, and nothing is sent."""
    server = End("server")
    for data in (
        b"",
        b"\x01hello",
        b"\x40" + bytes(40),
        b"\xc0\0\0\0\1\x08" + bytes(60),
        b"\xc0\0\0\0\2\x08" + bytes(1300),
    ):
        server.links.receive_datagram(data, HERE, 0.0)

    assert server.links.flush(0.0) == ([], [])
    assert server.links.drops == {"not_quic": 2, "unknown_connection_id": 3}
    assert len(server.links) == 0


def test_half_open_connections_are_bounded() -> None:
    """A flood of first packets costs a bounded amount of memory."""
    server = End("server")
    for number in range(MAX_UNPROVEN + 10):
        client = End(f"c{number}")
        client.dial()
        for _, datagrams in client.links.flush(0.0)[0]:
            server.links.receive_datagram(datagrams[0], ("198.18.5.5", number), 0.0)

    assert len(server.links) == MAX_UNPROVEN
    assert server.links.drops["address_not_proven"] == 10


def test_max_connections_counts_those_that_are_ready() -> None:
    """The next one is not let in."""
    server = End("server", max_connections=1)
    exchange(End("first"), server)
    first, second = End("first"), End("second")
    first.dial()
    exchange(first, server)
    second.dial()
    for _, datagrams in second.links.flush(0.0)[0]:
        server.links.receive_datagram(datagrams[0], HERE, 0.0)

    assert len(server.links) == 1
    assert server.links.drops["too_many_connections"] == 1


def test_a_stateless_reset_ends_the_connection_it_names() -> None:
    """And no other."""
    client, server = End("client"), End("server")
    link = client.dial()
    exchange(client, server)
    link.quic.peer_reset_tokens.append(b"T" * 16)

    client.links.receive_datagram(b"\x40" + bytes(20) + b"X" * 16, THERE, 1.0)
    assert client.observer.closed == []
    client.links.receive_datagram(b"\x40" + bytes(20) + b"T" * 16, THERE, 1.0)
    client.links.flush(1.0)
    assert client.observer.closed == [(link, "stateless reset")]


def test_silence_is_broken_by_a_ping() -> None:
    """After the keep-alive time, so that the NAT keeps its mapping."""
    client, server = End("client"), End("server")
    client.dial()
    exchange(client, server)

    assert client.links.next_deadline_s() == 15
    client.links.handle_timer(15.0)
    assert client.links.flush(15.0)[0]
