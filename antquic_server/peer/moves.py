"""
Moving live connections to other paths: which are being probed, until when, and what became of it.

Only the client of a connection moves it (``protocol.seam.migration``). It probes, again and again, and goes on with the
path it has until the other side answers on the new one. Pure: time is an argument.
"""

from collections.abc import Callable
from dataclasses import dataclass

from antquic_server.peer.link import Link, Path

__all__ = ["PROBE_INTERVAL_S", "Moves"]

PROBE_INTERVAL_S = 0.25


@dataclass(slots=True, kw_only=True)
class _Move:
    link: Link
    path: Path
    deadline_s: float
    probe_at_s: float


class Moves:
    """
    Every move under way.

    Args:
        touch: Has a connection flushed.
        moved: Told of a connection that has moved, and the path it has left.
        failed: Told of a connection and the path on which nobody has answered.
    """

    def __init__(
        self,
        *,
        touch: Callable[[Link], None],
        moved: Callable[[Link, Path, float], None],
        failed: Callable[[Link, Path, float], None],
    ) -> None:
        self._touch = touch
        self._moved = moved
        self._failed = failed
        self._moves: list[_Move] = []

    def __contains__(self, link: Link) -> bool:
        return any(move.link is link for move in self._moves)

    def begin(self, link: Link, path: Path, now_s: float, deadline_s: float) -> None:
        """Move a connection to ``path`` as soon as the other side is reached there, at the latest by the deadline."""
        if any(move.link is link and move.path == path for move in self._moves):
            return
        link.probing.append(path)
        self._moves.append(_Move(link=link, path=path, deadline_s=deadline_s, probe_at_s=now_s))
        self.handle_timer(now_s)

    def give_up(self, link: Link, path: Path | None = None) -> None:
        """Move no longer, to this path or to any."""
        for move in self._of(link):
            if path is None or move.path == path:
                self._end(move)

    def next_deadline_s(self) -> float | None:
        """Return when :meth:`handle_timer` is due."""
        return min((min(move.probe_at_s, move.deadline_s) for move in self._moves), default=None)

    def handle_timer(self, now_s: float) -> None:
        """Probe what is to be probed, and give up what has taken too long."""
        for move in list(self._moves):
            if move not in self._moves:
                continue
            if now_s >= move.deadline_s:
                self._end(move)
                self._failed(move.link, move.path, now_s)
            elif now_s >= move.probe_at_s:
                move.probe_at_s = now_s + PROBE_INTERVAL_S
                move.link.quic.probe_path(move.path)
                self._touch(move.link)

    def look(self, link: Link, before: Path, now_s: float) -> None:
        """Take in that a connection was looked after, and whether it has moved from the path it had before."""
        arrived = [move for move in self._of(link) if link.quic.is_on_path(move.path)]
        if arrived:
            for move in self._of(link):
                self._end(move)
            self._moved(link, before, now_s)

    def _of(self, link: Link) -> list[_Move]:
        return [move for move in self._moves if move.link is link]

    def _end(self, move: _Move) -> None:
        self._moves.remove(move)
        move.link.probing.remove(move.path)
        if not move.link.closed:
            move.link.quic.abandon_path(move.path)
            self._touch(move.link)
