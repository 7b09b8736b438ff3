"""
When clients must prove their address with a Retry before they get a handshake (RFC 9000, section 8.1.2).

``auto`` switches on when handshakes pile up or the event loop falls behind, and off again only once both have
calmed down to half: without that gap a node at its limit would switch with every handshake.
"""

from dataclasses import dataclass

LOOP_LAG_LIMIT_S = 0.25
"""A quarter of the 1 s after which a client repeats its Initial: beyond it, load starts to feed itself."""


@dataclass(slots=True)
class RetryPolicy:
    """``mode`` is ``off``, ``auto`` or ``always``; ``half_open_threshold`` counts handshakes in flight."""

    mode: str
    half_open_threshold: int
    _pressed: bool = False

    def demands_retry(self, *, half_open: int, loop_lag_s: float) -> bool:
        """Return whether an Initial without a token is answered by a Retry now."""
        if self.mode != "auto":
            return self.mode == "always"
        if half_open >= self.half_open_threshold or loop_lag_s >= LOOP_LAG_LIMIT_S:
            self._pressed = True
        elif half_open <= self.half_open_threshold // 2 and loop_lag_s <= LOOP_LAG_LIMIT_S / 2:
            self._pressed = False
        return self._pressed
