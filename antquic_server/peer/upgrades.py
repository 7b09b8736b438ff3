"""
From relayed to direct: when to try again, and what happens to the two connections when it succeeds.

A connection that a node carries goes on as it is while both sides are introduced again and dial each other, first after
a few seconds and then ever more rarely. A direct connection that comes about so is a *spare*: it has proven a path, and
carries nothing. The client of the relayed connection moves that connection to the path; the spares are then closed, and
the channel is hung up. Streams and messages do not notice. With peers that know nothing of this (ant-quic's), and
through stream relays, of which only one end knows, there are two connections instead, of which one supersedes the
other, as it has always been. Pure: time is an argument.
"""

from collections.abc import Callable
from dataclasses import dataclass

from antquic_server.peer.link import Link
from antquic_server.peer.moves import Moves
from antquic_server.peer.relay_paths import RelayPath
from antquic_server.peer.relays import offers_channels

__all__ = ["DELAYS_S", "FOLLOW_S", "MOVE_S", "Upgrades"]

DELAYS_S = (5.0, 15.0, 60.0, 300.0)
"""Waits before the first, second … attempt to get a direct path; the last one is repeated."""
SOON_S = 0.2
"""Wait after our address or what is known of our NAT has changed."""
MOVE_S = 10.0
"""How long the client of a relayed connection tries to move it."""
FOLLOW_S = 15.0
"""How long its server waits for that before it lets the two connections be two."""
LATE_S = 10.0
"""How long after a move a further direct connection counts as one of the same attempt."""
MAX_SPARES = 4
"""Direct connections of one peer that wait; both sides dial, each perhaps at two addresses."""


@dataclass(slots=True, kw_only=True)
class _Relayed:
    link: Link
    attempts: int = 0
    try_at_s: float | None = None


@dataclass(slots=True, kw_only=True)
class _Spares:
    links: list[Link]
    until_s: float


