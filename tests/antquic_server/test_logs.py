"""Logs: one line per record, levels by module, nothing that a peer could command a terminal with."""

import io
import json
import logging
import os
import select
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

import pytest
import structlog

from antquic_server.config.model import LogSettings
from antquic_server.logs import NodeLogger, change_levels, configure_logging, get_logger, log_fd, settle_repeats
from antquic_server.net.paths import PathAddress


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """Undo what configure_logging does to the process."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    # Once more, so that levels of single loggers are reset by the code that knows which ones were set.
    configure_logging(LogSettings(), process="test", slot=None)
    for name in ("quic", "asyncio"):
        logging.getLogger(name).setLevel(logging.NOTSET)
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def _lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    printed = capsys.readouterr()
    assert printed.out == ""
    return [json.loads(line) for line in printed.err.splitlines()]


def test_json_line_says_what_where_and_when(capsys: pytest.CaptureFixture[str]) -> None:
    """A line names time, level, module, event, process and slot, and carries the facts given."""
    configure_logging(LogSettings(format="json"), process="worker", slot=3)
    get_logger("antquic_server.net.udp").warning("datagram dropped", reason="queue full", count=2)

    (line,) = _lines(capsys)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "level": "warning",
        "logger": "antquic_server.net.udp",
        "event": "datagram dropped",
        "process": "worker",
        "pid": os.getpid(),
        "slot": 3,
        "reason": "queue full",
        "count": 2,
    }


def test_line_of_a_library_looks_like_ours(capsys: pytest.CaptureFixture[str]) -> None:
    """Records made with the standard library, arguments and all, are rendered in the same form."""
    configure_logging(LogSettings(format="json"), process="supervisor", slot=None)
    logging.getLogger("some.library").info("read %d bytes", 7)

    (line,) = _lines(capsys)
    assert line["event"] == "read 7 bytes"
    assert line["logger"] == "some.library"
    assert "slot" not in line


def test_level_drops_what_is_less_important(capsys: pytest.CaptureFixture[str]) -> None:
    """Records below the configured level are not written."""
    configure_logging(LogSettings(level="warning", format="json"), process="worker", slot=0)
    get_logger("antquic_server.x").info("no")
    logging.getLogger("library").info("no")
    get_logger("antquic_server.x").warning("yes")

    assert [line["event"] for line in _lines(capsys)] == ["yes"]


@pytest.mark.parametrize(
    ("name", "talkative", "quiet"),
    [
        ("net", "antquic_server.net.udp", "antquic_server.network"),
        ("net.udp", "antquic_server.net.udp", "antquic_server.net.sockets"),
        ("antquic_server.net", "antquic_server.net", "antquic_server.ipc"),
        ("workers", "workers.endpoint", "antquic_server.ipc"),
        ("quic", "quic", "antquic_server.ipc"),
    ],
)
def test_module_level_applies_to_module_and_below(
    name: str, talkative: str, quiet: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A level of a module, by its short or full name, is that of all modules below it and of no other."""
    configure_logging(LogSettings(format="json", modules={name: "debug"}), process="worker", slot=0)
    get_logger(talkative).debug("yes")
    get_logger(quiet).debug("no")

    assert [line["logger"] for line in _lines(capsys)] == [talkative]


def test_full_module_name_wins_over_short(capsys: pytest.CaptureFixture[str]) -> None:
    """When both forms name one module, the full one decides, in whichever order they stand."""
    modules = {"antquic_server.net": "error", "net": "debug"}
    configure_logging(LogSettings(format="json", modules=modules), process="worker", slot=0)
    get_logger("antquic_server.net").warning("no")

    assert _lines(capsys) == []


def test_aioquic_is_quieter_than_we_are(capsys: pytest.CaptureFixture[str]) -> None:
    """Warnings of aioquic, which strangers can cause at will, are not written by default; its errors are."""
    configure_logging(LogSettings(level="debug", format="json"), process="worker", slot=0)
    logging.getLogger("quic").warning("no")
    logging.getLogger("quic").error("yes")

    assert [line["event"] for line in _lines(capsys)] == ["yes"]


