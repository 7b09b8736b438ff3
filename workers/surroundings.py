"""What an endpoint is told about the rest of its worker: whom to report to, and how long to wait."""

from collections.abc import Callable
from dataclasses import dataclass

from antquic_server.ipc.messages import Message
from workers.connection import Connection


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointLimits:
    """Durations in seconds; see ``config.model`` for what each means."""

    handshake_timeout_s: float
    keep_alive_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """What the rest of the worker is told: authenticated peers come, move and go, and what the hub must know."""

    peer_up: Callable[[Connection], None]
    peer_down: Callable[[Connection], None]
    tell_hub: Callable[[Message], bool]
