"""Tests of ``workers.admission``: every check, what it answers, and what it counts."""

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from aioquic.quic.packet import QuicPacketType
from hypothesis import given
from hypothesis import strategies as st

from antquic_server.net.udp import PathAddress
from antquic_server.protocol.codepoints import TransportErrorCode
from antquic_server.protocol.limits import KeyedBuckets
from antquic_server.stats.counters import CounterSet
from support.initials import (
    IDLE,
    OTHER_HOST,
    OTHER_PORT,
    PATH,
    UNIX_S,
    first_flight,
    header_of,
    long_header,
    make_admission,
)
from support.pair import (
    LAYOUT,
    SERVER_ADDRESS,
    SLOT,
    START_S,
    Pair,
    client_connection,
    packet_headers,
    server_connection,
)
from workers.admission import Admission, Admitted, Answer, Load

Verdict = Admitted | Answer | None
CID = bytes(range(8))


def judge(
    admission: Admission,
    data: bytes,
    *,
    path: PathAddress = PATH,
    load: Load = IDLE,
    now_s: float = 0.0,
    unix_s: float = UNIX_S,
) -> Verdict:
    """The verdict with what does not matter filled in."""
    return admission.judge_untrusted(data, path, load=load, now_s=now_s, unix_s=unix_s)


def counted(counters: CounterSet) -> dict[str, float]:
    """What is not zero."""
    return {key: value for key, value in counters.values.items() if value}


def test_ordinary_client_is_admitted() -> None:
    """An Initial of a client with nothing against it becomes a connection, and nothing is counted."""
    counters = CounterSet()
    data = first_flight()[0]
    cid = header_of(data).destination_cid
    verdict = judge(make_admission(counters=counters), data)
    assert verdict == Admitted(destination_cid=cid, original_destination_cid=cid, retry_source_cid=None)
    assert counted(counters) == {}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(first_flight()[0][:1199], "initial_too_small", id="1199-bytes"),
        pytest.param(b"\xc0", "initial_too_small", id="one-byte"),
        pytest.param(long_header(0xC0, 1, bytes(21)), "header_malformed", id="cid-too-long"),
        pytest.param(long_header(0x80, 1, CID), "header_malformed", id="no-fixed-bit"),
        pytest.param(long_header(0xC0, 1, CID, b"\x00\x7f\xff"), "header_malformed", id="length-beyond-datagram"),
        pytest.param(long_header(0xC0, 1, CID, b"\x7f\xff"), "header_malformed", id="token-beyond-datagram"),
        pytest.param(long_header(0xE0, 1, CID, b"\x44\x00"), "not_initial", id="handshake"),
        pytest.param(long_header(0xD0, 1, CID, b"\x44\x00"), "not_initial", id="0rtt"),
        pytest.param(long_header(0xF0, 1, CID), "not_initial", id="retry"),
        pytest.param(long_header(0xC0, 0, CID, size=1203), "not_initial", id="version-negotiation"),
        pytest.param(long_header(0xC0, 1, CID[:7], b"\x00\x44\x00"), "dcid_too_short", id="7-byte-cid"),
        pytest.param(long_header(0xC0, 1, b"", b"\x00\x44\x00"), "dcid_too_short", id="no-cid"),
    ],
)
def test_what_is_no_initial_is_dropped(data: bytes, reason: str) -> None:
    """Each flaw has its own counter, and no answer."""
    counters = CounterSet()
    assert judge(make_admission(counters=counters), data) is None
    assert counted(counters) == {f"drops|{reason}": 1}


@pytest.mark.parametrize("version", [0x0A1A2A3A, 0x6B3343CF, 0xFF00001D, 2])
@pytest.mark.parametrize("cid", [CID, b"", bytes(20)])
def test_other_version_is_negotiated(version: int, cid: bytes) -> None:
    """Version Negotiation lists version 1, mirrors the IDs, and is smaller than what it answers."""
    counters = CounterSet()
    verdict = judge(make_admission(counters=counters), long_header(0xC0, version, cid, b"\x00\x44\x00"))
    assert isinstance(verdict, Answer)
    header = header_of(verdict.datagram)
    assert header.packet_type is QuicPacketType.VERSION_NEGOTIATION
    assert header.supported_versions == [1]
    assert (header.source_cid, header.destination_cid) == (cid, b"\xc1\xc2\xc3\xc4")
    assert len(verdict.datagram) < 100
    assert counted(counters) == {"version_negotiations": 1}


def test_small_datagram_of_another_version_gets_nothing() -> None:
    """RFC 9000, section 6.1: no Version Negotiation for less than 1200 bytes."""
    assert judge(make_admission(), long_header(0xC0, 0x0A1A2A3A, CID, size=1199)) is None


