"""How much of a load is on its way, what has arrived, and what is lost: figures only."""

from typing import Final

__all__ = ["Window"]

LOST_AFTER_S: Final = 0.02
"""Far longer than a full window takes through any relay of datagrams, and short enough to go on soon after a loss."""


class Window:
    """
    Keeps a load from overrunning a relay: at most ``limit`` datagrams are on their way.

    What was sent ``lost_after_s`` ago and has not arrived is taken for lost and makes room. A relay whose buffers hold
    less than the limit thereby drops a few datagrams at the beginning and then goes on with what fits.
    """

    __slots__ = ("_lost", "_lost_after_s", "_mark_s", "_sent_at_mark", "delivered", "limit", "sent")

    def __init__(self, limit: int, now_s: float, *, lost_after_s: float = LOST_AFTER_S) -> None:
        self.limit = limit
        self._lost_after_s = lost_after_s
        self.sent = 0
        self.delivered = 0
        self._lost = 0
        self._mark_s = now_s
        self._sent_at_mark = 0

    @property
    def room(self) -> int:
        """How many datagrams may still be sent."""
        return self.limit - self.on_the_way

    @property
    def on_the_way(self) -> int:
        """Sent, not arrived and not given up."""
        return self.sent - self.delivered - self._lost

    def tick(self, now_s: float) -> None:
        """Give up what is overdue; call it often."""
        if now_s - self._mark_s < self._lost_after_s:
            return
        self._lost = max(self._lost, self._sent_at_mark - self.delivered)
        self._sent_at_mark, self._mark_s = self.sent, now_s
