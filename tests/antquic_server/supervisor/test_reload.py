"""Tests of which settings change while the node runs; that they do is tested with the supervisor's process."""

from dataclasses import fields

import pytest

from antquic_server.config.load import load_settings
from antquic_server.config.model import RelaySettings, Settings
from antquic_server.supervisor.reload import FIXED_KEYS, compare, merge


def test_same_settings_have_no_changes() -> None:
    """Nothing is applied, nothing waits."""
    changes = compare(Settings(), Settings())
    assert (changes.applied, changes.needs_restart) == ([], [])
    assert merge(Settings(), Settings()) == Settings()


def test_limits_of_relaying_change_and_the_rest_waits_for_a_restart() -> None:
    """Each is named; what waits keeps its old value until then, and is named again next time."""
    after = load_settings(
        None,
        overrides=[
            "relay.max_sessions=7",
            "relay.allowed_peers=[]",
            "relay.denied_targets=['192.0.2.0/24']",
            "relay.port_range=[50000, 50009]",
            "relay.canary_interval_s=1",
            "endpoint.workers=3",
            "log.level='debug'",
        ],
    )
    changes = compare(Settings(), after)
    assert changes.applied == ["relay.max_sessions", "relay.denied_targets"]
    waiting = ["endpoint.workers", "relay.port_range", "relay.canary_interval_s", "log.level"]
    assert changes.needs_restart == waiting

    merged = merge(Settings(), after)
    assert (merged.relay.max_sessions, merged.relay.denied_targets) == (7, ("192.0.2.0/24",))
    assert merged.relay.port_range == Settings().relay.port_range
    assert merged.endpoint == Settings().endpoint
    again = compare(merged, after)
    assert (again.applied, again.needs_restart) == ([], waiting)


@pytest.mark.parametrize("key", sorted(FIXED_KEYS))
def test_fixed_keys_are_settings(key: str) -> None:
    """A key that was renamed would become changeable by accident."""
    assert key in {item.name for item in fields(RelaySettings)}
