"""Listing and running benchmarks, with small ones that measure nothing."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from antquic_server.bench import campaign, profiler
from antquic_server.bench.benchmark import Benchmark
from antquic_server.bench.campaign import Request, run
from antquic_server.bench.registry import BENCHMARKS
from antquic_server.bench.report import Column, Report, Table
from antquic_server.bench.saved import load
from antquic_server.errors import BenchmarkError, CannotBootError, UsageError


class Fake:
    """A benchmark whose figure is 1 in the first run, 2 in the second, and so on; ``failures`` by run."""

    def __init__(self, failures: Mapping[int, BaseException] | None = None) -> None:
        self.seen: list[dict[str, str]] = []
        self._failures = failures or {}

    def run(self, options: Mapping[str, str]) -> Report:
        """Return the figure, or fail."""
        self.seen.append(dict(options))
        number = len(self.seen)
        if number in self._failures:
            raise self._failures[number]
        columns = ("name", Column(name="us", unit="us", better="lower"))
        return Report(tables=[Table(title="t", columns=columns, rows=[("a", number)], chart="us")], notes=["why"])

    def benchmark(self) -> Benchmark:
        """Return it as one that can be registered."""
        return Benchmark(summary="fakes", options={"a": "10"}, quick={"a": "1"}, about_s=90, run=self.run)


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> dict[str, Fake]:
    """Two benchmarks in the place of all others: ``one`` and ``two``."""
    found = {"one": Fake(), "two": Fake()}
    monkeypatch.setattr(campaign, "BENCHMARKS", {name: fake.benchmark() for name, fake in found.items()})
    return found


def replaced(monkeypatch: pytest.MonkeyPatch, name: str, fake: Fake) -> None:
    """Put another benchmark in the place of one."""
    monkeypatch.setitem(vars(campaign)["BENCHMARKS"], name, fake.benchmark())


def test_list_is_a_table_of_every_benchmark(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With what it measures, its ratio, how long it takes, what it needs, and its options."""
    monkeypatch.setenv("COLUMNS", "200")
    assert run(Request()) == 0

    shown = capsys.readouterr().out
    for name, benchmark in BENCHMARKS.items():
        (line,) = [line for line in shown.splitlines() if line.startswith(f"{name} ") and benchmark.summary in line]
        assert benchmark.ratio in line
        assert benchmark.needs in line
        for key, value in benchmark.options.items():
            assert f"{key}={value}" in shown


def test_list_fits_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is lost: every word and every option is still there."""
    monkeypatch.setenv("COLUMNS", "80")

    run(Request())

    table, _, notes = capsys.readouterr().out.partition("\n- ")
    assert notes
    assert max(map(len, table.splitlines())) <= 80
    words = table.split()
    for benchmark in BENCHMARKS.values():
        assert set(f"{benchmark.summary} {benchmark.ratio} {benchmark.needs}".split()) <= set(words)
        assert {f"{key}={value}" for key, value in benchmark.options.items()} <= set(words)


def test_list_for_programs(fakes: dict[str, Fake], capsys: pytest.CaptureFixture[str]) -> None:
    """The same as JSON; nothing runs."""
    run(Request(json_output=True))

    listed = json.loads(capsys.readouterr().out)
    assert list(listed) == ["one", "two"]
    assert listed["one"]["about_s"] == 90
    assert listed["one"]["options"] == {"a": "10"}
    assert fakes["one"].seen == []


def test_unknown_names_and_options_are_usage_errors(fakes: dict[str, Fake]) -> None:
    """The message names those there are; a mistyped option does not run with its default."""
    with pytest.raises(UsageError, match="no benchmark 'nope'; there are one, two"):
        run(Request(names=["nope"]))
    with pytest.raises(UsageError, match="no option 'b'; one know a"):
        run(Request(names=["one"], options={"b": "1"}))
    assert fakes["one"].seen == []


def test_one_several_and_all(fakes: dict[str, Fake], capsys: pytest.CaptureFixture[str]) -> None:
    """A name given twice runs once; with several each has a heading."""
    run(Request(names=["one", "one"]))
    assert "== one ==" not in capsys.readouterr().out
    run(Request(names=["all"]))

    assert [len(fake.seen) for fake in fakes.values()] == [2, 1]
    assert "== two ==" in capsys.readouterr().out


def test_options_and_quick_reach_the_benchmark(fakes: dict[str, Fake]) -> None:
    """An option wins over ``--quick``, which wins over the default."""
    run(Request(names=["one"]))
    run(Request(names=["one"], quick=True))
    run(Request(names=["one"], quick=True, options={"a": "5"}))

    assert fakes["one"].seen == [{"a": "10"}, {"a": "1"}, {"a": "5"}]


def test_repetitions_give_median_and_spread(fakes: dict[str, Fake], capsys: pytest.CaptureFixture[str]) -> None:
    """Whole runs, one benchmark after the other; the figure was 1, 2 and 3."""
    run(Request(names=["one", "two"], repeat=3))

    printed = capsys.readouterr()
    assert [len(fake.seen) for fake in fakes.values()] == [3, 3]
    spread = printed.out[printed.out.index("spread: t") :].splitlines()[3]
    assert spread.split() == ["a", "us", "us", "3", "2.00", "1.00", "3.00", "1.00", "50.0"]
    assert "Medians of 3 runs" in printed.out
    assert "bench: [6/6] two" in printed.err


def test_saved_file_has_every_repetition_and_where_it_was_measured(fakes: dict[str, Fake], tmp_path: Path) -> None:
    """Machine, versions, load before and after, and the command line."""
    path = tmp_path / "run.json"
    run(Request(names=["one"], repeat=2, save=path, command=["antquic-server", "bench", "one"]))

    written = json.loads(path.read_text())
    assert written["command"] == ["antquic-server", "bench", "one"]
    assert written["complete"] is True
    assert set(written["machine"]) == {"cpu", "cpus", "kernel", "python"}
    assert {"antquic-server", "aioquic", "liboqs", "openssl"} <= set(written["versions"])
    assert set(written["load_average"]) == {"before", "after"}
    assert [figure.value for repetition in load(path).figures["one"] for figure in repetition] == [1, 2]


def test_json_is_what_would_be_saved(
    fakes: dict[str, Fake], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One object on standard output, and no tables."""
    run(Request(names=["one"], json_output=True, save=tmp_path / "run.json"))

    assert json.loads(capsys.readouterr().out) == json.loads((tmp_path / "run.json").read_text())


