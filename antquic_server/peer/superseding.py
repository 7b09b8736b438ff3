"""
When a connection that has lost to another one is closed.

It goes on serving what was begun on it: while stream data moves it stays, and while streams are open, or data of ours
is not acknowledged, it stays for a good while longer, so that no byte is lost to a better connection. Then it is
closed, unless the winner turns out to be dead; in that case it lives again.
"""

from antquic_server.peer.link import Link
from antquic_server.protocol.codepoints import ApplicationErrorCode

__all__ = ["DRAIN_S", "LONGEST_DRAIN_S", "drained", "supersede"]

DRAIN_S = 5.0
"""Silence after which a superseded connection is closed; ant-quic's own grace."""
LONGEST_DRAIN_S = 60.0
"""The same while streams are open or data waits: a stream that nobody ends must not keep it for ever."""


def supersede(loser: Link, live: Link, now_s: float) -> None:
    """Plan the end of a connection, and have the other one prove that somebody is there; flush both afterwards."""
    loser.superseded_at_s = now_s
    loser.drain_at_s = now_s + DRAIN_S
    live.drain_at_s = None
    # An older connection that stays must prove that somebody is still there.
    live.quic.send_ping(0)


def drained(link: Link, live: Link | None, now_s: float) -> Link | None:
    """Close a superseded connection if it is time; returns the connection to flush, perhaps the other one."""
    quiet_since_s = max(link.last_progress_s, link.superseded_at_s)
    busy = link.quic.open_streams > 0 or link.quic.send_backlog_bytes() > 0
    if now_s < quiet_since_s + DRAIN_S:
        link.drain_at_s = quiet_since_s + DRAIN_S
        return None
    if busy and now_s < quiet_since_s + LONGEST_DRAIN_S:
        link.drain_at_s = now_s + DRAIN_S
        return None
    link.drain_at_s = None
    if live is not None and live is not link and live.last_received_s < link.superseded_at_s:
        live.quic.abandon(0, "no sign of life")
        return live
    link.quic.close(error_code=ApplicationErrorCode.SUPERSEDED, reason_phrase="Superseded")
    return link
