"""``antquic-server bench NAME…``: run benchmarks, one or several times each, and hand out what they found."""

import json
import signal
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import zip_longest
from pathlib import Path
from typing import Final

from antquic_server.bench import charts
from antquic_server.bench.benchmark import Benchmark, chosen_options
from antquic_server.bench.machine import load_average, machine, versions
from antquic_server.bench.own import load_benchmarks, where
from antquic_server.bench.profiler import Profiler, profiling
from antquic_server.bench.progress import Campaign, Task, duration, running_campaign
from antquic_server.bench.registry import BENCHMARKS
from antquic_server.bench.report import Report, Table, terminal_columns
from antquic_server.bench.saved import Outcome, document, save
from antquic_server.bench.spread import collect, combined, spread_table
from antquic_server.errors import AntQuicError, BenchmarkError, UsageError

__all__ = ["Request", "run"]

ALL = "all"
"""In the place of a name: every benchmark there is."""

_WIDE_COLUMNS: Final = 150
_LIST_WIDTHS: Final = (12, 23, 20, 6, 12)
_OPTION_WIDTHS: Final = (12, 66)
"""What fits 80 columns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the command line asks for; ``command`` is that line itself, for the saved file."""

    names: Sequence[str] = ()
    options: Mapping[str, str] = field(default_factory=dict)
    quick: bool = False
    repeat: int = 1
    json_output: bool = False
    save: Path | None = None
    chart: Path | None = None
    profile: Path | None = None
    load: Path | None = None
    command: Sequence[str] = ()


