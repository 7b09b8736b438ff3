"""Connection IDs: made for a slot, recognised, and read off datagrams."""

from collections import Counter
from collections.abc import Callable

import pytest
from aioquic.buffer import Buffer
from aioquic.quic.packet import pull_quic_header
from hypothesis import given
from hypothesis import strategies as st

from antquic_server.errors import ConnectionIdDecodeError
from antquic_server.protocol.routing import (
    CONNECTION_ID_LENGTH_BYTES,
    MAX_WORKER_COUNT,
    STEERING_BYTE_INDEX,
    ConnectionIdLayout,
    destination_connection_id_untrusted,
    owner_slot,
)
from support.strategies import connection_ids, random_source, random_sources, worker_counts

NODE_ID = b"\x12\x34"


def long_header(destination: bytes, source: bytes = b"", first_byte: int = 0xC0) -> bytes:
    """Write an Initial header without token, up to its payload of 20 bytes."""
    return (
        bytes((first_byte, 0, 0, 0, 1, len(destination)))
        + destination
        + bytes((len(source),))
        + source
        + b"\x00\x14"
        + bytes(20)
    )


def short_header(destination: bytes) -> bytes:
    """Write a short header with some payload."""
    return b"\x40" + destination + bytes(20)


@given(worker_count=worker_counts(), data=st.data(), random_bytes=random_sources())
def test_new_connection_id_leads_to_its_slot(
    worker_count: int, data: st.DataObject, random_bytes: Callable[[int], bytes]
) -> None:
    """In both kinds of header, for any number of workers."""
    layout = ConnectionIdLayout(node_id=NODE_ID, worker_count=worker_count)
    slot = data.draw(st.integers(0, worker_count - 1))
    connection_id = layout.new_connection_id(slot, random_bytes)
    assert len(connection_id) == CONNECTION_ID_LENGTH_BYTES
    assert connection_id[:STEERING_BYTE_INDEX] == b"\x09" + NODE_ID
    assert layout.is_ours(connection_id)
    assert layout.slot_of(connection_id) == slot
    for datagram in (short_header(connection_id), long_header(connection_id)):
        assert destination_connection_id_untrusted(datagram) == connection_id
        assert owner_slot(datagram, worker_count) == slot


