"""Tests of the coordination messages: ant-quic's exact form, and everything that is not it."""

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antquic_server.errors import CoordinationDecodeError
from antquic_server.protocol.address import SocketAddress
from antquic_server.protocol.coordination import (
    MAX_ADDRESSES,
    MAX_MESSAGE_BYTES,
    PREFIX,
    CoordinationAccepted,
    CoordinationMessage,
    CoordinationRejected,
    CoordinationRequest,
    Envelope,
    RejectionReason,
    decode_envelope_untrusted,
    encode_envelope,
    is_coordination_message,
)
from support.coordination import ALICE, BOB, on_the_wire, request_fields
from support.strategies import coordination_envelopes, mutations

FOUR = SocketAddress.parse("198.18.0.5:4433")
SIX = SocketAddress.parse("[2001:db8::1]:4433")
ONES = "[" + ",".join(["1"] * 32) + "]"
TWOS = "[" + ",".join(["2"] * 32) + "]"

# As serde_json writes ant-quic's structures: fields in the order of declaration, no blanks.
AS_ANT_QUIC_WRITES_IT: dict[str, tuple[str, CoordinationMessage]] = {
    "request": (
        (
            '{"request_id":7,"expires_at_unix_ms":1764000000000,"message":{"CoordinationRequest":{"initiator":'
            f'{ONES},"target":{TWOS},"round":1,"initiator_addrs":["198.18.0.5:4433","[2001:db8::1]:4433"]}}}}}}'
        ),
        CoordinationRequest(initiator=b"\x01" * 32, target=b"\x02" * 32, round=1, initiator_addrs=(FOUR, SIX)),
    ),
    "accepted": (
        (
            '{"request_id":7,"expires_at_unix_ms":1764000000000,"message":{"CoordinationAccepted":{"initiator":'
            f'{ONES},"target":{TWOS},"round":1,"initiator_addrs":["198.18.0.5:4433"],'
            '"target_addrs":["[2001:db8::1]:4433"]}}}'
        ),
        CoordinationAccepted(
            initiator=b"\x01" * 32, target=b"\x02" * 32, round=1, initiator_addrs=(FOUR,), target_addrs=(SIX,)
        ),
    ),
    "rejected": (
        (
            '{"request_id":7,"expires_at_unix_ms":1764000000000,"message":{"CoordinationRejected":{"initiator":'
            f'{ONES},"target":{TWOS},"round":1,"reason":"UnknownTarget"}}}}}}'
        ),
        CoordinationRejected(
            initiator=b"\x01" * 32, target=b"\x02" * 32, round=1, reason=RejectionReason.UNKNOWN_TARGET
        ),
    ),
}


@pytest.mark.parametrize("name", AS_ANT_QUIC_WRITES_IT)
def test_messages_are_written_and_read_as_ant_quic_does(name: str) -> None:
    """Byte for byte, in both directions."""
    text, message = AS_ANT_QUIC_WRITES_IT[name]
    data = b"AQCC\x01" + text.encode()
    envelope = Envelope(request_id=7, expires_at_unix_ms=1764000000000, message=message)

    assert encode_envelope(envelope) == data
    assert decode_envelope_untrusted(data) == envelope


@given(coordination_envelopes())
def test_messages_survive_the_round_trip(envelope: Envelope) -> None:
    """What is read equals what was written."""
    data = encode_envelope(envelope)

    assert is_coordination_message(data)
    assert decode_envelope_untrusted(data) == envelope


@given(coordination_envelopes(), st.data())
def test_mutated_messages_raise_only_the_decode_error(envelope: Envelope, data: st.DataObject) -> None:
    """Changed, cut out or inserted bytes are refused, or make another sound message."""
    damaged = data.draw(mutations(encode_envelope(envelope)))
    try:
        decode_envelope_untrusted(damaged)
    except CoordinationDecodeError:
        return


@given(coordination_envelopes(), st.data())
def test_truncated_messages_are_refused(envelope: Envelope, data: st.DataObject) -> None:
    """A message without its end is no message, wherever it is cut."""
    whole = encode_envelope(envelope)
    with pytest.raises(CoordinationDecodeError):
        decode_envelope_untrusted(whole[: data.draw(st.integers(0, len(whole) - 1))])


