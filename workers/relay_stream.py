"""A bidirectional stream that the stream relay looks after: how far it has come, and when it is forgotten."""

from asyncio import TimerHandle
from enum import Enum

from workers.connection import Connection
from workers.relay_session import RelaySession


class Stage(Enum):
    """How far a stream has come; only ever moves forward."""

    REQUEST = "request"
    WAITING = "waiting"
    OPEN = "open"
    OVER = "over"
    """Refused or ended; what still arrives is nobody's."""


class RelayStream:
    """One bidirectional stream that is, or may yet become, a session; ``siblings`` is the table it stands in."""

    __slots__ = (
        "_siblings",
        "begun",
        "connection",
        "deadline",
        "ended",
        "is_hasty",
        "number",
        "session",
        "stage",
        "stream_id",
    )

    def __init__(self, connection: Connection, stream_id: int, siblings: "dict[int, RelayStream | None]") -> None:
        self.connection = connection
        self.stream_id = stream_id
        self.stage = Stage.REQUEST
        self.begun = b""
        """The beginning of a request."""
        self.ended = False
        """The peer sends no more."""
        self.number = 0
        """Towards the hub; 0 while the hub does not know of it."""
        self.session: RelaySession | None = None
        self.is_hasty = False
        """The peer has sent more without waiting for the answer."""
        self.deadline: TimerHandle | None = None
        """Of the hub's answer."""
        self._siblings = siblings

    def wait_no_more(self) -> None:
        """Forget the deadline."""
        if self.deadline is not None:
            self.deadline.cancel()
            self.deadline = None

    @property
    def waiting_siblings(self) -> int:
        """Streams of the connection that wait for the hub."""
        return sum(1 for item in self._siblings.values() if item is not None and item.stage is Stage.WAITING)

    def forget_if_over(self) -> None:
        """Leave the table once nothing more can come."""
        if self.ended and self.stage is Stage.OVER:
            self._siblings.pop(self.stream_id, None)

    def pass_on(self) -> None:
        """Note that the stream is the application's."""
        if self.ended:
            self._siblings.pop(self.stream_id, None)
        else:
            self._siblings[self.stream_id] = None
