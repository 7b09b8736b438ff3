"""
Log lines of this process, from our modules and from libraries alike.

Every record goes through the standard library's loggers, which decide by module whether it is written at
all, and is rendered by structlog: one JSON object per line for machines, one readable line for a terminal.
Standard error is the only destination; keeping or forwarding logs is the service manager's business.

What comes too often is counted instead (``log_repeats``). The counts are written with the next line of any kind, at the
latest when ``settle_repeats`` is called, which every event loop of ours does several times a second, and at the end.

Nobody waits for whoever reads the log (``log_lines``). Lines that could not be kept for a reader that has stopped are
counted, and the first line that it gets again says how many are missing.
"""

import io
import logging
import os
import sys
import time
from typing import Any, Final, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from antquic_server.config.model import LogSettings
from antquic_server.log_lines import LineWriter
from antquic_server.log_repeats import Repeated, RepeatLimiter

__all__ = ["NodeLogger", "change_levels", "configure_logging", "get_logger", "log_fd", "settle_repeats"]

PACKAGE = "antquic_server"

_QUIETER = {
    # aioquic logs every lost and unexpected packet as a warning; strangers cause those at will.
    "quic": logging.ERROR,
    # Its debug messages tell which selector is used, at every start.
    "asyncio": logging.WARNING,
}
"""Loggers of libraries that stay above these levels unless ``log.modules`` names them."""

_PLAIN: Final = (type(None), list, tuple, dict)
"""Besides texts and numbers, what both forms can show."""

_STANDARD_ERROR_FD: Final = 2

_EXIT_PATIENCE_S: Final = 0.5
"""How long the end of a process waits for a slow reader to take its last lines."""

_repeats: Final = RepeatLimiter(burst=0, window_s=1.0, clock=time.monotonic)
"""Of this process, as levels are: structlog keeps whatever it was configured with first."""


class NodeLogger(structlog.stdlib.BoundLogger):
    """
    What ``get_logger`` returns.

    A line that nobody wants costs a method call and one look-up: the base class would first run the processors, of
    which the first raises an exception. Facts that take work to gather belong behind ``isEnabledFor(DEBUG)``.
    """

    def debug(self, event: str | None = None, *args: Any, **facts: Any) -> Any:
        """Write a line of level debug."""
        return super().debug(event, *args, **facts) if self._logger.isEnabledFor(logging.DEBUG) else None

    def info(self, event: str | None = None, *args: Any, **facts: Any) -> Any:
        """Write a line of level info."""
        return super().info(event, *args, **facts) if self._logger.isEnabledFor(logging.INFO) else None


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
            _leave_out_repeated,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=NodeLogger,
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    handler = _NodeHandler(sys.stderr)
    for earlier in _our_handlers():
        root.removeHandler(earlier)
        earlier.forget_levels()
        handler.take_over(earlier)
    handler.setFormatter(_formatter(settings.format, sys.stderr, process, slot))
    handler.addFilter(_is_no_repetition)
    root.addHandler(handler)
    change_levels(settings)


def change_levels(settings: LogSettings) -> None:
    """Let the levels and the limits of repetition of ``settings`` hold from the next record on."""
    _repeats.change(burst=settings.repeat_burst, window_s=settings.repeat_window_s)
    logging.getLogger().setLevel(_level(settings.level))
    for handler in _our_handlers():
        handler.forget_levels()
        handler.level_by_logger = _level_by_logger(settings)
        for name, level in handler.level_by_logger.items():
            logging.getLogger(name).setLevel(level)


def settle_repeats(*, everything: bool = False) -> None:
    """Write what was left out in windows that are over, or in all windows, one line for each event."""
    due = _repeats.take_due(everything=everything)
    for handler in _our_handlers():
        for repeated in due:
            handler.write_sum(repeated)
        handler.catch_up()


def log_fd() -> int:
    """Return the descriptor that children are to write to: one that keeps none of them waiting, where there is one."""
    return next((handler.writer.fd for handler in _our_handlers() if handler.writer is not None), _STANDARD_ERROR_FD)


def get_logger(name: str) -> NodeLogger:
    """Logger of one module, to be called with its ``__name__``; facts are given as keyword arguments."""
    logger: NodeLogger = structlog.stdlib.get_logger(name)  # type: ignore[assignment]  # as configured above
    return logger