@given(st.binary(max_size=100))
def test_random_bytes_after_the_prefix_raise_only_the_decode_error(data: bytes) -> None:
    """The prefix promises nothing about the rest."""
    try:
        decode_envelope_untrusted(PREFIX + data)
    except CoordinationDecodeError:
        return


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=20), inner, max_size=3),
    max_leaves=6,
)


@given(JSON, st.sampled_from(["", "request_id", "expires_at_unix_ms", "message"]))
def test_any_json_raises_only_the_decode_error(value: object, field: str) -> None:
    """Sound JSON of another shape, as a whole or in the place of one field."""
    fields: Any = value if not field else request_fields(ALICE, BOB) | {field: value}
    try:
        decode_envelope_untrusted(on_the_wire(fields))
    except CoordinationDecodeError:
        return


@given(JSON, st.sampled_from(["initiator", "target", "round", "initiator_addrs"]))
def test_any_json_in_a_field_raises_only_the_decode_error(value: object, field: str) -> None:
    """The same inside the request."""
    fields = request_fields(ALICE, BOB)
    fields["message"]["CoordinationRequest"][field] = value
    try:
        decode_envelope_untrusted(on_the_wire(fields))
    except CoordinationDecodeError:
        return


def test_order_blanks_and_unknown_fields_do_not_matter() -> None:
    """JSON objects have no order, and a newer peer may have more to say."""
    fields = request_fields(ALICE, BOB, request_id=2**64 - 1, expires_at_unix_ms=0)
    expected = decode_envelope_untrusted(on_the_wire(fields))
    body = fields["message"]["CoordinationRequest"]
    reordered = {
        "later": {"CoordinationRequest": None},
        "message": {"CoordinationRequest": {"hint": [1], **dict(reversed(body.items()))}},
        "expires_at_unix_ms": 0,
        "request_id": 2**64 - 1,
    }

    assert decode_envelope_untrusted(PREFIX + json.dumps(reordered, indent=4).encode()) == expected


def _changed(change: Callable[[dict[str, Any], dict[str, Any]], object]) -> bytes:
    fields = copy.deepcopy(request_fields(ALICE, BOB))
    change(fields, fields["message"]["CoordinationRequest"])
    return on_the_wire(fields)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda top, body: top.pop("request_id"), id="no request id"),
        pytest.param(lambda top, body: top.pop("expires_at_unix_ms"), id="no expiry"),
        pytest.param(lambda top, body: top.pop("message"), id="no message"),
        pytest.param(lambda top, body: body.pop("initiator"), id="no initiator"),
        pytest.param(lambda top, body: body.pop("target"), id="no target"),
        pytest.param(lambda top, body: body.pop("round"), id="no round"),
        pytest.param(lambda top, body: body.pop("initiator_addrs"), id="no addresses"),
        pytest.param(lambda top, body: top.update(request_id=2**64), id="request id too large"),
        pytest.param(lambda top, body: top.update(request_id=-1), id="request id below 0"),
        pytest.param(lambda top, body: top.update(request_id=True), id="request id a flag"),
        pytest.param(lambda top, body: top.update(request_id=1.0), id="request id a fraction"),
        pytest.param(lambda top, body: top.update(request_id="1"), id="request id text"),
        pytest.param(lambda top, body: body.update(round=2**32), id="round too large"),
        pytest.param(lambda top, body: body["initiator"].pop(), id="initiator too short"),
        pytest.param(lambda top, body: body["initiator"].append(0), id="initiator too long"),
        pytest.param(lambda top, body: body["target"].__setitem__(0, 256), id="target not bytes"),
        pytest.param(lambda top, body: body["target"].__setitem__(0, -1), id="target below 0"),
        pytest.param(lambda top, body: body["target"].__setitem__(0, False), id="target with a flag"),
        pytest.param(lambda top, body: body.update(target="00" * 32), id="target text"),
        pytest.param(lambda top, body: body.update(initiator_addrs="198.18.0.5:1"), id="addresses text"),
        pytest.param(lambda top, body: body.update(initiator_addrs=[1]), id="address a number"),
        pytest.param(
            lambda top, body: body.update(initiator_addrs=["198.18.0.5:1"] * (MAX_ADDRESSES + 1)), id="many addresses"
        ),
        pytest.param(lambda top, body: top["message"].update(More={}), id="two variants"),
        pytest.param(lambda top, body: top.update(message={}), id="no variant"),
        pytest.param(lambda top, body: top.update(message="CoordinationRequest"), id="variant alone"),
        pytest.param(lambda top, body: top.update(message={"CoordinationRequest": []}), id="body a list"),
    ],
)
def test_what_lacks_a_field_or_exceeds_its_range_is_refused(
    change: Callable[[dict[str, Any], dict[str, Any]], object],
) -> None:
    """Every field is checked for its presence, type and range."""
    decode_envelope_untrusted(_changed(lambda top, body: None))
    with pytest.raises(CoordinationDecodeError):
        decode_envelope_untrusted(_changed(change))


