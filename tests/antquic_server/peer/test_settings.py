"""Settings of a peer."""

from typing import Any

import pytest

from antquic_server.errors import ConfigurationError
from antquic_server.peer.settings import PeerSettings


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