@pytest.mark.parametrize("worker_count", [1, 3, 4, 7, 52, 63, 64])
def test_steering_byte_takes_every_value_of_its_slot(worker_count: int) -> None:
    """All values that belong to a slot occur, about equally often, and no other."""
    layout = ConnectionIdLayout(node_id=NODE_ID, worker_count=worker_count)
    random_bytes = random_source(b"steering")
    for slot in {0, worker_count // 2, worker_count - 1}:
        values = [value for value in range(256) if value % worker_count == slot]
        draws = 40 * len(values)
        seen = Counter(layout.new_connection_id(slot, random_bytes)[STEERING_BYTE_INDEX] for _ in range(draws))
        assert set(seen) == set(values)
        # 40 are expected of each; the seed is fixed, so this never fails by chance.
        assert max(seen.values()) < 80


def test_new_connection_id_draws_a_fresh_nonce() -> None:
    """Two connection IDs of a slot share nothing an observer could link but the node."""
    layout = ConnectionIdLayout(node_id=NODE_ID, worker_count=1)
    random_bytes = random_source(b"nonce")
    assert len({layout.new_connection_id(0, random_bytes)[4:] for _ in range(100)}) == 100


@pytest.mark.parametrize("slot", [-1, 4])
def test_connection_id_for_a_slot_that_does_not_exist_is_not_made(slot: int) -> None:
    """It would steer to a neighbour."""
    layout = ConnectionIdLayout(node_id=NODE_ID, worker_count=4)
    with pytest.raises(ValueError, match="expected 0 to 3"):
        layout.new_connection_id(slot, random_source(b""))


@pytest.mark.parametrize(("node_id", "worker_count"), [(b"\x00", 1), (bytes(3), 1), (NODE_ID, 0), (NODE_ID, 65)])
def test_impossible_layout_cannot_be_constructed(node_id: bytes, worker_count: int) -> None:
    """The limits of the layout are checked once, not per connection ID."""
    with pytest.raises(ValueError, match=r"node_id has|worker_count is"):
        ConnectionIdLayout(node_id=node_id, worker_count=worker_count)


@pytest.mark.parametrize(
    "connection_id",
    [
        b"",
        b"\x09" + NODE_ID + bytes(6),
        b"\x09" + NODE_ID + bytes(8),
        b"\x08" + NODE_ID + bytes(7),
        b"\x29" + NODE_ID + bytes(7),
        b"\x09\x12\x35" + bytes(7),
    ],
    ids=["empty", "short", "long", "other length bits", "other rotation bits", "other node"],
)
def test_connection_id_of_another_shape_is_not_ours(connection_id: bytes) -> None:
    """Each part of the layout is looked at."""
    assert not ConnectionIdLayout(node_id=NODE_ID, worker_count=4).is_ours(connection_id)


@given(connection_id=connection_ids(), worker_count=worker_counts())
def test_slot_of_a_foreign_connection_id_is_that_of_its_datagram(connection_id: bytes, worker_count: int) -> None:
    """Or it is refused, when the filter would look past its end."""
    layout = ConnectionIdLayout(node_id=NODE_ID, worker_count=worker_count)
    try:
        slot = layout.slot_of(connection_id)
    except ConnectionIdDecodeError:
        assert len(connection_id) <= STEERING_BYTE_INDEX
        return
    assert slot == owner_slot(long_header(connection_id), worker_count)


@given(destination=connection_ids(), source=connection_ids(), as_view=st.booleans())
def test_long_header_gives_the_connection_id_the_quic_stack_reads(
    destination: bytes, source: bytes, as_view: bool
) -> None:
    """An independent parser agrees; a memoryview works like bytes and the result is bytes."""
    datagram = long_header(destination, source)
    read = destination_connection_id_untrusted(memoryview(datagram) if as_view else datagram)
    header = pull_quic_header(Buffer(data=datagram), host_cid_length=CONNECTION_ID_LENGTH_BYTES)
    assert read == header.destination_cid == destination
    assert type(read) is bytes


@given(destination=connection_ids())
def test_cut_long_header_gives_none(destination: bytes) -> None:
    """Every prefix that ends inside the connection ID."""
    datagram = long_header(destination)
    end = 6 + len(destination)
    for length in range(end):
        assert destination_connection_id_untrusted(datagram[:length]) is None
    assert destination_connection_id_untrusted(datagram[:end]) == destination


def test_cut_short_header_gives_none() -> None:
    """Every prefix that ends inside the connection ID."""
    datagram = short_header(bytes(range(10)))
    for length in range(11):
        assert destination_connection_id_untrusted(datagram[:length]) is None
    assert destination_connection_id_untrusted(datagram[:11]) == bytes(range(10))


@pytest.mark.parametrize("length", [21, 255])
def test_connection_id_beyond_version_1_is_for_other_versions(length: int) -> None:
    """Of version 1 there is none; of another it is read whole, and only if the datagram holds it in full."""
    datagram = long_header(bytes(length))
    assert datagram[1:5] == b"\0\0\0\1"
    assert destination_connection_id_untrusted(datagram) is None
    other = datagram[:1] + b"\x1a\x2a\x3a\x4a" + datagram[5:]
    for found in (other, memoryview(other)):
        assert destination_connection_id_untrusted(found) == bytes(length)
    end = 6 + length
    assert destination_connection_id_untrusted(other[:end]) == bytes(length)
    assert destination_connection_id_untrusted(other[: end - 1]) is None


@given(datagram=st.binary(max_size=40), worker_count=worker_counts())
def test_arbitrary_datagram_has_an_owner(datagram: bytes, worker_count: int) -> None:
    """Nothing is raised before anything is known about a sender."""
    assert 0 <= owner_slot(datagram, worker_count) < worker_count <= MAX_WORKER_COUNT
    connection_id = destination_connection_id_untrusted(datagram)
    assert connection_id is None or connection_id in datagram
    assert owner_slot(memoryview(datagram), worker_count) == owner_slot(datagram, worker_count)
