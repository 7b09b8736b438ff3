"""Dials of a peer: to an address, to candidates of an introduction, through a relay; and their end when not needed."""

from collections.abc import Callable

from antquic_server.peer.events import DialFailed
from antquic_server.peer.link import Link, Path, Quic
from antquic_server.peer.links import Links
from antquic_server.peer.punching import DETAILS, Failure
from antquic_server.peer.statistics import Tallies
from antquic_server.protocol.address import SocketAddress
from antquic_server.protocol.codepoints import ApplicationErrorCode

__all__ = ["DIRECT_SERVER_NAME", "PUNCH_SERVER_NAME", "Dials", "failed_dial", "give_up"]

DIRECT_SERVER_NAME = "peer"
PUNCH_SERVER_NAME = "nat-traversal-peer"


class Dials:
    """Begins handshakes and ends them."""

    def __init__(
        self,
        *,
        links: Links,
        make_client: Callable[[str], Quic],
        path_to: Callable[[SocketAddress], Path | None],
        path_by_stream: Callable[[bytes, SocketAddress], Path | None],
        tallies: Tallies,
    ) -> None:
        self._links = links
        self._make_client = make_client
        self._path_to = path_to
        self._path_by_stream = path_by_stream
        self._tallies = tallies

    def direct(self, address: SocketAddress, now_s: float, deadline_s: float) -> Link | None:
        """Dial a node or a peer whose address is known; None if no socket of ours can send there."""
        path = self._path_to(address)
        if path is None:
            return None
        quic = self._make_client(DIRECT_SERVER_NAME)
        return self._links.dial(quic, path, now_s=now_s, deadline_s=deadline_s, dialled=address, is_node=True)

    def candidate(self, address: SocketAddress, target: bytes, now_s: float, deadline_s: float) -> None:
        """Dial where a peer may be, or repeat a dial that is under way; from our relay's port if we have one for it."""
        by_relay = self._path_by_stream(target, address)
        for link in self._links:
            same = link.introduced and link.dialled == address and link.expected_peer_id == target
            if same and link.relayed == (by_relay is not None) and not link.ready:
                link.handshake_deadline_s = deadline_s
                link.burst_again(now_s)
                link.bursts_left_s.append(now_s)
                self._links.touch(link)
                return
        path = by_relay or self._path_to(address)
        if path is None:
            self._tallies.drops["no_route"] += 1
            return
        quic = self._make_client(PUNCH_SERVER_NAME)
        facts = {"dialled": address, "expected_peer_id": target, "introduced": True}
        self._links.dial(quic, path, now_s=now_s, deadline_s=deadline_s, **facts)

    def relayed(self, path: Path, target: bytes, now_s: float, deadline_s: float) -> Link:
        """Dial a peer through a relay."""
        facts = {
            "dialled": SocketAddress.from_host(path[0], path[1]),
            "expected_peer_id": target,
            "introduced": True,
        }
        quic = self._make_client(DIRECT_SERVER_NAME)
        return self._links.dial(quic, path, now_s=now_s, deadline_s=deadline_s, **facts)

    def cancel(self, target: bytes) -> None:
        """End the dials that are not needed any more; whoever has heard of one is told."""
        for link in self._links:
            wanted = link.ready or link.quic.handshake_complete
            if link.introduced and link.expected_peer_id == target and not wanted:
                give_up(link)
                self._links.touch(link)

    def supersede(self, link: Link) -> None:
        """Close a connection that another one has made needless."""
        _close_superseded(link)
        self._links.touch(link)


def give_up(link: Link) -> None:
    """End a dial that is not wanted any more; whoever has heard of it is told with the next flush."""
    if link.quic.is_pristine:
        link.quic.abandon(0, "not needed")
    else:
        _close_superseded(link)


def _close_superseded(link: Link) -> None:
    link.quic.close(error_code=ApplicationErrorCode.SUPERSEDED, reason_phrase="Superseded")


def failed_dial(link: Link, reason: str) -> DialFailed:
    """Tell why a dial has come to nothing; ``reason`` is what QUIC says, or the other side."""
    timed_out = reason in ("handshake timeout", "Idle timeout")
    failure = Failure.DIAL_TIMEOUT if timed_out else Failure.REFUSED
    return DialFailed(link=link, failure=failure, detail=DETAILS[failure] if timed_out or not reason else reason)