def test_chart_is_drawn(fakes: dict[str, Fake], tmp_path: Path) -> None:
    """Of every benchmark that ran."""
    run(Request(names=["one", "two"], repeat=2, chart=tmp_path / "run.svg"))

    drawn = (tmp_path / "run.svg").read_text()
    assert "one: t" in drawn
    assert "two: t" in drawn


def test_failure_of_one_leaves_the_others(
    fakes: dict[str, Fake], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was found before and after it is printed and saved; it does not run again; then the failure is raised."""
    failing = Fake({2: CannotBootError("no root")})
    replaced(monkeypatch, "one", failing)
    path = tmp_path / "run.json"

    with pytest.raises(BenchmarkError, match="1 of 2 failed: one"):
        run(Request(names=["one", "two"], repeat=3, save=path))

    assert len(failing.seen) == 2
    assert "bench: one failed: no root" in capsys.readouterr().err
    written = json.loads(path.read_text())
    assert written["complete"] is False
    assert written["benchmarks"]["one"]["failure"] == "no root"
    assert [len(item["repetitions"]) for item in written["benchmarks"].values()] == [1, 3]


def test_failure_of_the_only_one_keeps_its_exit_code(fakes: dict[str, Fake], monkeypatch: pytest.MonkeyPatch) -> None:
    """Cannot start is 3, whoever finds out."""
    replaced(monkeypatch, "one", Fake({1: CannotBootError("no root")}))

    with pytest.raises(CannotBootError, match="no root"):
        run(Request(names=["one"]))


def test_wrong_option_is_a_usage_error_also_among_several(
    fakes: dict[str, Fake], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command line is wrong, whichever benchmark finds out."""
    replaced(monkeypatch, "two", Fake({1: UsageError("bench: a = 'x': expected a whole number, 1 or more")}))

    with pytest.raises(UsageError, match="a = 'x': expected a whole number"):
        run(Request(names=["all"], options={"a": "x"}))


def test_bug_of_a_benchmark_is_one_line_with_its_place(fakes: dict[str, Fake], monkeypatch: pytest.MonkeyPatch) -> None:
    """Also that it returns something else."""
    replaced(monkeypatch, "one", Fake({1: ZeroDivisionError("by zero")}))
    with pytest.raises(BenchmarkError, match=r"ZeroDivisionError: by zero \(test_campaign\.py:\d+\)"):
        run(Request(names=["one"]))

    nothing: Any = lambda options: None  # noqa: E731 - the type checker must not see what it returns
    monkeypatch.setattr(campaign, "BENCHMARKS", {"one": Benchmark(summary="", run=nothing)})
    with pytest.raises(BenchmarkError, match="returned NoneType, expected a Report"):
        run(Request(names=["one"]))


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        (Table(title="t", columns=("n", Column(name="x")), rows=[("a", 1), ("a", 2)]), "'x' of 'a' 2 times"),
        (Table(title="t", columns=("n", Column(name="x")), rows=[("a", 1, 2)]), "row of another length"),
        (Table(title="t", columns=("n", Column(name="x")), rows=[("a", 1)], chart="y"), "no column 'y' to draw"),
    ],
)
def test_tables_that_could_not_be_compared_are_refused(
    fakes: dict[str, Fake], monkeypatch: pytest.MonkeyPatch, table: Table, complaint: str
) -> None:
    """In one line, when the benchmark is run for the first time; two plain rows alike are nobody's business."""
    plain = Table(title="plain", columns=("n",), rows=[("a",), ("a",)])
    monkeypatch.setitem(
        vars(campaign)["BENCHMARKS"],
        "one",
        Benchmark(summary="", run=lambda options: Report(tables=[plain, table], notes=[])),
    )

    with pytest.raises(BenchmarkError, match=f"table 't' has .*{complaint}"):
        run(Request(names=["one"]))


