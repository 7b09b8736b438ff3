"""
Log levels as people write them: ``LEVEL`` for everything, ``MODULE=LEVEL`` for one module and all below it.

The same form serves ``--log-level``, the environment variable ``ANTQUIC_LOG`` and ``antquic-server log set``. A module
that does not exist is refused: a level that nothing would ever have is a mistake that nobody would notice.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Final

from antquic_server.config.model import LOG_LEVELS
from antquic_server.config.rules import Choice, Levels
from antquic_server.errors import ConfigurationError

__all__ = ["LEVELS_VARIABLE", "LIBRARIES", "LevelChange", "check_modules", "known_modules", "parse_levels"]

LEVELS_VARIABLE: Final = "ANTQUIC_LOG"
"""Environment variable with levels, like ``info,workers.relay=debug``."""

LIBRARIES: Final = ("asyncio", "oqs", "quic")
"""Libraries whose own loggers may be given a level; ``quic`` is aioquic."""

MAX_LEVELS: Final = 256
"""Levels that may be given at once: more than there are modules with something to say."""

_PACKAGE: Final = "antquic_server"
_PACKAGES: Final = (_PACKAGE, "workers")
_FORM: Final = "LEVEL or MODULE=LEVEL, separated by commas, like info,workers.relay=debug"


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelChange:
    """Levels that somebody wants: ``level`` for everything (None: as before), ``modules`` by logger name."""

    level: str | None
    modules: dict[str, str]


def parse_levels(source: str, key: str, texts: Iterable[str], *, modules_key: str | None = None) -> LevelChange:
    """
    Read levels; of two for the same module the later counts.

    Args:
        source: Where the texts were found, for errors.
        key: Under which name, for errors.
        texts: Each holds one or more levels, separated by commas.
        modules_key: Under which name the levels of modules were found, ``key`` if None.

    Raises:
        ConfigurationError: A text is neither form, a level or a module does not exist.
    """
    level: str | None = None
    modules: dict[str, str] = {}
    modules_key = modules_key or key
    entries = [entry.strip() for text in texts for entry in text.split(",")]
    if len(entries) > MAX_LEVELS:
        raise ConfigurationError(source, key, f"{len(entries)} levels", f"at most {MAX_LEVELS}")
    for entry in entries:
        name, separator, word = (part.strip() for part in entry.partition("="))
        if not entry or (separator and not (name and word)):
            raise ConfigurationError(source, key, entry, _FORM)
        if separator:
            modules |= Levels(LOG_LEVELS).accept(source, modules_key, {name: word.lower()})
        else:
            level = Choice(LOG_LEVELS).accept(source, key, name.lower())
    check_modules(source, modules_key, modules)
    return LevelChange(level=level, modules=modules)


def check_modules(source: str, key: str, modules: Mapping[str, str]) -> None:
    """Raise ConfigurationError for the first module that is neither ours nor a library's that we know."""
    for name, level in modules.items():
        if name.partition(".")[0] in LIBRARIES or name in known_modules():
            continue
        near = get_close_matches(name, known_modules(), n=1, cutoff=0.6)
        hint = f" (did you mean {near[0]}?)" if near else f", like net.udp, workers.relay or {LIBRARIES[-1]}"
        raise ConfigurationError(source, f"{key}.{name}", level, "a module that exists" + hint)


@cache
def known_modules() -> tuple[str, ...]:
    """Names of all our modules and packages: in full, and those of the library without its name in front too."""
    home = Path(__file__).resolve().parents[2]
    full: set[str] = set()
    for package in _PACKAGES:
        for path in (home / package).rglob("*.py"):
            parts = path.relative_to(home).with_suffix("").parts
            full.update(".".join(parts[:count]) for count in range(1, len(parts) + 1) if parts[count - 1][0] != "_")
    short = {name.partition(".")[2] for name in full if name.startswith(f"{_PACKAGE}.")}
    return tuple(sorted(full | short))
