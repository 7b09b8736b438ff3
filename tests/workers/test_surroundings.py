"""Tests of ``workers.surroundings``: the declarations keep what they are given."""

from dataclasses import FrozenInstanceError

import pytest

from antquic_server.ipc.messages import Drained, Message
from workers.surroundings import EndpointLimits, Hooks


def test_hooks_lead_to_what_they_were_made_from() -> None:
    """Three doors, and none can be replaced later."""
    said: list[Message] = []

    def tell_hub(message: Message) -> bool:
        said.append(message)
        return False

    hooks = Hooks(peer_up=lambda _: None, peer_down=lambda _: None, tell_hub=tell_hub)
    assert not hooks.tell_hub(Drained(connections=1))
    assert said == [Drained(connections=1)]
    with pytest.raises(FrozenInstanceError):
        hooks.tell_hub = tell_hub  # type: ignore[misc]


def test_limits_are_seconds() -> None:
    """A keep-alive of 0 sends none, so both may be anything from 0."""
    limits = EndpointLimits(handshake_timeout_s=5.0, keep_alive_s=0.0)
    assert (limits.handshake_timeout_s, limits.keep_alive_s) == (5.0, 0.0)
