"""Who gets a handshake while many are open."""

from itertools import count
from typing import Any

import pytest
from aioquic.buffer import Buffer
from aioquic.quic.packet import QuicPacketType, pull_quic_header

from antquic_server.peer.admission import (
    CONNECTION_ID_BYTES,
    MAX_EXPECTED,
    MAX_HALF_OPEN,
    MAX_PER_PREFIX,
    MAX_UNPROVEN,
    Admission,
    Admitted,
    Refused,
)
from antquic_server.peer.factory import QuicFactory
from antquic_server.peer.link import Link
from antquic_server.peer.relay_paths import RelayPath
from antquic_server.peer.settings import PeerSettings
from antquic_server.protocol.address import SocketAddress
from antquic_server.protocol.routing import destination_connection_id_untrusted
from antquic_server.protocol.seam.connection import NodeQuicConnection
from support.stand_in import StandIn, public_key_of

PATH, SERVER = ("198.18.0.7", 4433), ("198.18.0.1", 1)
NUMBERS = count(1)


def half_open(host: str, port: int = 1, **facts: Any) -> Link:
    """A connection whose handshake is not complete; a dial of ours if ``dialled`` is given."""
    quic = StandIn(public_key=public_key_of("x"), own_cid=bytes(8), first_cid=bytes(8), is_client="dialled" in facts)
    return Link(number=next(NUMBERS), quic=quic, path=(host, port), handshake_deadline_s=9.0, **facts)


def crowd(size: int = MAX_UNPROVEN, **facts: Any) -> list[Link]:
    """Strangers from as many addresses."""
    return [half_open(f"198.18.{number // 250}.{number % 250 + 1}", 99, **facts) for number in range(size)]


def client() -> NodeQuicConnection:
    """A client that has sent its first flight nowhere yet."""
    quic = QuicFactory(PeerSettings(pqc_provider="cryptography")).client("peer")
    quic.connect(SERVER, 0.0)
    return quic


def judge(admission: Admission, data: bytes, links: list[Link], path: Any = PATH) -> Admitted | Refused:
    """Have a first datagram judged."""
    cid = destination_connection_id_untrusted(data)
    assert cid is not None
    return admission.judge_untrusted(data, path, cid, links, 1.0)


def retried(admission: Admission, quic: NodeQuicConnection) -> tuple[bytes, bytes, bytes]:
    """Take a client through a Retry: its connection ID before and after, and the datagram that it sends then."""
    first = quic.datagrams_to_send(0.0)[0][0]
    verdict = judge(admission, first, crowd())
    assert isinstance(verdict, Refused)
    assert verdict.reason == "address_not_proven"
    assert verdict.answer is not None
    header = pull_quic_header(Buffer(data=verdict.answer), host_cid_length=CONNECTION_ID_BYTES)
    assert header.packet_type is QuicPacketType.RETRY
    quic.receive_datagram(verdict.answer, SERVER, 1.0)
    again = quic.datagrams_to_send(1.0)[0][0]
    before, after = destination_connection_id_untrusted(first), destination_connection_id_untrusted(again)
    assert before is not None
    assert after is not None
    return before, after, again


def test_a_few_are_let_in_without_proof() -> None:
    """As long as not too many are open; those that are complete, or our own, do not count."""
    data = client().datagrams_to_send(0.0)[0][0]
    links = [*crowd(MAX_UNPROVEN - 1), half_open("198.18.9.9", dialled=SocketAddress.parse("198.18.9.9:1"))]
    links += crowd(MAX_UNPROVEN, address_proven=True)
    for link in crowd():
        link.ready = True
        links.append(link)

    verdict = judge(Admission(), data, links)
    assert isinstance(verdict, Admitted)
    assert (verdict.original_cid, verdict.proven) == (destination_connection_id_untrusted(data), False)


def test_whoever_comes_back_with_the_token_is_let_in() -> None:
    """However many have not; the connection IDs are those that the client will compare."""
    admission = Admission()
    before, after, again = retried(admission, client())

    assert judge(admission, again, crowd()) == Admitted(original_cid=before, retry_source_cid=after)
    # The client expects these even when the crowd has gone meanwhile.
    assert judge(admission, again, []) == Admitted(original_cid=before, retry_source_cid=after)


def test_a_token_is_good_for_its_address_only() -> None:
    """One of somebody else's counts as none."""
    admission = Admission()
    again = retried(admission, client())[2]

    assert judge(admission, again, [], ("198.18.0.8", 4433)) == Refused(reason="invalid_token")
    assert isinstance(judge(Admission(), again, []), Admitted)
    verdict = judge(Admission(), again, crowd())
    assert isinstance(verdict, Refused)
    assert verdict.answer is not None


def test_those_with_a_proof_are_bounded_too() -> None:
    """All together, and of one address."""
    admission = Admission()
    again = retried(admission, client())[2]
    same = [half_open(PATH[0], port, address_proven=True) for port in range(MAX_PER_PREFIX)]
    many = crowd(MAX_HALF_OPEN, address_proven=True)

    for links in (same, many):
        assert isinstance(judge(admission, again, links[:-1]), Admitted)
        assert judge(admission, again, links) == Refused(reason="too_many_connections")


@pytest.mark.parametrize("path", [PATH, RelayPath(*PATH, b"channel")], ids=["dialled", "channel"])
def test_whom_we_dial_ourselves_needs_no_proof(path: Any) -> None:
    """Nor who comes by a channel that was agreed upon; but no more than a few from there."""
    data = client().datagrams_to_send(0.0)[0][0]
    ours = half_open(*PATH, dialled=SocketAddress.from_host(*PATH), introduced=True)
    links = [*crowd(MAX_HALF_OPEN), ours]

    assert isinstance(judge(Admission(), data, links, path), Admitted)
    assert isinstance(judge(Admission(), data, links, ("198.18.0.7", 4434)), Refused)
    links += [half_open(*PATH) for _ in range(MAX_EXPECTED)]
    assert isinstance(judge(Admission(), data, links, path), Refused)
    ours.ready = True
    if path is PATH:
        assert isinstance(judge(Admission(), data, links[: MAX_HALF_OPEN + 1], path), Refused)


def test_what_is_no_packet_gets_no_answer() -> None:
    """Neither a connection, while many are open, nor a Retry."""
    data = b"\xc0\0\0\0\1\x08" + bytes(8) + b"\x08" + bytes(8) + b"\xff" * 1200

    assert judge(Admission(), data, crowd()) == Refused(reason="address_not_proven")
