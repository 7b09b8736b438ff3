"""What the core tells."""

import dataclasses
from typing import get_args

import pytest

from antquic_server.peer import events


@pytest.mark.parametrize("kind", get_args(events.PeerEvent))
def test_events_are_frozen_values(kind: type) -> None:
    """Nobody can change what has happened."""
    assert dataclasses.is_dataclass(kind)
    assert kind.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert kind.__name__ in events.__all__
