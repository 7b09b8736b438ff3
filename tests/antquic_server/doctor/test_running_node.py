"""The settings of a running node are what it says they are, as far as that can be used."""

import json
from dataclasses import replace
from typing import Any

import pytest

from antquic_server.config.model import AdminSettings, EndpointSettings, RelaySettings, Settings, TlsSettings, to_plain
from antquic_server.doctor.running_node import settings_in_force

SETTINGS = Settings(
    endpoint=EndpointSettings(listen=("127.0.0.1:20000",), workers=3, user="nobody"),
    admin=AdminSettings(listen="127.0.0.1:20001"),
    relay=RelaySettings(port_range=(50_000, 50_099), max_sessions=100),
    tls=TlsSettings(certificate="/etc/node.pem", private_key="/etc/node.key"),
)


def told(settings: Settings, **node: object) -> dict[str, Any]:
    """Return the answer of a node with these settings, as it arrives."""
    answer: dict[str, Any] = json.loads(json.dumps({"node": node, "configuration": to_plain(settings)}))
    return answer


@pytest.mark.parametrize("settings", [SETTINGS, Settings()])
def test_what_a_node_tells_is_what_it_has(settings: Settings) -> None:
    """Every setting, through JSON."""
    assert settings_in_force(told(settings), 20_001) == settings


def test_ports_that_the_node_has_chosen_are_the_ones_it_has() -> None:
    """Zero in the configuration; without a list of addresses it stays."""
    free = replace(
        SETTINGS,
        endpoint=replace(SETTINGS.endpoint, listen=("127.0.0.1:0", "[::1]:0")),
        admin=AdminSettings(listen="[::1]:0"),
    )

    chosen = settings_in_force(told(free, listen=["127.0.0.1:31000", "[::1]:31001"]), 31_002)
    assert chosen is not None
    assert chosen.endpoint.listen == ("127.0.0.1:31000", "[::1]:31001")
    assert chosen.admin.listen == "[::1]:31002"
    for nonsense in (None, 3, ["x"], []):
        kept = settings_in_force(told(free, listen=nonsense), 31_002)
        assert kept is not None
        assert kept.endpoint == free.endpoint


def test_what_is_unknown_or_impossible_is_left_at_its_default() -> None:
    """As of a node of another version; and paths that begin in a directory that is not ours."""
    answer = told(replace(SETTINGS, tls=TlsSettings(certificate="node.pem", private_key="/etc/node.key")))
    answer["configuration"] |= {"future": {"key": 1}, "mtu": 3}
    answer["configuration"]["endpoint"] |= {"workers": 1000, "future": 1}
    del answer["configuration"]["relay"]["max_sessions"]

    settings = settings_in_force(answer, 20_001)
    assert settings == replace(
        SETTINGS,
        endpoint=replace(SETTINGS.endpoint, workers=0),
        relay=RelaySettings(port_range=(50_000, 50_099)),
        tls=TlsSettings(private_key="/etc/node.key"),
    )


@pytest.mark.parametrize("status", [{}, {"configuration": None}, {"configuration": [1]}])
def test_a_node_that_tells_nothing_has_told_nothing(status: dict[str, Any]) -> None:
    """The defaults are then no worse than anything else."""
    assert settings_in_force(status, 1) is None
