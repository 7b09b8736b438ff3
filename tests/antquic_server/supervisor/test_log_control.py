"""Levels by hand on top of the configuration."""

import pytest

from antquic_server.config.log_levels import MAX_LEVELS
from antquic_server.config.model import LogSettings
from antquic_server.errors import ConfigurationError
from antquic_server.supervisor.log_control import LogControl

CONFIGURED = LogSettings(level="warning", format="json", modules={"net": "error"}, repeat_burst=7)


def control() -> tuple[LogControl, list[LogSettings]]:
    """Return one, and what it tells."""
    told: list[LogSettings] = []
    return LogControl(CONFIGURED, told.append), told


def test_changes_add_up_and_reset_takes_them_back() -> None:
    """Everybody is told each time, with everything that holds."""
    it, told = control()
    assert it.effective == CONFIGURED
    it.set(["debug"])
    it.set(["ipc=info", "net=debug"])
    assert (told[-1].level, told[-1].modules) == ("debug", {"net": "debug", "ipc": "info"})
    assert (told[-1].format, told[-1].repeat_burst) == ("json", 7)
    it.reset()
    assert told[-1] == CONFIGURED
    assert len(told) == 3


def test_mistake_changes_nothing() -> None:
    """Not even the levels that were right."""
    it, told = control()
    with pytest.raises(ConfigurationError):
        it.set(["debug", "nowhere.at.all=info"])
    assert told == []
    assert it.effective == CONFIGURED


def test_changes_outlive_another_configuration() -> None:
    """Whoever looks for a fault does not lose sight of it by a reload."""
    it, told = control()
    it.set(["net=debug"])
    it.reconfigure(LogSettings(level="error", modules={"net": "info", "stats": "info"}))
    assert (told[-1].level, told[-1].modules) == ("error", {"net": "debug", "stats": "info"})
    it.reset()
    assert told[-1].modules == {"net": "info", "stats": "info"}


def test_changes_are_bounded() -> None:
    """A library's loggers may have any name; there is a number of them."""
    it, _ = control()
    it.set([f"quic.a{number}=info" for number in range(MAX_LEVELS)])
    with pytest.raises(ConfigurationError, match="at most 256 until a reset"):
        it.set(["quic.b=info"])
    it.set(["quic.a1=debug"])


def test_document_tells_where_levels_come_from() -> None:
    """What holds, what was changed, what is configured."""
    it, _ = control()
    it.set(["net=debug"])
    assert it.document() == {
        "level": "warning",
        "modules": {"net": "debug"},
        "changed": {"level": None, "modules": {"net": "debug"}},
        "configured": {"level": "warning", "modules": {"net": "error"}},
        "repeat_burst": 7,
        "repeat_window_s": 10.0,
    }
