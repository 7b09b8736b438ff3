"""
Going on after a NAT has forgotten its mappings in the middle of a connection.

From then on the packets of the side behind it come from another port. That is no matter to a NAT on the other side that
does not filter by port: QUIC follows the packets. One that does drops them, and neither side hears of the other again.

So a peer notices, and is introduced anew by a node; the request alone tells the node where the peer is now. Both dial,
as at first, which opens both filters. The dials make another connection; the one that had stopped moves to its address,
and so not a byte of what was under way is lost.

* **Who sends notices** that nothing is answered: :func:`is_stalled`.
* **Who receives** does not know whether there is more to come. It asks once, ``SILENCE_S`` after the last data:
  :func:`data_arrived`. Until it sends something, nobody can know where it is now.
"""

from collections.abc import Callable

from antquic_server.peer.link import Link
from antquic_server.peer.registry import Registry

__all__ = ["SILENCE_S", "Recovery", "data_arrived", "is_silent", "is_stalled"]

SILENCE_S = 2.0
"""Longer than any round trip; much shorter than the idle timeout, which would end the connection."""
LOOK_AGAIN_S = 5.0
"""Each time both sides dial, and a node is asked; a connection lasts for a few times of this without an answer."""
UNANSWERED_PROBES = 2
"""On a path with long round trips this takes longer than ``SILENCE_S``: probes are sent ever more rarely."""


def is_stalled(link: Link, now_s: float) -> bool:
    """Whether a connection that came about through a node waits in vain for an answer of the other side."""
    if not (link.ready and link.punched) or link.is_node or link.relayed or link.quic.is_closing:
        # A relayed one is mended by ``peer.relaying``.
        return False
    return link.quic.unanswered_probes >= UNANSWERED_PROBES and _is_quiet(link, now_s)


def data_arrived(link: Link, now_s: float) -> None:
    """Take in that stream data has arrived; some time after the last of it a question goes out."""
    link.last_data_s = now_s
    if link.silence_at_s is None and link.punched and not link.is_node:
        link.silence_at_s = now_s + SILENCE_S


def is_silent(link: Link, now_s: float) -> bool:
    """Take in that the time for the question has come; returns whether it is to be asked, or was put off."""
    if link.silence_at_s is None or now_s < link.silence_at_s:
        return False
    quiet_at_s = link.last_data_s + SILENCE_S
    link.silence_at_s = quiet_at_s if quiet_at_s > now_s else None
    return link.silence_at_s is None


def _is_quiet(link: Link, now_s: float) -> bool:
    return now_s - link.last_received_s >= SILENCE_S


class Recovery:
    """
    What one endpoint does about connections that stall.

    Args:
        registry: All connections of each peer.
        find: Returns a connection by its number.
        touch: Told which connections have something to send.
        look_for: Has a node introduce us to a peer; takes the time as well.
    """

    def __init__(
        self,
        registry: Registry,
        find: Callable[[int | None], Link | None],
        touch: Callable[[Link], None],
        look_for: Callable[[bytes, float], None],
    ) -> None:
        self._registry = registry
        self._find = find
        self._touch = touch
        self._look_for = look_for

    def check(self, link: Link, now_s: float) -> None:
        """Do something about a connection if it is stalled; not again for the next few seconds then."""
        peer_id = link.peer_id
        if peer_id is None or now_s < link.look_again_at_s or not is_stalled(link, now_s):
            return
        link.look_again_at_s = now_s + LOOK_AGAIN_S
        live = self._find(self._registry.live(peer_id))
        if live is None or live is link or live.relayed or is_stalled(live, now_s):
            self._look_for(peer_id, now_s)
        else:
            # Found by another connection already.
            self._move(link, live, now_s)

    def found(self, link: Link, now_s: float) -> None:
        """Take in a new connection: those of the same peer that are quiet go on where that one is."""
        assert link.peer_id is not None, "only connections whose peer is known are registered"
        for number in self._registry.numbers(link.peer_id):
            other = self._find(number)
            if other is None or other is link or other.relayed or link.relayed:
                continue
            if other.ready and _is_quiet(other, now_s):
                self._move(other, link, now_s)

    def _move(self, link: Link, found: Link, now_s: float) -> None:
        link.path = found.path
        link.quic.use_path(found.path, now_s)
        self._touch(link)