@pytest.mark.parametrize("interruption", [KeyboardInterrupt(), BrokenPipeError()], ids=["Ctrl-C", "closed pipe"])
def test_interruption_saves_what_there_is(
    fakes: dict[str, Fake], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, interruption: BaseException
) -> None:
    """Minutes of measuring are not lost; the file says that it is not all."""
    replaced(monkeypatch, "two", Fake({2: interruption}) if isinstance(interruption, KeyboardInterrupt) else Fake())
    if isinstance(interruption, BrokenPipeError):
        monkeypatch.setattr(campaign, "_text", lambda *_, **__: (_ for _ in ()).throw(interruption))
    path = tmp_path / "run.json"

    with pytest.raises(type(interruption)):
        run(Request(names=["one", "two"], repeat=3, save=path))

    written = json.loads(path.read_text())
    assert written["complete"] is False
    assert len(written["benchmarks"]["one"]["repetitions"]) == 3


def test_places_that_cannot_be_written_are_found_before_measuring(fakes: dict[str, Fake], tmp_path: Path) -> None:
    """Not after minutes of it."""
    with pytest.raises(UsageError, match=r"--save .*: no directory"):
        run(Request(names=["one"], save=tmp_path / "no" / "run.json"))
    with pytest.raises(UsageError, match=r"--chart .*: no directory"):
        run(Request(names=["one"], chart=tmp_path / "no" / "run.svg"))
    (tmp_path / "file").touch()
    with pytest.raises(BenchmarkError, match=r"--profile .*/file: File exists"):
        run(Request(names=["one"], profile=tmp_path / "file"))
    assert fakes["one"].seen == []


def test_profile_of_no_server_is_no_success(
    fakes: dict[str, Fake], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A benchmark that starts no server cannot be profiled; without py-spy nothing can."""
    with pytest.raises(BenchmarkError, match="no server was profiled"):
        run(Request(names=["one"], profile=tmp_path / "flames"))

    monkeypatch.setattr(profiler, "find_py_spy", lambda: None)
    with pytest.raises(BenchmarkError, match="needs py-spy: pip install py-spy"):
        run(Request(names=["one"], profile=tmp_path / "flames"))


def test_flame_graphs_are_named_and_so_is_what_is_missing(
    fakes: dict[str, Fake], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On standard error, after the tables; one of two is better than none."""

    class FakeProfiler:
        """Stands in for one that has seen two servers."""

        def __init__(self, directory: Path) -> None:
            self.written = [directory / "one-1-node.svg"]
            self.failures = ["no flame graph of stock asyncio (pid 1): Permission denied"]
            self.benchmark = ""

    monkeypatch.setattr(campaign, "Profiler", FakeProfiler)

    assert run(Request(names=["one"], profile=tmp_path)) == 0

    said = capsys.readouterr().err.splitlines()
    assert said[-2:] == [
        f"bench: flame graph: {tmp_path}/one-1-node.svg",
        "bench: no flame graph of stock asyncio (pid 1): Permission denied",
    ]


def test_benchmarks_of_ones_own_are_listed_and_run_with_the_others(
    fakes: dict[str, Fake], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """``all`` has them as well."""
    own = tmp_path / "own.py"
    own.write_text(
        "from antquic_server.bench.api import Benchmark, Report\n"
        "BENCHMARKS = {'mine': Benchmark(summary='mine alone', run=lambda o: Report(tables=[], notes=['hello']))}\n"
    )

    run(Request(load=own))
    assert "mine alone" in capsys.readouterr().out
    run(Request(load=own, names=["all"]))
    assert "- hello" in capsys.readouterr().out
    assert len(fakes["one"].seen) == 1
