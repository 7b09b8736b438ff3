"""
Whole messages out of unidirectional streams: put together, within bounds, and handed to whoever they are for.

=====================  ================================================================
begins like            goes to
=====================  ================================================================
coordination           hole punching (``peer.introductions``), if a node says it
channels               relaying (``peer.relaying``)
a probe                is answered at once
anything else          the program
=====================  ================================================================
"""

from collections.abc import Callable
from dataclasses import dataclass

from aioquic.quic.events import StreamDataReceived

from antquic_server.errors import CoordinationDecodeError
from antquic_server.peer.link import Link
from antquic_server.peer.settings import PeerSettings
from antquic_server.peer.statistics import Tallies
from antquic_server.protocol.codepoints import ApplicationErrorCode
from antquic_server.protocol.coordination import Envelope, decode_envelope_untrusted, is_coordination_message
from antquic_server.protocol.liveness import answer_probe_untrusted
from antquic_server.protocol.relay_control import is_channel_message

__all__ = ["PARTIAL_MESSAGES", "Messages", "Receivers"]

PARTIAL_MESSAGES = 4
"""Unfinished messages of one peer may together be as long as this many of the longest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Receivers:
    """Who takes what, each with the connection it has come on."""

    coordination: Callable[[Envelope, Link, float], None]
    channel: Callable[[bytes, Link, float], None]
    answer: Callable[[Link, bytes], object]
    """Sends the answer to a probe."""
    program: Callable[[Link, bytes], None]


class Messages:
    """The unidirectional streams of all connections."""

    def __init__(self, receivers: Receivers, *, settings: PeerSettings, tallies: Tallies) -> None:
        self._receivers = receivers
        self._longest_bytes = settings.max_message_bytes
        self._tallies = tallies

    def take_untrusted(self, link: Link, event: StreamDataReceived, now_s: float) -> None:
        """Take in a part of a stream; at its end it is one message."""
        partial = link.partial_messages
        data = partial.get(event.stream_id)
        if data is None:
            data = partial[event.stream_id] = bytearray()
        data += event.data
        too_much = sum(map(len, partial.values())) > PARTIAL_MESSAGES * self._longest_bytes
        if len(data) > self._longest_bytes or too_much:
            del partial[event.stream_id]
            self._tallies.drops["message_too_long"] += 1
            if not event.end_stream:
                link.quic.stop_stream(event.stream_id, ApplicationErrorCode.NONE)
        elif event.end_stream:
            del partial[event.stream_id]
            if data:
                self._deliver_untrusted(link, bytes(data), now_s)

    def _deliver_untrusted(self, link: Link, data: bytes, now_s: float) -> None:
        if is_coordination_message(data):
            try:
                envelope = decode_envelope_untrusted(data)
            except CoordinationDecodeError:
                envelope = None
            if envelope is None or not link.is_node or not link.ready:
                self._tallies.drops["coordination_message"] += 1
                return
            link.coordinates = True
            self._receivers.coordination(envelope, link, now_s)
            return
        if is_channel_message(data):
            self._receivers.channel(data, link, now_s)
            return
        answer = answer_probe_untrusted(data)
        if answer is not None:
            self._receivers.answer(link, answer)
        else:
            self._receivers.program(link, data)