def run(request: Request) -> int:
    """
    Run what is asked for, or list what there is; returns the exit code.

    A benchmark that fails does not take along those after it; what was found is printed and saved, and then the failure
    is raised.

    Raises:
        UsageError: A name or an option is unknown, or an option's value makes no sense.
        BenchmarkError: A benchmark failed, or a result cannot be written.
    """
    available = dict(BENCHMARKS)
    if request.load is not None:
        available |= load_benchmarks(request.load, available)
    if not request.names:
        _list(available, as_json=request.json_output)
        return 0
    chosen = _chosen(available, request)
    profiler = _prepared(request)
    started = _Start(created=datetime.now(UTC), monotonic_s=time.monotonic(), load=load_average())
    outcomes = {
        name: Outcome(options=chosen_options(item, request.options, quick=request.quick))
        for name, item in chosen.items()
    }
    errors: dict[str, AntQuicError] = {}
    try:
        with _terminated_like_interrupted():
            _measure(chosen, request, outcomes, errors, profiler)
    except (KeyboardInterrupt, BrokenPipeError):
        # What has taken minutes is not thrown away because the rest is not wanted any more, or not read (bench | head).
        with suppress(BenchmarkError, BrokenPipeError):
            _write(request, outcomes, started, complete=False)
        raise
    _write(request, outcomes, started, complete=not errors)
    _tell_profiles(profiler, errors)
    _raise(errors, len(chosen))
    return 0


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """Have SIGTERM do what Ctrl-C does: the servers that are measured are ours to end, and results ours to save."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Start:
    created: datetime
    monotonic_s: float
    load: list[float]


def _chosen(available: Mapping[str, Benchmark], request: Request) -> dict[str, Benchmark]:
    names = sorted(available) if ALL in request.names else list(dict.fromkeys(request.names))
    for name in names:
        if name not in available:
            raise UsageError(f"bench: no benchmark {name!r}; there are {', '.join(sorted(available))}")
    known = {key for name in names for key in available[name].options}
    for key in request.options:
        if key not in known:
            raise UsageError(f"bench: no option {key!r}; {', '.join(names)} know {', '.join(sorted(known))}")
    return {name: available[name] for name in names}


def _prepared(request: Request) -> Profiler | None:
    """Find out now what would otherwise fail after minutes of measuring."""
    if request.chart is not None:
        charts.check(request.chart)
    if request.save is not None and not request.save.parent.is_dir():
        raise UsageError(f"bench: --save {request.save}: no directory {request.save.parent}")
    return None if request.profile is None else Profiler(request.profile)


def _measure(
    chosen: Mapping[str, Benchmark],
    request: Request,
    outcomes: Mapping[str, Outcome],
    errors: dict[str, AntQuicError],
    profiler: Profiler | None,
) -> None:
    """Run everything; failures are put into ``errors``."""
    tasks = [
        Task(name=name, expected_s=item.quick_s if request.quick else item.about_s)
        for name, item in chosen.items()
        for _ in range(request.repeat)
    ]
    with running_campaign(Campaign(tasks)) as campaign, profiling(profiler):
        for name, benchmark in chosen.items():
            if profiler is not None:
                profiler.benchmark = name
            for _ in range(request.repeat):
                with campaign.task():
                    _run_once(name, benchmark, outcomes[name], errors)
            campaign.clear()
            if not request.json_output and outcomes[name].reports:
                print(_text(name, outcomes[name].reports, several=len(chosen) > 1), flush=True)
            if name in errors and len(chosen) > 1:
                print(f"bench: {name} failed: {errors[name]}", file=sys.stderr)


def _run_once(name: str, benchmark: Benchmark, outcome: Outcome, errors: dict[str, AntQuicError]) -> None:
    if name in errors:
        return  # it would fail again, and take its time
    started_s = time.monotonic()
    try:
        report = _guarded(benchmark.run, outcome.options)
    except AntQuicError as error:
        errors[name] = error
        outcome.failure = str(error)
        return
    outcome.reports.append(report)
    outcome.took_s.append(time.monotonic() - started_s)


def _guarded(action: Callable[[Mapping[str, str]], Report], options: Mapping[str, str]) -> Report:
    """Call a benchmark; whatever goes wrong in it is one line for the user."""
    try:
        report = action(options)
    except AntQuicError:
        raise
    except Exception as error:
        raise BenchmarkError(where(error)) from error
    if not isinstance(report, Report):
        raise BenchmarkError(f"returned {type(report).__name__}, expected a Report")
    _check_rows(report)
    return report


def _check_rows(report: Report) -> None:
    """Refuse rows that could not be told apart when runs are repeated or compared, or that do not fit their table."""
    for table in report.tables:
        if not all(len(row) == len(table.columns) for row in table.rows):
            raise BenchmarkError(f"table {table.title!r} has a row of another length than its columns")
        if table.chart is not None and table.chart not in table.names:
            raise BenchmarkError(f"table {table.title!r} has no column {table.chart!r} to draw")
        keys = Counter((figure.row, figure.column.name) for figure in table.figures())
        for (row, name), number in keys.items():
            if number > 1:
                raise BenchmarkError(f"table {table.title!r} has {name!r} of {row!r} {number} times")


def _text(name: str, reports: Sequence[Report], *, several: bool) -> str:
    heading = f"== {name} ==\n\n" if several else ""
    if len(reports) == 1:
        return heading + reports[0].as_text()
    report = combined(reports)
    spreads = collect([item.figures() for item in reports])
    tables = [*report.tables, *(spread_table(table.title, spreads) for table in report.tables)]
    notes = [
        f"Medians of {len(reports)} runs. Tables called spread show range and median absolute deviation (MAD) as well.",
        "They leave out what was the same in every run.",
        *report.notes,
    ]
    return heading + Report(tables=tables, notes=notes).as_text()


def _write(request: Request, outcomes: Mapping[str, Outcome], started: _Start, *, complete: bool) -> None:
    content = document(
        outcomes,
        created=started.created,
        complete=complete,
        took_s=round(time.monotonic() - started.monotonic_s, 3),
        command=list(request.command),
        machine=machine(),
        versions=versions(),
        load_average={"before": started.load, "after": load_average()},
    )
    if request.save is not None:
        save(request.save, content)
    if request.json_output:
        print(json.dumps(content))
    reports = {name: outcome.reports for name, outcome in outcomes.items() if outcome.reports}
    if request.chart is not None and reports:
        charts.draw(request.chart, charts.run_panels(reports), ())


def _tell_profiles(profiler: Profiler | None, errors: dict[str, AntQuicError]) -> None:
    if profiler is None:
        return
    for path in profiler.written:
        print(f"bench: flame graph: {path}", file=sys.stderr)
    for failure in profiler.failures:
        print(f"bench: {failure}", file=sys.stderr)
    if not profiler.written:
        errors.setdefault("--profile", BenchmarkError("bench --profile: no server was profiled"))


def _raise(errors: Mapping[str, AntQuicError], count: int) -> None:
    if not errors:
        return
    # A wrong option is a wrong command line, however many benchmarks it was for.
    first = next((error for error in errors.values() if isinstance(error, UsageError)), None)
    if first is not None or count == 1:
        raise first or next(iter(errors.values()))
    raise BenchmarkError(f"bench: {len(errors)} of {count} failed: {', '.join(errors)}")


def _list(available: Mapping[str, Benchmark], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({name: _plain(item) for name, item in sorted(available.items())}))
        return
    table = Table(title="benchmarks", columns=("name", "measures", "ratio", "about", "needs"))
    options = Table(title="options, with their defaults (--option KEY=VALUE)", columns=("name", "options"))
    for name, item in sorted(available.items()):
        about = duration(item.about_s) if item.about_s else "-"
        defaults = " ".join(f"{key}={value}" for key, value in item.options.items()) or "-"
        table.rows += _wrapped((name, item.summary, item.ratio or "-", about, item.needs), _LIST_WIDTHS)
        options.rows += _wrapped((name, defaults), _OPTION_WIDTHS)
    notes = [
        "antquic-server bench all runs every one of them, antquic-server bench NAME some.",
        "antquic-server bench --help shows how to repeat, save, compare, draw, profile and bring your own.",
    ]
    print(Report(tables=[table, options], notes=notes).as_text(), end="")


def _wrapped(cells: Sequence[str], widths: Sequence[int]) -> list[tuple[str, ...]]:
    """Return the row, in several lines if the terminal is too narrow for any of these lists."""
    if terminal_columns() >= _WIDE_COLUMNS:
        return [tuple(cells)]
    columns = [textwrap.wrap(cell, width, break_long_words=False) for cell, width in zip(cells, widths, strict=True)]
    return list(zip_longest(*columns, fillvalue=""))


def _plain(benchmark: Benchmark) -> dict[str, object]:
    return {
        "measures": benchmark.summary,
        "ratio": benchmark.ratio,
        "about_s": benchmark.about_s,
        "needs": benchmark.needs,
        "options": dict(benchmark.options),
        "quick": dict(benchmark.quick),
    }
