"""The words in which fixes are said: lines to copy, alike in every check."""

import shlex

from antquic_server.tuning.catalogue import CatalogueError
from antquic_server.tuning.places import tuning_directory

__all__ = ["APPLY", "setting", "tuning_file", "unit"]

APPLY = "antquic-server tune apply"
"""Sets every kernel setting that a check names beside it, and remembers what it found."""


def setting(key: str, value: object) -> str:
    """Return how to give the node another setting; ``value`` in TOML syntax."""
    text = f"{key}={value}"
    quoted = f"'{text}'" if any(char in text for char in "\"'[] {}") else text
    return f"antquic-server serve --set {quoted}"


def tuning_file(name: str) -> str | None:
    """Return the path of a file of ``tuning/``, quoted for a shell; None where these files are missing."""
    try:
        return shlex.quote(str(tuning_directory() / name))
    except CatalogueError:
        return None


def unit(*lines: str) -> str:
    """Return lines for the node's systemd unit."""
    return f"systemctl edit antquic-server   # [Service] {' and '.join(lines)}"
