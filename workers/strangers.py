"""
What happens to a datagram that belongs to no connection of this slot.

It is passed on to the slot that owns its connection ID, becomes a new connection, or is answered or dropped without
leaving any state behind. Answers: Retry, Version Negotiation, a refusal, a stateless reset (RFC 9000, section 10.3);
none is larger than what came in.
"""

import socket
import time
from collections.abc import Callable

from antquic_server.net.stray import send_stray
from antquic_server.net.udp import PathAddress
from antquic_server.protocol.limits import TokenBucket
from antquic_server.protocol.routing import ConnectionIdLayout, owner_slot
from antquic_server.protocol.stateless_reset import build_stateless_reset, reset_token
from antquic_server.stats.counters import CounterSet
from workers.admission import Admission, Admitted, Answer, Load

_LONG_HEADER = 0x80


class Strangers:
    """Decides about datagrams of unknown connections; ``reply`` sends an answer."""

    def __init__(
        self,
        *,
        slot: int,
        layout: ConnectionIdLayout,
        stray_senders: list[socket.socket],
        admission: Admission,
        counters: CounterSet,
        reset_key: bytes,
        resets_per_s: float,
        random_bytes: Callable[[int], bytes],
        reply: Callable[[PathAddress, bytes], None],
    ) -> None:
        self.accepting = True
        """False while draining: nobody new is let in."""
        self._slot = slot
        self._layout = layout
        self._stray_senders = stray_senders
        self._admission = admission
        self._counters = counters
        self._reset_key = reset_key
        # A second's worth at once; a rate of 0 means none at all.
        self._reset_bucket = TokenBucket(resets_per_s, max(1.0, resets_per_s) if resets_per_s else 0.0)
        self._random_bytes = random_bytes
        self._reply = reply

    def pass_on(self, data: bytes, path: PathAddress) -> bool:
        """Send a datagram of another slot there; False if it is for this one."""
        owner = owner_slot(data, self._layout.worker_count)
        if owner == self._slot:
            return False
        if send_stray(self._stray_senders[owner], path, data):
            self._counters.values["misrouted_forwarded"] += 1
        else:
            self._counters.add("drops", 1, "stray_queue_full")
        return True

    def judge_untrusted(
        self, data: bytes, path: PathAddress, cid: bytes | None, *, load: Load, now_s: float
    ) -> Admitted | None:
        """Admit a client, or answer or drop its datagram."""
        if cid is None:
            self._counters.add("drops", 1, "header_malformed")
        elif not data[0] & _LONG_HEADER:
            self._reset(data, path, cid, now_s)
        elif not self.accepting:
            self._counters.add("drops", 1, "draining")
        else:
            verdict = self._admission.judge_untrusted(data, path, load=load, now_s=now_s, unix_s=time.time())
            if isinstance(verdict, Admitted):
                return verdict
            if isinstance(verdict, Answer):
                self._reply(path, verdict.datagram)
        return None

    def _reset(self, data: bytes, path: PathAddress, cid: bytes, now_s: float) -> None:
        if not self._layout.is_ours(cid):
            self._counters.add("drops", 1, "unknown_connection_id")
            return
        reset = build_stateless_reset(reset_token(self._reset_key, cid), len(data), self._random_bytes)
        if reset is None:
            self._counters.add("drops", 1, "too_short_for_reset")
        elif not self._reset_bucket.take(now_s):
            self._counters.add("drops", 1, "reset_rate")
        else:
            self._reply(path, reset)
            self._counters.add("stateless_resets")