@pytest.mark.parametrize("reason", ["Whatever", None, 1, [], {}])
def test_unknown_reasons_are_refused(reason: object) -> None:
    """A rejection has one of six reasons."""
    body = {"initiator": list(ALICE), "target": list(BOB), "round": 1, "reason": reason}
    fields = {"request_id": 1, "expires_at_unix_ms": 1, "message": {"CoordinationRejected": body}}
    with pytest.raises(CoordinationDecodeError):
        decode_envelope_untrusted(on_the_wire(fields))


@pytest.mark.parametrize("variant", ["CoordinationOffer", "CoordinationReady", "CoordinationTomorrow", ""])
def test_variants_a_coordinator_has_no_use_for_are_nothing(variant: str) -> None:
    """They are neither read nor an error."""
    assert decode_envelope_untrusted(on_the_wire({"message": {variant: {"any": "thing"}}})) is None


def test_addresses_that_mean_nothing_here_are_left_out() -> None:
    """An address with a zone, a host name or no port does not spoil the others; mapped ones become IPv4."""
    texts = ("[fe80::1%3]:1", "example.org:1", "198.18.0.5", "", "\ud800:1", "[::ffff:198.18.0.5]:9", "[::]:4433")
    envelope = decode_envelope_untrusted(on_the_wire(request_fields(ALICE, BOB, addresses=texts)))

    assert envelope is not None
    assert isinstance(envelope.message, CoordinationRequest)
    assert [str(item) for item in envelope.message.initiator_addrs] == ["198.18.0.5:9", "[::]:4433"]


@pytest.mark.parametrize("excess", [0, 1])
def test_longest_message(excess: int) -> None:
    """Up to the bound a message is read, beyond it not even looked at."""
    data = on_the_wire(request_fields(ALICE, BOB))
    padded = data + b" " * (MAX_MESSAGE_BYTES + excess - len(data))
    if excess:
        with pytest.raises(CoordinationDecodeError, match="too long"):
            decode_envelope_untrusted(padded)
    else:
        assert decode_envelope_untrusted(padded) is not None


def test_longest_request_an_ant_quic_peer_can_make_fits() -> None:
    """All 64 addresses in their longest form, and the largest numbers."""
    longest = "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535"
    fields = request_fields(b"\xff" * 32, b"\xfe" * 32, request_id=2**64 - 1, addresses=(longest,) * MAX_ADDRESSES)

    data = on_the_wire(fields)
    assert len(data) < MAX_MESSAGE_BYTES / 3
    assert decode_envelope_untrusted(data) is not None


@pytest.mark.parametrize(
    "nonsense", [b"", b"[" * 16_000, b'{"a":' * 3_000, b"1" * 10_000, b"\xff\xfe", b"NaN", b"null"]
)
def test_json_that_is_hard_on_parsers_is_refused(nonsense: bytes) -> None:
    """Deep nesting and endless numbers are errors like any other."""
    with pytest.raises(CoordinationDecodeError):
        decode_envelope_untrusted(PREFIX + nonsense)


@pytest.mark.parametrize("data", [b"", b"AQCC", b"AQCC\x02{}", b"AQCD\x01{}", b" AQCC\x01{}"])
def test_other_versions_and_prefixes_are_not_ours(data: bytes) -> None:
    """They are application data; who decodes them nevertheless gets the one error."""
    assert not is_coordination_message(data)
    with pytest.raises(CoordinationDecodeError):
        decode_envelope_untrusted(data)
