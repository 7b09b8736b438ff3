"""
What supervisor and worker say to each other about logs and traces; their conversation is in ``ipc.messages``.

A trace (qlog) is asked for by peer id, of every worker. Each writes files of its own making into ``directory``, named
after slot and connection only, and says what it has written; a path that came from a worker would be followed by the
supervisor, and by whoever fetches the files with more rights.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLevels:
    """Levels that hold from now on, and the limits of repetition; see ``[log]``."""

    level: str
    modules: dict[str, str]
    repeat_burst: int
    repeat_window_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class QlogStart:
    """
    Trace the connections of a peer, those that it opens meanwhile included, for ``seconds``.

    At most ``max_connections`` of them, ``max_bytes`` for each file.
    """

    capture: int
    peer_id: bytes
    seconds: float
    directory: str
    max_connections: int
    max_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class QlogStop:
    """End a trace before its time."""

    capture: int


@dataclass(frozen=True, slots=True, kw_only=True)
class QlogWritten:
    """
    The trace of one connection is complete, in the file that ``qlog_file_name`` names.

    ``from_start`` says that its handshake is part of it, ``truncated`` that it reached ``max_bytes``.
    """

    capture: int
    connection: int
    events: int
    from_start: bool
    truncated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class QlogEnded:
    """This worker is done with a trace; ``refused`` connections were too many to be traced, ``error`` ended it."""

    capture: int
    refused: int
    error: str


def qlog_file_name(slot: int, generation: int, connection: int) -> str:
    """Return the name of the file of one connection; of numbers only."""
    return f"slot{slot}-generation{generation}-connection{connection}.qlog"
