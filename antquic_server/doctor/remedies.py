"""The words in which fixes are said: lines to copy, alike in every check."""

__all__ = ["APPLY", "setting", "unit"]

APPLY = "antquic-server tune apply"
"""Sets every kernel setting that a check names beside it, and remembers what it found."""


def setting(key: str, value: object) -> str:
    """Return how to give the node another setting; ``value`` in TOML syntax."""
    text = f"{key}={value}"
    quoted = f"'{text}'" if any(char in text for char in "\"'[] {}") else text
    return f"antquic-server serve --set {quoted}"


def unit(line: str) -> str:
    """Return a line for the node's systemd unit."""
    return f"systemctl edit antquic-server   # [Service] {line}"
