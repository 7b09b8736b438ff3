"""Tests of which settings change while the node runs; that they do is tested with the supervisor's process."""

from dataclasses import fields

import pytest

from antquic_server.config.load import load_settings
from antquic_server.config.model import LogSettings, RelaySettings, Settings
from antquic_server.supervisor.reload import FIXED_KEYS, LOG_KEYS, compare, merge


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
            "log.modules={net='error'}",
            "log.format='json'",
        ],
    )
    changes = compare(Settings(), after)
    assert changes.applied == ["relay.max_sessions", "relay.denied_targets", "log.level", "log.modules"]
    waiting = ["endpoint.workers", "relay.port_range", "relay.canary_interval_s", "log.format"]
    assert changes.needs_restart == waiting

    merged = merge(Settings(), after)
    assert (merged.relay.max_sessions, merged.relay.denied_targets) == (7, ("192.0.2.0/24",))
    assert merged.relay.port_range == Settings().relay.port_range
    assert merged.endpoint == Settings().endpoint
    assert (merged.log.level, merged.log.modules, merged.log.format) == ("debug", {"net": "error"}, "auto")
    again = compare(merged, after)
    assert (again.applied, again.needs_restart) == ([], waiting)


@pytest.mark.parametrize("key", sorted(FIXED_KEYS))
def test_fixed_keys_are_settings(key: str) -> None:
    """A key that was renamed would become changeable by accident."""
    assert key in {item.name for item in fields(RelaySettings)}


@pytest.mark.parametrize("key", sorted(LOG_KEYS))
def test_changeable_keys_of_the_log_are_settings(key: str) -> None:
    """A key that was renamed would need a restart by accident."""
    assert key in {item.name for item in fields(LogSettings)}