class _NodeHandler(logging.StreamHandler[TextIO]):
    """The handler that we installed, unlike those of a test runner, with the levels set along with it."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self.level_by_logger: dict[str, int] = {}
        self.writer = _writer_of(stream)
        self.lost = 0
        """Lines that the reader has not been told of yet."""

    def take_over(self, earlier: "_NodeHandler") -> None:
        """Take the place of an earlier handler, which is closed, with the lines that nobody has read yet."""
        self.lost += earlier.lost
        if earlier.writer is not None:
            if self.writer is not None:
                self.writer.put_pending(earlier.writer.take_pending())
            earlier.writer.close()

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record without waiting for anybody; what cannot be written is counted."""
        if self.writer is None:
            super().emit(record)
        elif not (self._tell_lost() and self._write(record)):
            self.lost += 1

    def catch_up(self) -> None:
        """Write what the reader did not take when it came, and how much is missing, as far as it is taken now."""
        self.acquire()
        try:
            if self.writer is not None and self.writer.flush():
                self._tell_lost()
        finally:
            self.release()

    def forget_levels(self) -> None:
        """Undo what was set along with this handler."""
        for name in self.level_by_logger:
            logging.getLogger(name).setLevel(logging.NOTSET)
        self.level_by_logger = {}

    def write_sum(self, repeated: Repeated) -> None:
        """Write how often an event was left out; past the filter, which would count this line as well."""
        facts = {"event": repeated.event, "repeated": repeated.count, "window_s": repeated.window_s}
        self.acquire()
        try:
            self.emit(_record(repeated.logger, repeated.level, facts))
        finally:
            self.release()

    def close(self) -> None:
        """Write the last sums; called when the interpreter ends."""
        if self in _our_handlers():
            settle_repeats(everything=True)
        if self.writer is not None:
            self.writer.close(patience_s=_EXIT_PATIENCE_S)
        super().close()

    def _tell_lost(self) -> bool:
        """Write how many lines are missing here; True when none are, or when that was taken."""
        if self.lost:
            facts = {"event": "log lines lost", "lines": self.lost}
            if not self._write(_record(__name__, logging.WARNING, facts)):
                return False
            self.lost = 0
        return True

    def _write(self, record: logging.LogRecord) -> bool:
        assert self.writer is not None
        try:
            line = (self.format(record) + self.terminator).encode(errors="backslashreplace")
        except Exception:  # noqa: BLE001 - as every handler does
            self.handleError(record)
            return True
        return self.writer.write(line)


def _record(logger: str, level: int, facts: dict[str, object]) -> logging.LogRecord:
    """Make a record that goes to a handler directly, past all filters, marked as structlog marks its own."""
    record = logging.makeLogRecord({"name": logger, "levelno": level, "msg": facts})
    record.__dict__.update(_logger=logging.getLogger(logger), _name=logging.getLevelName(level).lower())
    return record


def _writer_of(stream: TextIO) -> LineWriter | None:
    """Return what writes past a stream to its descriptor; None for one that is no file, as those of tests are."""
    try:
        return LineWriter(stream.fileno())
    except (OSError, ValueError):
        return None


def _our_handlers() -> list[_NodeHandler]:
    return [handler for handler in logging.getLogger().handlers if isinstance(handler, _NodeHandler)]


def _leave_out_repeated(logger: logging.Logger, method: str, event_dict: EventDict) -> EventDict:
    """Drop an event that comes too often, before anything is rendered."""
    level = logging.ERROR if method == "exception" else _level(method)
    admitted = _repeats.admit(logger.name, level, str(event_dict.get("event")))
    settle_repeats()
    if not admitted:
        raise structlog.DropEvent
    return event_dict


def _is_no_repetition(record: logging.LogRecord) -> bool:
    """Tell whether to write a record; structlog's have been judged. The text of a library's may hold facts."""
    if hasattr(record, "_logger"):
        return True
    place = (record.pathname, record.lineno)
    admitted = _repeats.admit(record.name, record.levelno, str(record.msg), place=place)
    settle_repeats()
    return admitted


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
        _write_out,
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
        exception_formatter=_indented_traceback,
    )


def _indented_traceback(stream: TextIO, exc_info: Any) -> None:
    """Write a traceback whose message may hold what a stranger chose: it begins no line and commands no terminal."""
    plain = io.StringIO()
    structlog.dev.plain_traceback(plain, exc_info)
    lines = filter(None, plain.getvalue().split("\n"))
    stream.writelines(f"\n    {line if line.isprintable() else ascii(line)[1:-1]}" for line in lines)


def _write_out(_logger: WrappedLogger, _method: str, event_dict: EventDict) -> EventDict:
    """
    Turn facts into texts, peer ids and connection IDs in hexadecimal as everybody writes them.

    Done here and not where the line is logged, so that a line nobody wants costs no formatting.
    """
    for key, value in event_dict.items():
        if isinstance(value, bytes):
            event_dict[key] = value.hex()
        elif type(value) not in _PLAIN and not isinstance(value, str | int | float) and key != "exc_info":
            event_dict[key] = str(value)
    return event_dict


def _escape_unprintable(_logger: WrappedLogger, _method: str, event_dict: EventDict) -> EventDict:
    """Keep a peer's close reason from writing lines or commanding the terminal; JSON escapes by itself."""
    for key, value in event_dict.items():
        if isinstance(value, str) and not value.isprintable():
            event_dict[key] = ascii(value)[1:-1]
    return event_dict