def test_aioquic_is_never_made_more_talkative_than_the_rest(capsys: pytest.CaptureFixture[str]) -> None:
    """With level critical, its errors are dropped as everybody's are."""
    configure_logging(LogSettings(level="critical", format="json"), process="worker", slot=0)
    logging.getLogger("quic").error("no")

    assert _lines(capsys) == []


def test_second_call_replaces_the_first(capsys: pytest.CaptureFixture[str]) -> None:
    """A spare that gets its slot logs each record once, with the slot, and without levels of before."""
    configure_logging(LogSettings(format="json", modules={"net": "error"}), process="worker", slot=None)
    log = get_logger("antquic_server.net")
    log.info("no")
    configure_logging(LogSettings(format="json"), process="worker", slot=5)
    log.info("yes")

    (line,) = _lines(capsys)
    assert (line["event"], line["slot"]) == ("yes", 5)


def test_bytes_are_written_in_hexadecimal(capsys: pytest.CaptureFixture[str]) -> None:
    """Peer ids and connection IDs read as everywhere else."""
    configure_logging(LogSettings(format="json"), process="worker", slot=0)
    get_logger("antquic_server.x").info("peer", peer_id=b"\x00\xff")

    assert _lines(capsys)[0]["peer_id"] == "00ff"


@pytest.mark.parametrize("form", ["json", "console"])
def test_facts_are_written_out_when_the_line_is(form: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Paths, addresses, errors and enums as texts; what JSON has of its own stays."""

    class Made:
        def __str__(self) -> str:
            return "made of text"

    configure_logging(LogSettings(format=form), process="worker", slot=0)
    path = PathAddress("2001:db8::1", 7, 0, 0, b"", 0)
    get_logger("antquic_server.x").info("facts", peer=path, made=Made(), number=1.5, none=None, items=["a"], flag=True)

    printed = capsys.readouterr().err
    if form == "json":
        line = json.loads(printed)
        assert (line["peer"], line["made"]) == ("[2001:db8::1]:7", "made of text")
        assert (line["number"], line["none"], line["items"], line["flag"]) == (1.5, None, ["a"], True)
    else:
        assert "[2001:db8::1]:7" in printed
        assert "made of text" in printed


def test_exception_stays_one_json_line(capsys: pytest.CaptureFixture[str]) -> None:
    """A traceback is part of its line, from our loggers and from the standard library's."""
    configure_logging(LogSettings(format="json"), process="worker", slot=0)
    try:
        int("bad")
    except ValueError:
        get_logger("antquic_server.x").exception("ours")
        logging.getLogger("library").exception("theirs")

    lines = _lines(capsys)
    assert [line["event"] for line in lines] == ["ours", "theirs"]
    assert all("ValueError: invalid literal" in line["exception"] and line["level"] == "error" for line in lines)


def test_console_line_cannot_be_forged(capsys: pytest.CaptureFixture[str]) -> None:
    """Line breaks and escape sequences that a peer chose are written as escapes."""
    configure_logging(LogSettings(format="console"), process="worker", slot=1)
    get_logger("antquic_server.x").info("closed\r", reason="bye\n2026 [error] gotcha \x1b[31m", name="é")

    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert "\x1b" not in printed
    assert "\r" not in printed
    assert "gotcha" in printed
    assert "é" in printed
    assert "slot=1" in printed


def test_console_traceback_is_plain(capsys: pytest.CaptureFixture[str]) -> None:
    """Tracebacks on a terminal have the form everybody knows, whatever packages are installed."""
    configure_logging(LogSettings(format="console"), process="worker", slot=1)
    try:
        int("bad")
    except ValueError:
        get_logger("antquic_server.x").exception("oops")

    printed = capsys.readouterr().err
    assert "Traceback (most recent call last):\n" in printed
    assert "\n    ValueError: invalid literal" in printed


@pytest.mark.parametrize(("is_terminal", "is_json"), [(False, True), (True, False)])
def test_auto_format_depends_on_the_terminal(is_terminal: bool, is_json: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """People at a terminal get readable lines, pipes and files JSON."""
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: is_terminal)
    monkeypatch.setattr(sys, "stderr", stream)
    configure_logging(LogSettings(format="auto"), process="worker", slot=1)
    get_logger("antquic_server.x").info("hello")

    assert stream.getvalue().startswith("{") is is_json


def test_levels_change_at_once_and_leave_nothing_behind(capsys: pytest.CaptureFixture[str]) -> None:
    """A second change takes the first one's modules back; handlers and their form stay."""
    configure_logging(LogSettings(format="json", level="warning"), process="worker", slot=2)
    log = get_logger("antquic_server.net.udp")
    log.info("no")
    change_levels(LogSettings(level="warning", modules={"net": "debug"}))
    log.debug("yes")
    change_levels(LogSettings(level="info"))
    log.debug("no")
    log.info("again")

    printed = _lines(capsys)
    assert [line["event"] for line in printed] == ["yes", "again"]
    assert {line["slot"] for line in printed} == {2}


@pytest.mark.parametrize("form", ["json", "console"])
def test_repeated_event_is_summed_up_in_one_line(form: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """With its level and logger and how often it was left out; other events pass."""
    configure_logging(LogSettings(format=form, repeat_burst=3), process="worker", slot=0)
    log = get_logger("antquic_server.net")
    for number in range(1237):
        log.warning("datagram lost", number=number)
    log.warning("another")
    settle_repeats(everything=True)

    printed = capsys.readouterr().err.splitlines()
    assert len(printed) == 5
    assert "another" in printed[3]
    assert "datagram lost" in printed[4]
    if form == "json":
        line = json.loads(printed[4])
        assert (line["level"], line["logger"], line["repeated"]) == ("warning", "antquic_server.net", 1234)
        assert line["window_s"] == 10.0
    else:
        assert "repeated=1234" in printed[4]
        assert "warning" in printed[4]


def test_errors_with_tracebacks_are_limited_too(capsys: pytest.CaptureFixture[str]) -> None:
    """The same exception a thousand times is one traceback too many."""
    configure_logging(LogSettings(format="json", repeat_burst=1), process="worker", slot=0)
    for _ in range(10):
        try:
            int("bad")
        except ValueError:
            get_logger("antquic_server.x").exception("oops")
    settle_repeats(everything=True)

    first, last = _lines(capsys)
    assert "ValueError" in first["exception"]
    assert (last["event"], last["level"], last["repeated"]) == ("oops", "error", 9)
    assert "exception" not in last


def test_library_is_limited_by_the_line_that_logs(capsys: pytest.CaptureFixture[str]) -> None:
    """Its texts hold facts, which a stranger may choose; a wrong format is a line, not an exception."""
    configure_logging(LogSettings(format="json", repeat_burst=2), process="worker", slot=0)
    library = logging.getLogger("some.library")
    for number in range(20):
        library.error("[%d] stranger says %s", number, os.urandom(4).hex())
    settle_repeats(everything=True)

    printed = _lines(capsys)
    assert [line.get("repeated") for line in printed] == [None, None, 18]


def test_sum_is_written_when_the_handler_is_closed(capsys: pytest.CaptureFixture[str]) -> None:
    """As happens when the interpreter ends."""
    configure_logging(LogSettings(format="json", repeat_burst=1), process="worker", slot=0)
    for _ in range(3):
        get_logger("antquic_server.x").error("last words")
    logging.getLogger().handlers[-1].close()

    assert [line.get("repeated") for line in _lines(capsys)] == [None, 2]


@pytest.mark.parametrize("form", ["json", "console"])
@pytest.mark.parametrize("text", ["a\nb", "\x1b[2J", "\x00", "\u202e", "\ud800", '"}{', "%s %d", "é" * 10_000])
def test_hostile_text_is_one_line_in_both_forms(text: str, form: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """As event, as a fact, as the name of a fact's value, and in a library's arguments."""
    configure_logging(LogSettings(format=form, repeat_burst=0), process="worker", slot=1)
    get_logger("antquic_server.x").info(text, reason=text, raw=text.encode(errors="replace"))
    logging.getLogger("library").info("%s", text)

    printed = capsys.readouterr().err
    assert printed.count("\n") == 2
    assert not set(printed) & {"\x1b", "\x00", "\u202e", "\r"}
    if form == "json":
        first, second = (json.loads(line) for line in printed.splitlines())
        assert first["reason"] == first["event"] == second["event"] == text


def test_hostile_exception_cannot_command_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """A traceback has lines, but all are indented, and none of its characters is an escape sequence."""
    configure_logging(LogSettings(format="console"), process="worker", slot=1)
    error = ValueError("\x1b[31mred\n2026 [error] gotcha\r")
    get_logger("antquic_server.x").error("oops", exc_info=error)

    first, *others = capsys.readouterr().err.splitlines()
    assert "oops" in first
    assert any("gotcha" in line for line in others)
    assert all(line.startswith("    ") and line.isprintable() for line in others)


def test_line_that_is_off_evaluates_nothing() -> None:
    """The processors are not run, and what is asked is only the level."""
    configure_logging(LogSettings(level="warning"), process="worker", slot=0)
    seen: list[str] = []

    def note(_logger: object, method: str, _event_dict: MutableMapping[str, Any]) -> str:
        seen.append(method)
        return method

    log = NodeLogger(logging.getLogger("antquic_server.quiet"), [note], {})

    assert log.debug("no") is None
    assert log.info("no") is None
    assert seen == []
    log.warning("yes")
    assert seen == ["warning"]


@contextmanager
def _unread_stderr(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Make standard error a pipe from which nobody reads; yields the end to read from."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb"), os.fdopen(writing, "w") as stream, monkeypatch.context() as patched:
        patched.setattr(sys, "stderr", stream)
        yield reading


def _read_all(reading: int) -> list[dict[str, Any]]:
    """Return the lines that have come, and that come while the log catches up."""
    read = b""
    while select.select([reading], [], [], 0)[0]:
        read += os.read(reading, 65536)
        settle_repeats()
    return [json.loads(line) for line in read.splitlines()]


def test_lines_that_nobody_read_are_counted_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logging does not wait; the reader gets what was kept, and how much is missing, even if nothing follows."""
    with _unread_stderr(monkeypatch) as unread:
        configure_logging(LogSettings(format="json", repeat_burst=0, level="error"), process="worker", slot=0)
        log = get_logger("antquic_server.x")
        for number in range(5_000):
            log.error("event", number=number)

        lines = _read_all(unread)
        kept = [line["number"] for line in lines if line["event"] == "event"]
        (lost,) = (line for line in lines if line["event"] == "log lines lost")
        assert kept == list(range(len(kept)))
        assert lost["lines"] == 5_000 - len(kept) > 0
        assert (lost["level"], lost["logger"], lost["slot"]) == ("warning", "antquic_server.logs", 0)
        assert lines[-1] == lost
        log.error("back")
        assert [line["event"] for line in _read_all(unread)] == ["back"]


def test_lines_that_nobody_read_survive_a_second_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """A spare that gets its slot still has them to write, and still knows how many it has lost."""
    with _unread_stderr(monkeypatch) as unread:
        configure_logging(LogSettings(format="json", repeat_burst=0), process="worker", slot=None)
        for _ in range(3_000):
            get_logger("antquic_server.x").error("before")
        configure_logging(LogSettings(format="json", repeat_burst=0), process="worker", slot=1)

        lines = _read_all(unread)
        assert sum(line.get("lines", 1) for line in lines) == 3_000
        assert lines[-1]["event"] == "log lines lost"


def test_children_are_given_a_descriptor_that_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of our own: the one we were given belongs to others as well."""
    with _unread_stderr(monkeypatch) as unread:
        configure_logging(LogSettings(), process="supervisor", slot=None)
        assert not os.get_blocking(log_fd())
        assert os.get_blocking(sys.stderr.fileno())
        assert os.fstat(log_fd()).st_ino == os.fstat(unread).st_ino
