"""The two measurements, small."""

import json

import pytest

from antquic_server.tuning.effects import (
    GUIDE_BYTES,
    NODE_BYTES,
    STOCK_BYTES,
    Effects,
    Kept,
    measure_effects,
    render_effects,
    render_effects_json,
)


@pytest.fixture(scope="module")
def effects() -> Effects:
    """Both measurements with 2000 datagrams and 300 sockets."""
    return measure_effects(burst=2000, ports=300)


def test_a_larger_buffer_keeps_more_of_a_burst(effects: Effects) -> None:
    """The stock size loses most of 2000 datagrams; no size keeps fewer than a smaller one."""
    asked = [one.asked_bytes for one in effects.buffers]
    kept = [one.kept for one in effects.buffers]

    assert asked == [0, STOCK_BYTES, NODE_BYTES, GUIDE_BYTES]
    assert 0 < kept[1] < 1000
    assert kept[1:] == sorted(kept[1:])
    assert all(one.sent == 2000 for one in effects.buffers)


def test_ports_are_counted_in_the_default_range_of_the_relay(effects: Effects) -> None:
    """Never more than sockets were opened."""
    assert effects.relay_ports == (49152, 65535)
    assert effects.ports == 300
    assert 0 <= effects.ports_in_range <= 300


def test_both_are_shown_to_people_and_programs() -> None:
    """With what was lost, and the share of the ports."""
    kept = Kept(asked_bytes=0, granted_bytes=212992, kept=92, sent=20000)
    effects = Effects(buffers=(kept,), ports=4000, ports_in_range=1670, relay_ports=(49152, 65535))
    text = render_effects(effects)

    assert "     nothing        212992        92     19908" in text.splitlines()
    assert "4000 sockets that asked for any port: 1670 (42 %) got one of 49152-65535, which the relay wants" in text
    assert json.loads(render_effects_json(effects))["buffers"][0]["kept"] == 92
