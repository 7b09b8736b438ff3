"""Settings of a peer."""

from typing import Any

import pytest

from antquic_server.config.load import load_settings
from antquic_server.errors import ConfigurationError
from antquic_server.peer.settings import PEER_DEFAULTS, PeerSettings


def test_the_defaults_are_valid() -> None:
    """An endpoint without settings works, with ant-quic's own figures."""
    settings = PeerSettings()

    assert (settings.max_candidates, settings.discovery_timeout_s, settings.hole_punch_retries) == (10, 10.0, 3)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("max_candidates", 0),
        ("max_candidates", 257),
        ("discovery_timeout_s", 0.0),
        ("hole_punch_retries", -1),
        ("keep_alive_s", -1.0),
        ("max_message_bytes", 0),
        ("pqc_mode", "never"),
        ("pqc_pool_size", 0),
        ("mtu_initial", 1199),
        ("mtu_min", 1000),
        ("mtu_max", 65528),
        ("listen", ()),
        ("listen", ("localhost:1",)),
        ("known_peers", ("nowhere",)),
    ],
)
def test_a_value_out_of_bounds_is_refused_by_name(key: str, value: Any) -> None:
    """The error names the setting."""
    with pytest.raises(ConfigurationError) as caught:
        PeerSettings(**{key: value})
    assert caught.value.key == key


@pytest.mark.parametrize(
    ("key", "sizes"),
    [
        ("mtu_min", {"mtu_min": 1500}),
        ("mtu_initial", {"mtu_initial": 1453}),
        ("mtu_initial", {"mtu_initial": 1250, "mtu_min": 1300}),
    ],
)
def test_datagram_sizes_are_in_order(key: str, sizes: dict[str, Any]) -> None:
    """As the connection demands: min, initial, max."""
    with pytest.raises(ConfigurationError, match="mtu_min <= mtu_initial <= mtu_max") as caught:
        PeerSettings(**sizes)
    assert caught.value.key == key


def test_a_file_that_says_nothing_changes_nothing() -> None:
    """The library and the command line have the same defaults."""
    assert PeerSettings.from_settings(PEER_DEFAULTS) == PeerSettings()


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("endpoint.max_connections=7", "max_connections", 7),
        ("endpoint.idle_timeout_s=50.0", "idle_timeout_s", 50.0),
        ("endpoint.keep_alive_s=5", "keep_alive_s", 5.0),
        ("pqc.provider='cryptography'", "pqc_provider", "cryptography"),
        ("pqc.mode='any'", "pqc_mode", "any"),
        ("pqc.memory_pool_size=3", "pqc_pool_size", 3),
        ("pqc.handshake_timeout_multiplier=4.0", "dial_timeout_s", 10.0),
        ("nat.max_candidates=4", "max_candidates", 4),
        ("nat.discovery_timeout_s=3.5", "discovery_timeout_s", 3.5),
        ("nat.hole_punch_retries=5", "hole_punch_retries", 5),
        ("nat.enable_symmetric_nat=false", "enable_symmetric_nat", False),
        ("mtu.initial=1250", "mtu_initial", 1250),
        ("mtu.min=1200", "mtu_min", 1200),
        ("mtu.max=1280", "mtu_max", 1280),
    ],
)
def test_each_key_of_the_file_acts_on_peers(text: str, key: str, value: Any) -> None:
    """And on nothing else."""
    settings = PeerSettings.from_settings(load_settings(None, overrides=[text], defaults=PEER_DEFAULTS))

    assert getattr(settings, key) == value
    assert settings == PeerSettings(**{key: value})


@pytest.mark.parametrize("text", ["endpoint.max_connections=1000000", "nat.max_candidates=256", "mtu.max=65527"])
def test_whatever_a_file_may_say_a_peer_may_have(text: str) -> None:
    """The limits of the file are within those of the library."""
    settings = load_settings(None, overrides=[text])

    assert PeerSettings.from_settings(settings, known_peers=("198.18.0.1:1",)).known_peers == ("198.18.0.1:1",)
