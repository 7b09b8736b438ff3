"""
The levels that hold now: what the configuration says, and on top of it what has been changed by hand.

Changes by hand last until they are taken back or the node ends. They outlive SIGHUP: whoever looks for a fault must not
lose sight of it because a limit is changed meanwhile.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from antquic_server.config.log_levels import MAX_LEVELS, parse_levels
from antquic_server.config.model import LogSettings
from antquic_server.errors import ConfigurationError

__all__ = ["LogControl"]

SOURCE = "control socket"


class LogControl:
    """
    Keeps levels, and tells everybody when they change.

    Args:
        configured: The ``[log]`` section.
        on_change: Called with the settings that hold from now on.
    """

    def __init__(self, configured: LogSettings, on_change: Callable[[LogSettings], None]) -> None:
        self._configured = configured
        self._on_change = on_change
        self._level: str | None = None
        self._modules: dict[str, str] = {}

    @property
    def effective(self) -> LogSettings:
        """The settings that hold now."""
        level = self._configured.level if self._level is None else self._level
        return replace(self._configured, level=level, modules=self._configured.modules | self._modules)

    def set(self, texts: Sequence[str]) -> None:
        """Change levels, each ``LEVEL`` or ``MODULE=LEVEL``; on ConfigurationError nothing has changed."""
        change = parse_levels(SOURCE, "log", texts)
        modules = self._modules | change.modules
        if len(modules) > MAX_LEVELS:
            raise ConfigurationError(SOURCE, "log", f"{len(modules)} levels", f"at most {MAX_LEVELS} until a reset")
        self._level = self._level if change.level is None else change.level
        self._modules = modules
        self._on_change(self.effective)

    def reset(self) -> None:
        """Go back to what the configuration says."""
        self._level, self._modules = None, {}
        self._on_change(self.effective)

    def reconfigure(self, configured: LogSettings) -> None:
        """Let another configuration hold below the changes."""
        self._configured = configured
        self._on_change(self.effective)

    def document(self) -> dict[str, object]:
        """Return what holds, and which part of it was changed by hand."""
        holds = self.effective
        return {
            "level": holds.level,
            "modules": dict(sorted(holds.modules.items())),
            "changed": {"level": self._level, "modules": dict(sorted(self._modules.items()))},
            "configured": {"level": self._configured.level, "modules": dict(sorted(self._configured.modules.items()))},
            "repeat_burst": holds.repeat_burst,
            "repeat_window_s": holds.repeat_window_s,
        }
