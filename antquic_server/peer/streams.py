"""Which streams of a connection are not over yet: which of them waits for something, which can be forgotten."""

from collections.abc import Callable

from antquic_server.errors import PeerError
from antquic_server.peer.link import Link
from antquic_server.peer.stream import PeerStream, Standing

__all__ = ["Streams"]


class Streams:
    """
    Streams by QUIC connection and number, until QUIC itself has forgotten them.

    That is when both directions have ended and the end of ours is acknowledged; nothing more can arrive for them then.
    Whoever holds a :class:`PeerStream` longer keeps what is left of it: data not yet read, and the end or the error.
    """

    def __init__(self, touch: Callable[[Link], None]) -> None:
        self._touch = touch
        self._standing = Standing()
        self._by_key: dict[tuple[int, int], PeerStream] = {}

    def __len__(self) -> int:
        return len(self._by_key)

    def find(self, link: Link, stream_id: int) -> PeerStream | None:
        """Return a stream that is not over."""
        return self._by_key.get((link.number, stream_id))

    def begin(self, link: Link, stream_id: int) -> PeerStream:
        """Make the object for a stream that QUIC knows, or is told of next."""
        stream = PeerStream(link, stream_id, self._touch, self._standing)
        self._by_key[link.number, stream_id] = stream
        return stream

    def wake(self) -> None:
        """Something was sent or acknowledged: let waiting writers look again, and forget what is over."""
        for stream in list(self._standing.blocked):
            stream.wake()
        for stream in [stream for stream in self._standing.ending if not stream.is_known]:
            self._forget(stream)

    def link_closed(self, number: int, error: PeerError) -> None:
        """End the streams of one QUIC connection."""
        for stream in [stream for (link, _), stream in self._by_key.items() if link == number]:
            stream.fail(error)
            self._forget(stream)

    def end(self, error: PeerError) -> None:
        """End all of them."""
        for stream in list(self._by_key.values()):
            stream.fail(error)
            self._forget(stream)

    def _forget(self, stream: PeerStream) -> None:
        del self._by_key[stream.key]
        stream.leave()
