"""
One leg of a relay channel: when to bind, whether the node has taken it, whether the channel is still there.

::

    BINDING   a bind every quarter second until the node answers; given up after a few seconds
              at once when the node asks for it again with a nonce, which shows that we are where it comes from
    BOUND     a bind every ten seconds, which keeps the NAT's mapping and the channel
              at once when nothing comes back for a second: our NAT may have given us another port
              at once when the other side falls silent: it, or the channel, may be gone
              at once when the node's connection is lost: the channel may be gone with its worker

Pure: time is an argument, datagrams are return values.
"""

from antquic_server.peer.link import Path
from antquic_server.peer.relay_paths import RelayPath
from antquic_server.protocol.relay_channel import (
    NO_NONCE,
    bind_counter_untrusted,
    bind_nonce_untrusted,
    data_header,
    encode_bind,
    unknown_token_untrusted,
    verify_leg_untrusted,
)

__all__ = ["BIND_INTERVAL_S", "BIND_REPEAT_S", "Channel"]

BIND_REPEAT_S = 0.25
BIND_INTERVAL_S = 10.0
UNANSWERED_S = 3.0
"""Binds without an answer for this long mean that the node is not there, or that it does not reach us."""
SUSPECT_S = 1.0
"""The same once the connection to the node is lost as well."""
SILENCE_S = 1.0
"""Sending without hearing anything for this long is reason to bind anew; every end of QUIC answers sooner."""
QUIET_S = 0.5
"""Hearing nothing for this long after having heard something is reason to ask, once, whether the channel is there."""
_MICROSECONDS = 1_000_000


class Channel:
    """
    Our leg of one channel.

    Args:
        channel_id: As the node has named it.
        key: What our binds are made with.
        token: What proves that a word about the channel's end is the node's.
        peer_id: Who is at the other end.
        node: Peer id of the node.
        via: Where its datagrams go: the path of our connection to the node.
        opened_by_us: Whether we have asked for it; we then dial through it, and open another if it is lost.
        unix_s: The wall clock, from which the counter of binds begins.
    """

    def __init__(
        self,
        *,
        channel_id: bytes,
        key: bytes,
        token: bytes,
        peer_id: bytes,
        node: bytes,
        via: Path,
        opened_by_us: bool,
        now_s: float,
        unix_s: float,
    ) -> None:
        self.channel_id = channel_id
        self.header = data_header(channel_id)
        self.peer_id = peer_id
        self.node = node
        self.via = via
        self.opened_by_us = opened_by_us
        self.path = RelayPath(str(via[0]), int(via[1]), channel_id)
        self.opened_s = now_s
        self.is_bound = False
        self.bytes_sent = 0
        self.bytes_received = 0
        self._key = key
        self._token = token
        self._nonce = NO_NONCE
        self._counter = int(unix_s * _MICROSECONDS)
        self._first_unanswered = self._counter + 1
        self._bind_at_s = now_s
        self._lost_at_s = now_s + UNANSWERED_S
        self._awaiting_since_s: float | None = None
        self._heard_s = now_s
        self._quiet_at_s: float | None = None

    # Time.

    @property
    def next_deadline_s(self) -> float:
        """When :meth:`take_bind` or :meth:`is_lost` has something to say."""
        times = [self._bind_at_s]
        if self._awaiting_since_s is not None:
            times.append(self._awaiting_since_s + SILENCE_S)
        if self._quiet_at_s is not None:
            times.append(self._quiet_at_s)
        if not self.is_bound:
            times.append(self._lost_at_s)
        return min(times)

    def take_bind(self, now_s: float) -> bytes | None:
        """Return the bind that is due."""
        if self._awaiting_since_s is not None and now_s >= self._awaiting_since_s + SILENCE_S:
            self.rebind(now_s)
        if self._quiet_at_s is not None and now_s >= self._quiet_at_s:
            self._look_for_quiet(now_s)
        if now_s < self._bind_at_s:
            return None
        if self.is_bound:
            # The regular one: its answer shows that the channel is still there.
            self._await_answer(now_s, UNANSWERED_S)
        self._bind_at_s = now_s + BIND_REPEAT_S
        self._counter += 1
        return encode_bind(self.channel_id, self._counter, self._key, self._nonce)

    def _look_for_quiet(self, now_s: float) -> None:
        quiet_at_s = self._heard_s + QUIET_S
        if now_s < quiet_at_s:
            # Something has come since this was planned.
            self._quiet_at_s = quiet_at_s
            return
        self._quiet_at_s = None
        self.rebind(now_s)

    def is_lost(self, now_s: float) -> bool:
        """Whether the node has not answered for so long that the channel counts as gone."""
        return not self.is_bound and now_s >= self._lost_at_s

    def rebind(self, now_s: float) -> None:
        """Bind at once: packets of ours may come from another port now."""
        self._awaiting_since_s = None
        if self.is_bound:
            self._await_answer(now_s, UNANSWERED_S)
        self._bind_at_s = now_s

    def suspect(self, now_s: float) -> None:
        """Find out quickly whether the channel is still there."""
        self._await_answer(now_s, SUSPECT_S)
        self._bind_at_s = now_s

    def _await_answer(self, now_s: float, patience_s: float) -> None:
        self.is_bound = False
        self._first_unanswered = self._counter + 1
        self._lost_at_s = now_s + patience_s

    # Datagrams.

    def wrap(self, datagrams: list[bytes], now_s: float) -> list[bytes]:
        """Return datagrams for the peer as they go to the node."""
        if self._awaiting_since_s is None:
            self._awaiting_since_s = now_s
        header = self.header
        self.bytes_sent += sum(map(len, datagrams))
        return [header + data for data in datagrams]

    def received(self, payload: bytes, now_s: float) -> None:
        """Take in that a datagram of the peer has come."""
        self._awaiting_since_s = None
        self._heard_s = now_s
        if self._quiet_at_s is None:
            self._quiet_at_s = now_s + QUIET_S
        self.bytes_received += len(payload)

    def bound_untrusted(self, datagram: bytes, now_s: float) -> bool:
        """Take in the answer to a bind; False if it is no answer of the node's to a bind that waits for one."""
        if not self._answers_untrusted(datagram):
            return False
        self.is_bound = True
        self._nonce = bind_nonce_untrusted(datagram)
        self._first_unanswered = self._counter + 1
        self._bind_at_s = now_s + BIND_INTERVAL_S
        return True

    def challenged_untrusted(self, datagram: bytes, now_s: float) -> bool:
        """Take in that the node wants to see a nonce in the bind; False if it is no answer of the node's, as above."""
        if not self._answers_untrusted(datagram):
            return False
        nonce = bind_nonce_untrusted(datagram)
        if nonce != self._nonce:
            # Several binds may have been under way: one answer to their challenges is enough.
            self._nonce = nonce
            self._bind_at_s = now_s
        return True

    def _answers_untrusted(self, datagram: bytes) -> bool:
        counter = bind_counter_untrusted(datagram)
        return self._first_unanswered <= counter <= self._counter and verify_leg_untrusted(datagram, self._key)

    def is_gone_untrusted(self, datagram: bytes) -> bool:
        """Whether the node says so; RelayDecodeError if the datagram is not what it says it in."""
        return unknown_token_untrusted(datagram) == self._token