class Upgrades:
    """
    Every relayed connection of one peer, and the spares.

    Args:
        moves: Moves connections.
        punch: Begins an attempt through the nodes; False if that cannot be done now.
        adopt: Takes a spare in as an ordinary connection.
        close: Closes a spare that is not needed.
        enabled: False for a peer that is to stay relayed.
    """

    def __init__(
        self,
        *,
        moves: Moves,
        punch: Callable[[bytes, float], bool],
        adopt: Callable[[Link, float], None],
        close: Callable[[Link], None],
        enabled: bool,
    ) -> None:
        self._moves = moves
        self._punch = punch
        self._adopt = adopt
        self._close = close
        self._enabled = enabled
        self._relayed: dict[bytes, _Relayed] = {}
        self._spares: dict[bytes, _Spares] = {}
        self._late_until_s: dict[bytes, float] = {}
        """Until when a connection that comes about may still be of the attempt that has made another one direct."""

    def watch(self, peer_id: bytes, link: Link, now_s: float) -> None:
        """Take in that the live connection of a peer is relayed; its client tries for a direct path."""
        known = self._relayed.get(peer_id)
        if not self._enabled or (known is not None and known.link is link):
            return
        try_at_s = now_s + DELAYS_S[0] if link.dialled_by_us else None
        self._relayed[peer_id] = _Relayed(link=link, try_at_s=try_at_s)

    def forget(self, peer_id: bytes) -> None:
        """Take in that the live connection of a peer is not relayed any more, or gone."""
        self._relayed.pop(peer_id, None)

    def hurry(self, now_s: float) -> None:
        """Try at once, and then from the beginning: something that matters to punching has changed."""
        for each in self._relayed.values():
            each.attempts, each.try_at_s = 0, now_s + SOON_S

    def keep(self, peer_id: bytes, link: Link, live: Link | None, now_s: float) -> bool:
        """Decide about a new connection: True if it is a spare for the live one, which is relayed or was until now."""
        if live is None or link.relayed or not live.ready or not offers_channels(live):
            return False
        # Both ends know of a channel. Of a stream relay only the end does that has it: the other one goes by the rule
        # for two connections, and so must both.
        late = not live.relayed and now_s < self._late_until_s.get(peer_id, now_s)
        if not isinstance(live.path, RelayPath) and not late:
            return False
        if late and live.dialled_by_us:
            # Both sides dial, and one dial was quicker: at the other end, too, this one is a spare.
            link.spare = True
            self._close(link)
            return True
        spares = self._spares.setdefault(peer_id, _Spares(links=[], until_s=now_s + FOLLOW_S))
        link.spare = True
        if len(spares.links) >= MAX_SPARES:
            self._close(link)
            return True
        spares.links.append(link)
        if live.dialled_by_us:
            self._moves.begin(live, link.path, now_s, now_s + MOVE_S)
        return True

    def take_spare(self, peer_id: bytes) -> Link | None:
        """Return a spare to live on with: the relayed connection has ended. The others follow later."""
        self._late_until_s.pop(peer_id, None)
        spares = self._spares.get(peer_id)
        usable = [] if spares is None else [link for link in spares.links if not link.quic.is_closing]
        if not usable:
            return None
        usable[0].spare = False
        self.link_closed(usable[0])
        return usable[0]

    def give_up(self, peer_id: bytes) -> list[Link]:
        """Forget a peer; returns the spares, which are to be closed."""
        self.forget(peer_id)
        spares = self._spares.get(peer_id)
        return [] if spares is None else list(spares.links)

    def link_closed(self, link: Link) -> None:
        """Take in that a connection has ended; it may have been a spare."""
        peer_id = link.peer_id
        spares = None if peer_id is None else self._spares.get(peer_id)
        if peer_id is not None and spares is not None and link in spares.links:
            spares.links.remove(link)
            if not spares.links:
                del self._spares[peer_id]

    def arrived(self, peer_id: bytes, now_s: float, *, by_us: bool) -> None:
        """Take in that the connection is direct now; who has moved it closes the spares."""
        self.forget(peer_id)
        self._late_until_s = {key: at_s for key, at_s in self._late_until_s.items() if now_s < at_s}
        self._late_until_s[peer_id] = now_s + LATE_S
        spares = self._spares.get(peer_id) if by_us else None
        for link in list(spares.links) if spares is not None else []:
            self._close(link)

    def move_failed(self, peer_id: bytes, live: Link, now_s: float) -> None:
        """Take in that nobody has answered on a path of a spare."""
        if live not in self._moves:
            self._let_be_two(peer_id, now_s)

    def _let_be_two(self, peer_id: bytes, now_s: float) -> None:
        spares = self._spares.pop(peer_id, None)
        for link in spares.links if spares is not None else []:
            link.spare = False
            if not link.closed and not link.quic.is_closing:
                self._adopt(link, now_s)

    # Time.

    def next_deadline_s(self) -> float | None:
        """Return when :meth:`handle_timer` is due."""
        times = [each.try_at_s for each in self._relayed.values() if each.try_at_s is not None]
        times += [spares.until_s for spares in self._spares.values()]
        return min(times, default=None)

    def handle_timer(self, now_s: float, is_direct: Callable[[bytes], bool]) -> None:
        """Begin attempts that are due, and end the wait for moves that do not come."""
        for peer_id, each in list(self._relayed.items()):
            if each.try_at_s is None or now_s < each.try_at_s:
                continue
            if not self._punch(peer_id, now_s):
                each.try_at_s = now_s + DELAYS_S[0]
                continue
            each.attempts += 1
            # The side that was dialled tries only when it has a reason to.
            again_s = now_s + DELAYS_S[min(each.attempts, len(DELAYS_S) - 1)]
            each.try_at_s = again_s if each.link.dialled_by_us else None
        for peer_id, spares in list(self._spares.items()):
            if now_s < spares.until_s:
                continue
            if is_direct(peer_id):
                # It has moved, and whoever should have closed these has not.
                for link in spares.links:
                    self._close(link)
                spares.until_s = now_s + FOLLOW_S
            else:
                self._let_be_two(peer_id, now_s)
