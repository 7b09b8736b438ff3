"""
Going on after a NAT has forgotten its mappings in the middle of a connection.

From then on the packets of the side behind it come from another port. That is no matter to a NAT on the other side that
does not filter by port: QUIC follows the packets. One that does drops them, and neither side hears of the other again.

So a peer notices, and is introduced anew by a node; the request alone tells the node where the peer is now. Both dial,
as at first, which opens both filters. The dials make another connection; the one that had stopped moves to its address,
and so not a byte of what was under way is lost.

* **Who sends notices** that nothing is answered: :func:`is_stalled`.
* **Who receives** does not know whether there is more to come. It asks once, ``SILENCE_S`` after the last data:
  :func:`ask_when_silent`. Until it sends something, nobody can know where it is now.
"""

from collections.abc import Iterable

from antquic_server.peer.link import Link

__all__ = ["SILENCE_S", "ask_when_silent", "is_silent", "is_stalled", "may_look_again", "move_to"]

SILENCE_S = 2.0
"""Longer than any round trip; much shorter than the idle timeout, which would end the connection."""
LOOK_AGAIN_S = 5.0
"""Each time both sides dial, and a node is asked; a connection lasts for a few times of this without an answer."""
UNANSWERED_PROBES = 2
"""On a path with long round trips this takes longer than ``SILENCE_S``: probes are sent ever more rarely."""


def is_stalled(link: Link, now_s: float) -> bool:
    """Whether a connection that came about through a node waits in vain for an answer of the other side."""
    if not (link.ready and link.punched) or link.is_node or link.quic.is_closing:
        return False
    return link.quic.unanswered_probes >= UNANSWERED_PROBES and _is_quiet(link, now_s)


def may_look_again(link: Link, now_s: float) -> bool:
    """Whether something is to be done about a stalled connection now; not again for the next few seconds then."""
    if not is_stalled(link, now_s) or now_s < link.look_again_at_s:
        return False
    link.look_again_at_s = now_s + LOOK_AGAIN_S
    return True


def ask_when_silent(link: Link, now_s: float) -> None:
    """Take in that data has arrived; some time after the last of it a question goes out."""
    if link.silence_at_s is None and link.punched and not link.is_node:
        link.silence_at_s = now_s + SILENCE_S


def is_silent(link: Link, now_s: float) -> bool:
    """Take in that the time for the question has come; returns whether it is to be asked, or was put off."""
    if link.silence_at_s is None or now_s < link.silence_at_s:
        return False
    quiet_at_s = link.last_data_s + SILENCE_S
    link.silence_at_s = quiet_at_s if quiet_at_s > now_s else None
    return link.silence_at_s is None


def move_to(found: Link, others: Iterable[Link], now_s: float) -> list[Link]:
    """Move the silent ones of a peer's connections to where it has just proven to be; returns those."""
    moved = [link for link in others if link is not found and link.ready and _is_quiet(link, now_s)]
    for link in moved:
        link.path = found.path
        link.quic.use_path(found.path, now_s)
    return moved


def _is_quiet(link: Link, now_s: float) -> bool:
    return now_s - link.last_received_s >= SILENCE_S
