"""Tests of the messages about talkers: number and bytes."""

from antquic_server.ipc.codec import decode_untrusted, encode
from antquic_server.ipc.messages import KINDS, MAX_MESSAGE_BYTES
from antquic_server.ipc.talker_messages import MAX_TALKERS, Talker, TopTalkers

TALKER = Talker(
    peer_id=b"\xaa",
    host="::1",
    port=443,
    bytes_sent=1,
    bytes_received=2,
    interval_bytes_sent=3,
    interval_bytes_received=4,
)


def test_snapshot_of_the_wire_form() -> None:
    """The bytes are what they were: another version of a worker must understand them."""
    message = TopTalkers(interval_s=2.0, talkers=[TALKER])
    expected = "9337cb40000000000000009197c401aaa33a3a31cd01bb01020304"

    assert KINDS[55] is TopTalkers
    assert encode(message)[4:].hex() == expected
    assert decode_untrusted(bytes.fromhex(expected)) == message


def test_fullest_report_is_small() -> None:
    """About a kilobyte every two seconds."""
    most = Talker(
        peer_id=bytes(32),
        host="2001:db8:ffff:ffff:ffff:ffff:ffff:ffff",
        port=65535,
        bytes_sent=2**63,
        bytes_received=2**63,
        interval_bytes_sent=2**63,
        interval_bytes_received=2**63,
    )
    size = len(encode(TopTalkers(interval_s=2.0, talkers=[most] * MAX_TALKERS)))

    assert size < 1300 < MAX_MESSAGE_BYTES
