"""Fixes are lines to copy."""

import shlex

import pytest

from antquic_server.doctor.remedies import setting, unit


@pytest.mark.parametrize("value", ["4", '"auto"', '["0.0.0.0:10000", "[::]:10000"]', "{net = 1}"])
def test_a_setting_survives_the_shell(value: str) -> None:
    """As one word, whatever TOML needs."""
    assert shlex.split(setting("a.b", value)) == ["antquic-server", "serve", "--set", f"a.b={value}"]


def test_a_line_of_the_unit_names_its_section() -> None:
    """For the editor that the command opens."""
    assert unit("LimitNOFILE=5") == "systemctl edit antquic-server   # [Service] LimitNOFILE=5"