def test_version_of_another_layout_is_negotiated() -> None:
    """RFC 8999: behind the connection IDs a version may look like anything."""
    verdict = judge(make_admission(), long_header(0x80, 0x0A1A2A3A, CID, b"\xff" * 100))
    assert isinstance(verdict, Answer)


@pytest.mark.parametrize(("connections", "admitted"), [(99, True), (100, False), (101, False)])
def test_full_node_refuses(connections: int, admitted: bool) -> None:
    """At the bound of the whole node a client is told so at once."""
    counters = CounterSet()
    client = client_connection()
    load = replace(IDLE, connections_on_node=connections)
    verdict = judge(make_admission(counters=counters, max_connections=100), first_flight(client)[0], load=load)
    if admitted:
        assert isinstance(verdict, Admitted)
        return
    assert isinstance(verdict, Answer)
    client.receive_datagram(verdict.datagram, SERVER_ADDRESS, START_S)
    assert client.close_code == TransportErrorCode.CONNECTION_REFUSED
    assert counted(counters) == {"handshake_failures|max_connections": 1}


@pytest.mark.parametrize(
    ("load", "demanded"),
    [
        (replace(IDLE, half_open=9), False),
        (replace(IDLE, half_open=10), True),
        (replace(IDLE, loop_lag_s=1.0), True),
    ],
)
def test_retry_under_pressure(load: Load, demanded: bool) -> None:
    """Handshakes in flight or a loop that is behind make every newcomer prove its address."""
    counters = CounterSet()
    admission = make_admission(counters=counters, retry="auto", half_open_threshold=10)
    verdict = judge(admission, first_flight()[0], load=load)
    assert isinstance(verdict, Answer if demanded else Admitted)
    assert counted(counters) == ({"retries": 1} if demanded else {})


def test_retry_leads_back_to_this_slot() -> None:
    """The ID the client is to use is of our layout and slot, and the answer is smaller than the Initial."""
    data = first_flight()[0]
    verdict = judge(make_admission(retry="always"), data)
    assert isinstance(verdict, Answer)
    header = header_of(verdict.datagram)
    assert header.packet_type is QuicPacketType.RETRY
    assert header.destination_cid == header_of(data).source_cid
    assert LAYOUT.is_ours(header.source_cid)
    assert LAYOUT.slot_of(header.source_cid) == SLOT
    assert len(verdict.datagram) < 300


def retried_flight(
    sealed_by: Admission, *, unix_s: float = UNIX_S, path: PathAddress = PATH
) -> tuple[Any, list[bytes]]:
    """A client that has been given a Retry, and its second first flight."""
    client = client_connection()
    verdict = judge(sealed_by, first_flight(client)[0], unix_s=unix_s, path=path)
    assert isinstance(verdict, Answer)
    client.receive_datagram(verdict.datagram, SERVER_ADDRESS, START_S)
    flight = [data for data, _ in client.datagrams_to_send(START_S)]
    assert header_of(flight[0]).token
    return client, flight


@pytest.mark.parametrize("same_worker", [True, False])
def test_token_is_honoured_by_every_worker(same_worker: bool) -> None:
    """A token opens the door at the worker that sealed it and at any other with the same root secret."""
    counters = CounterSet()
    first = make_admission(retry="always", counters=counters)
    second = first if same_worker else make_admission(retry="always", counters=counters, seed=1)
    client, flight = retried_flight(first)
    for data in flight:
        verdict = judge(second, data, unix_s=UNIX_S + 10)
        assert isinstance(verdict, Admitted)
        assert verdict.destination_cid == verdict.retry_source_cid == header_of(data).destination_cid
        assert verdict.original_destination_cid == client.original_destination_connection_id
    assert counters.values["tokens|valid"] == len(flight)


def test_whole_handshake_with_a_retry() -> None:
    """Client and server agree on the three IDs of RFC 9000, section 7.3, and complete."""
    admission = make_admission(retry="always")
    client, flight = retried_flight(admission)
    verdict = judge(admission, flight[0])
    assert isinstance(verdict, Admitted)
    pair = Pair(
        client,
        partial(
            server_connection,
            original_destination_cid=verdict.original_destination_cid,
            retry_source_cid=verdict.retry_source_cid,
        ),
    )
    for data in flight:
        pair.deliver(data)
    assert pair.run(lambda: pair.established, 10.0), pair.describe()


