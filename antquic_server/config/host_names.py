"""The kind of setting that names hosts; see ``rules`` for what a rule is."""

import re
from dataclasses import dataclass
from typing import Final

from antquic_server.errors import ConfigurationError

__all__ = ["MAX_HOST_NAMES", "HostNames"]

MAX_HOST_NAMES: Final = 64

_LABEL: Final = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_NAME: Final = re.compile(rf"(?=.{{1,253}}$){_LABEL}(?:\.{_LABEL})*")
"""RFC 1123, section 2.1, and the underscore that container networks use."""


@dataclass(frozen=True, slots=True)
class HostNames:
    """A list of host names without ports; kept in lower case, each once."""

    expected: str = f"a list of at most {MAX_HOST_NAMES} host names like 'node.example.org', without port"

    def accept(self, source: str, key: str, value: object) -> tuple[str, ...]:
        """Return the names."""
        if not isinstance(value, list | tuple) or len(value) > MAX_HOST_NAMES:
            raise ConfigurationError(source, key, value, self.expected)
        for index, entry in enumerate(value):
            if not isinstance(entry, str) or not _NAME.fullmatch(entry):
                raise ConfigurationError(source, f"{key}[{index}]", entry, "a host name like 'node.example.org'")
        return tuple(dict.fromkeys(entry.lower() for entry in value))
