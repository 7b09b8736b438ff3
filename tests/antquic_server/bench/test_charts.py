"""Charts: what they show, and what is said where they cannot be drawn."""

import sys
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from antquic_server.bench.charts import Bar, Panel, check, comparison_panels, draw, run_panels
from antquic_server.bench.compare import Change
from antquic_server.bench.report import Column, Report, Table
from antquic_server.bench.spread import Spread
from antquic_server.errors import BenchmarkError, UsageError

US = Column(name="latency us", unit="us", better="lower")


def report(value: float, chart: str | None = "latency us") -> Report:
    """Return a report of one row with a charted figure."""
    table = Table(title="a table", columns=("name", US, Column(name="n")), rows=[("node", value, 7)], chart=chart)
    return Report(tables=[table, Table(title="undrawn", columns=("name",), rows=[("x",)])], notes=[])


def spread(*values: float) -> Spread:
    """Return the spread of a charted figure."""
    return Spread(column=US, values=values, drawn=True)


def test_run_has_a_panel_for_each_charted_table() -> None:
    """With the figure that the table names, over all repetitions, and no other."""
    (panel,) = run_panels({"fake": [report(1.0), report(3.0)]})

    assert (panel.title, panel.figure) == ("fake: a table", "latency us")
    ((bar),) = panel.bars
    assert bar.label == "node"
    assert [list(item.values) for item in bar.spreads] == [[1.0, 3.0]]


def test_comparison_has_both_runs_at_each_bar() -> None:
    """With change and verdict."""
    change = Change(benchmark="fake", table="t", row="r", old=spread(1, 1, 1), new=spread(2, 2, 2))

    (panel,) = comparison_panels([change])

    assert [item.median for item in panel.bars[0].spreads] == [1, 2]
    assert panel.bars[0].remark == "  +100.0 %, worse"


@pytest.mark.parametrize("values", [[(5.0,)], [(4.0, 5.0, 9.0)], [(4.0, 5.0, 9.0), (1.0, 2.0, 3.0)]], ids=len)
def test_drawing_is_svg_with_text_that_can_be_read(tmp_path: Path, values: Sequence[Sequence[float]]) -> None:
    """Title, label, figure and median are text in the file, and the same data give the same file."""
    path = tmp_path / "chart.svg"
    panel = Panel(title="a title", figure="us", bars=[Bar(label="a label", spreads=[spread(*run) for run in values])])

    draw(path, [panel], ["before", "after"])
    first = path.read_bytes()
    draw(path, [panel], ["before", "after"])

    assert path.read_bytes() == first
    root = ET.fromstring(first)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    texts = [text.strip() for element in root.iter() for text in element.itertext()]
    for expected in ("a title", "a label", "us", "5"):
        assert expected in texts
    assert ("before" in texts) == (len(values) > 1)


def test_nothing_to_draw_is_said(tmp_path: Path) -> None:
    """Instead of an empty picture."""
    with pytest.raises(BenchmarkError, match="none of these tables has a figure that is drawn"):
        draw(tmp_path / "chart.svg", run_panels({"fake": [report(1.0, chart=None)]}), [])


def test_file_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    """With its name and the reason."""
    with pytest.raises(BenchmarkError, match=r"cannot write .*: No such file"):
        draw(tmp_path / "no" / "chart.svg", run_panels({"fake": [report(1.0)]}), [])


def test_wrong_names_are_found_before_anything_is_measured(tmp_path: Path) -> None:
    """Another ending, a directory that is not there."""
    with pytest.raises(UsageError, match=r"expected a file name that ends in \.svg"):
        check(tmp_path / "chart.png")
    with pytest.raises(UsageError, match="no directory"):
        check(tmp_path / "no" / "chart.svg")
    check(tmp_path / "chart.svg")


def test_without_matplotlib_the_command_to_get_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is optional: None in sys.modules is how Python marks a module that cannot be imported."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)

    with pytest.raises(BenchmarkError, match=r"needs matplotlib: pip install 'antquic-server\[charts\]'"):
        check(tmp_path / "chart.svg")
