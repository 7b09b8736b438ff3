"""
Which settings may change while the node runs.

SIGHUP makes the supervisor read the configuration again. Limits of relaying are asked for every session and every
second, and levels of the log for every line, so they can change; most other settings went into sockets, processes and
connections that are there.
"""

from dataclasses import dataclass, fields, replace
from typing import Final

from antquic_server.config.model import Settings, section_types

__all__ = ["Changes", "compare", "merge"]

CHANGEABLE_SECTION: Final = "relay"

FIXED_KEYS: Final = frozenset(("public_address", "port_range", "canary_interval_s"))
"""Of that section: ports are bound, and addresses told to peers, for as long as sessions last."""

LOG_KEYS: Final = frozenset(("level", "modules", "repeat_burst", "repeat_window_s"))
"""Of ``[log]``: the form of lines and files stay what they were at the start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """Settings that differ, as ``section.key``: those that can be applied, and those that need a restart."""

    applied: list[str]
    needs_restart: list[str]


def compare(before: Settings, after: Settings) -> Changes:
    """Tell in what two configurations differ."""
    different = [
        (section, item.name)
        for section, section_type in section_types().items()
        for item in fields(section_type)
        if getattr(getattr(before, section), item.name) != getattr(getattr(after, section), item.name)
    ]
    return Changes(
        applied=[f"{section}.{key}" for section, key in different if _may_change(section, key)],
        needs_restart=[f"{section}.{key}" for section, key in different if not _may_change(section, key)],
    )


def merge(before: Settings, after: Settings) -> Settings:
    """Return the settings in force once what can be applied of ``after`` has been."""
    kept = {key: getattr(before.relay, key) for key in FIXED_KEYS}
    changed = {key: getattr(after.log, key) for key in LOG_KEYS}
    return replace(before, relay=replace(after.relay, **kept), log=replace(before.log, **changed))


def _may_change(section: str, key: str) -> bool:
    return (section == CHANGEABLE_SECTION and key not in FIXED_KEYS) or (section == "log" and key in LOG_KEYS)
