"""
Log lines of this process, from our modules and from libraries alike.

Every record goes through the standard library's loggers, which decide by module whether it is written at
all, and is rendered by structlog: one JSON object per line for machines, one readable line for a terminal.
Standard error is the only destination; keeping or forwarding logs is the service manager's business.
"""

import logging
import os
import sys
from collections.abc import Mapping
from typing import TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from antquic_server.config.model import LogSettings

__all__ = ["configure_logging", "get_logger"]

PACKAGE = "antquic_server"

_QUIETER = {
    # aioquic logs every lost and unexpected packet as a warning; strangers cause those at will.
    "quic": logging.ERROR,
    # Its debug messages tell which selector is used, at every start.
    "asyncio": logging.WARNING,
}
"""Loggers of libraries that stay above these levels unless ``log.modules`` names them."""


def configure_logging(settings: LogSettings, *, process: str, slot: int | None) -> None:
    """
    Set up logging for the whole process; may be called again, as a spare worker does when it gets its slot.

    Args:
        settings: The ``[log]`` section.
        process: What this process is, ``supervisor`` or ``worker``; part of every line.
        slot: Slot that the process serves, if any; part of every line.
    """
    structlog.configure(
        processors=[
            # First, so that a debug event nobody wants costs one lookup and renders nothing.
            structlog.stdlib.filter_by_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    for earlier in [existing for existing in root.handlers if isinstance(existing, _NodeHandler)]:
        root.removeHandler(earlier)
        for name in earlier.level_by_logger:
            logging.getLogger(name).setLevel(logging.NOTSET)
    handler = _NodeHandler(sys.stderr, _level_by_logger(settings))
    handler.setFormatter(_formatter(settings.format, sys.stderr, process, slot))
    root.addHandler(handler)
    root.setLevel(_level(settings.level))
    for name, level in handler.level_by_logger.items():
        logging.getLogger(name).setLevel(level)


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """Logger of one module, to be called with its ``__name__``; facts are given as keyword arguments."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger


class _NodeHandler(logging.StreamHandler[TextIO]):
    """The handler that we installed, unlike those of a test runner, with the levels set along with it."""

    def __init__(self, stream: TextIO, level_by_logger: Mapping[str, int]) -> None:
        super().__init__(stream)
        self.level_by_logger = level_by_logger


def _level_by_logger(settings: LogSettings) -> dict[str, int]:
    """Levels of single loggers; a short name means a library of that name too, a full one only our module."""
    levels = {name: max(level, _level(settings.level)) for name, level in _QUIETER.items()}
    full_names = {name for name in settings.modules if name.partition(".")[0] == PACKAGE}
    for name, word in settings.modules.items():
        levels[name] = _level(word)
        if name not in full_names and f"{PACKAGE}.{name}" not in full_names:
            levels[f"{PACKAGE}.{name}"] = _level(word)
    return levels


def _level(word: str) -> int:
    return logging.getLevelNamesMapping()[word.upper()]


def _formatter(form: str, stream: TextIO, process: str, slot: int | None) -> logging.Formatter:
    place: dict[str, object] = {"process": process, "pid": os.getpid()}
    if slot is not None:
        place["slot"] = slot

    def add_place(_logger: WrappedLogger, _method: str, event_dict: EventDict) -> EventDict:
        # In this order, since a JSON line is read from its left end too.
        first = {key: event_dict.pop(key) for key in ("timestamp", "level", "logger", "event")}
        return {**first, **place, **event_dict}

    readable = form == "console" or (form == "auto" and stream.isatty())
    processors: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        add_place,
        _bytes_to_hexadecimal,
    ]
    if readable:
        processors += [_escape_unprintable, _console_renderer(stream)]
    else:
        processors += [
            structlog.processors.format_exc_info,
            structlog.processors.StackInfoRenderer(),
            structlog.processors.JSONRenderer(),
        ]
    return structlog.stdlib.ProcessorFormatter(processors=processors)


def _console_renderer(stream: TextIO) -> Processor:
    return structlog.dev.ConsoleRenderer(
        colors=stream.isatty(),
        # Otherwise drawn in frames, with every local variable, where the rich package is installed.
        exception_formatter=structlog.dev.plain_traceback,
    )


def _bytes_to_hexadecimal(_logger: WrappedLogger, _method: str, event_dict: EventDict) -> EventDict:
    """Write peer ids and connection IDs as everybody else does."""
    for key, value in event_dict.items():
        if isinstance(value, bytes):
            event_dict[key] = value.hex()
    return event_dict


def _escape_unprintable(_logger: WrappedLogger, _method: str, event_dict: EventDict) -> EventDict:
    """Keep a peer's close reason from writing lines or commanding the terminal; JSON escapes by itself."""
    for key, value in event_dict.items():
        if isinstance(value, str) and not value.isprintable():
            event_dict[key] = ascii(value)[1:-1]
    return event_dict