@pytest.mark.parametrize(("path", "age_s"), [(OTHER_HOST, 0.0), (OTHER_PORT, 0.0), (PATH, 16.0), (PATH, -16.0)])
def test_token_that_does_not_fit_is_refused(path: PathAddress, age_s: float) -> None:
    """A token of ours from another address, or too old, ends the attempt with INVALID_TOKEN."""
    counters = CounterSet()
    admission = make_admission(retry="always", counters=counters)
    client, flight = retried_flight(admission)
    counters.values["retries"] = 0
    verdict = judge(admission, flight[0], path=path, unix_s=UNIX_S + age_s)
    assert isinstance(verdict, Answer)
    client.receive_datagram(verdict.datagram, SERVER_ADDRESS, START_S)
    assert client.close_code == TransportErrorCode.INVALID_TOKEN
    assert counted(counters) == {"tokens|invalid": 1, "handshake_failures|invalid_token": 1}


def test_token_with_another_connection_id_is_refused() -> None:
    """A token belongs to the one Retry it came with."""
    admission = make_admission(retry="always")
    _, flight = retried_flight(admission)
    token = header_of(flight[0]).token
    stolen = long_header(0xC0, 1, CID, b"\x40" + bytes([len(token)]) + token + b"\x44\x00")
    verdict = judge(admission, stolen)
    assert isinstance(verdict, Answer)
    assert [header.packet_type for header in packet_headers(verdict.datagram)] == [QuicPacketType.INITIAL]


@pytest.mark.parametrize("retry", ["off", "always"])
@pytest.mark.parametrize("token", [b"x", b"token of some other node".ljust(100, b".")])
def test_foreign_token_counts_as_none(retry: str, token: bytes) -> None:
    """ant-quic peers present tokens of other nodes: no reason to refuse, and no proof of anything."""
    counters = CounterSet()
    client = client_connection(token=token)
    verdict = judge(make_admission(retry=retry, counters=counters), first_flight(client)[0])
    assert isinstance(verdict, Admitted if retry == "off" else Answer)
    if isinstance(verdict, Admitted):
        assert verdict.retry_source_cid is None
    assert counters.values["tokens|foreign"] == 1
    assert counters.values["retries"] == (retry == "always")


def test_token_sealed_with_another_root_secret_is_foreign() -> None:
    """A node that was started anew does not know its predecessor's tokens, and asks again."""
    _, flight = retried_flight(make_admission(retry="always", root_secret=bytes(32)))
    counters = CounterSet()
    verdict = judge(make_admission(retry="always", counters=counters), flight[0])
    assert isinstance(verdict, Answer)
    assert counted(counters) == {"tokens|foreign": 1, "retries": 1}


def test_address_rate() -> None:
    """An address gets its burst and then its rate; another address is not affected."""
    counters = CounterSet()
    admission = make_admission(counters=counters, address_rates=KeyedBuckets(1.0, 2.0, 1 << 12))
    data = first_flight()[0]
    verdicts = [judge(admission, data, now_s=10.0) for _ in range(3)]
    assert [verdict is not None for verdict in verdicts] == [True, True, False]
    assert judge(admission, data, now_s=10.0, path=OTHER_PORT) is None
    assert judge(admission, data, now_s=10.0, path=OTHER_HOST) is not None
    assert judge(admission, data, now_s=11.0) is not None
    assert counted(counters) == {"drops|address_rate": 2}


def test_prefix_rate() -> None:
    """Many addresses of one IPv6 customer share a rate."""
    counters = CounterSet()
    admission = make_admission(counters=counters, prefix_rates=KeyedBuckets(1.0, 2.0, 1 << 12))
    data = first_flight()[0]
    paths = [PATH._replace(host=f"2001:db8:1:{network:x}::1") for network in range(3)]
    verdicts = [judge(admission, data, now_s=10.0, path=path) for path in paths]
    assert [verdict is not None for verdict in verdicts] == [True, True, False]
    assert judge(admission, data, now_s=10.0, path=PATH._replace(host="2001:db8:ffff::1")) is not None
    assert counted(counters) == {"drops|prefix_rate": 1}


def test_retry_comes_before_the_rates() -> None:
    """A flood of spoofed Initials answered by Retry does not use up what an honest client needs."""
    admission = make_admission(retry="always", address_rates=KeyedBuckets(0.0, 1.0, 16))
    _, flight = retried_flight(admission)
    for _ in range(50):
        assert isinstance(judge(admission, first_flight()[0]), Answer)
    assert isinstance(judge(admission, flight[0]), Admitted)
    assert judge(admission, flight[0]) is None


@given(data=st.binary(max_size=80), size=st.sampled_from([0, 1200]), first=st.integers(0x80, 0xFF))
def test_any_bytes_lead_to_a_verdict(data: bytes, size: int, first: int) -> None:
    """Whatever a stranger sends: no exception, and never more back than came in."""
    datagram = (bytes([first]) + data).ljust(size, b"\x00")
    verdict = judge(make_admission(retry="always"), datagram)
    if isinstance(verdict, Answer):
        assert len(verdict.datagram) < len(datagram)
