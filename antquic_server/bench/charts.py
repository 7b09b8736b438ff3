"""Charts of runs and comparisons, as SVG; drawn by matplotlib, which is asked for only here."""

import importlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from antquic_server.bench.compare import Change, Verdict
from antquic_server.bench.report import Report
from antquic_server.bench.spread import Spread, collect
from antquic_server.errors import BenchmarkError, UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["INSTALL", "Bar", "Panel", "check", "comparison_panels", "draw", "run_panels"]

INSTALL: Final = "pip install 'antquic-server[charts]'"
"""How to get what draws."""

_COLOURS: Final = ("#0072b2", "#e69f00")
"""Blue and orange of Okabe and Ito: told apart with every kind of colour vision, and in grey."""
_WIDTH_INCHES: Final = 9.0
_ROW_INCHES: Final = 0.3
_PANEL_INCHES: Final = 1.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One row of a panel: what it is about, one spread for each run, and a remark behind it."""

    label: str
    spreads: Sequence[Spread]
    remark: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """The charted figure of one table."""

    title: str
    figure: str
    bars: Sequence[Bar]


def check(path: Path) -> None:
    """
    Find out whether charts can be drawn, before anything is measured for them.

    Raises:
        UsageError: The file's name has another ending than .svg, or its directory does not exist.
        BenchmarkError: matplotlib is missing; the text says how to install it.
    """
    if path.suffix != ".svg":
        raise UsageError(f"bench: --chart {path}: expected a file name that ends in .svg")
    if not path.parent.is_dir():
        raise UsageError(f"bench: --chart {path}: no directory {path.parent}")
    _matplotlib()


def run_panels(reports: Mapping[str, Sequence[Report]]) -> list[Panel]:
    """Return a panel for every table with a charted figure, from the repetitions of each benchmark."""
    return [
        panel
        for name, repetitions in reports.items()
        for panel in _panels(
            (name, table, row, (spread,), "")
            for (table, row, _), spread in collect([report.figures() for report in repetitions]).items()
        )
    ]


def comparison_panels(changes: Sequence[Change]) -> list[Panel]:
    """Return a panel for every table with a charted figure: old and new side by side, with change and verdict."""
    return _panels(
        (change.benchmark, change.table, change.row, (change.old, change.new), _remark(change)) for change in changes
    )


def draw(path: Path, panels: Sequence[Panel], legend: Sequence[str]) -> None:
    """
    Write the panels, one under the other; ``legend`` names the runs if there is more than one.

    Bars are medians. A line through the end of one goes from the smallest to the greatest value.

    Raises:
        BenchmarkError: There is nothing to draw, or the file cannot be written.
    """
    if not panels:
        raise BenchmarkError(f"bench: --chart {path}: none of these tables has a figure that is drawn")
    matplotlib = _matplotlib()
    heights = [_PANEL_INCHES + _ROW_INCHES * sum(len(bar.spreads) for bar in panel.bars) for panel in panels]
    # Text stays text, so that it can be searched, read out and tested; the same data give the same file.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "antquic-server", "font.size": 9}):
        figure = importlib.import_module("matplotlib.figure").Figure(
            figsize=(_WIDTH_INCHES, sum(heights)), layout="constrained", facecolor="white"
        )
        # Figures of their own, so that a title begins at the edge and not where long labels end.
        parts = figure.subfigures(len(panels), 1, squeeze=False, height_ratios=heights)
        for part, panel in zip(parts[:, 0], panels, strict=True):
            part.suptitle(panel.title, x=0.01, horizontalalignment="left", fontsize=10, fontweight="bold")
            _draw_panel(part.subplots(), panel, legend)
        try:
            figure.savefig(path, format="svg", metadata={"Date": None})
        except OSError as error:
            raise BenchmarkError(f"cannot write {path}: {error.strerror}") from error


def _panels(rows: Iterable[tuple[str, str, str, Sequence[Spread], str]]) -> list[Panel]:
    bars: dict[tuple[str, str], list[Bar]] = {}
    for benchmark, table, row, spreads, remark in rows:
        if spreads[0].drawn:
            bars.setdefault((f"{benchmark}: {table}", spreads[0].column.name), []).append(
                Bar(label=row, spreads=spreads, remark=remark)
            )
    return [Panel(title=title, figure=figure, bars=found) for (title, figure), found in bars.items()]


def _draw_panel(axes: "Axes", panel: Panel, legend: Sequence[str]) -> None:
    runs = len(panel.bars[0].spreads)
    thickness = 0.8 / runs
    for run in range(runs):
        spreads = [bar.spreads[run] for bar in panel.bars]
        medians = [spread.median for spread in spreads]
        errors = [
            [spread.median - spread.least for spread in spreads],
            [spread.greatest - spread.median for spread in spreads],
        ]
        drawn = axes.barh(
            [at + (run - (runs - 1) / 2) * thickness for at in range(len(spreads))],
            medians,
            height=thickness * 0.92,
            color=_COLOURS[run],
            xerr=errors if any(len(spread.values) > 1 for spread in spreads) else None,
            error_kw={"linewidth": 1, "capsize": 2},
            label=legend[run] if runs > 1 else None,
        )
        last = run == runs - 1
        axes.bar_label(
            drawn,
            [
                f"{spread.median:,.4g}{bar.remark if last else ''}"
                for spread, bar in zip(spreads, panel.bars, strict=True)
            ],
            padding=4,
            fontsize=8,
        )
    axes.set_yticks(range(len(panel.bars)), [bar.label for bar in panel.bars])
    axes.invert_yaxis()
    axes.margins(x=0.3 if runs > 1 else 0.15)
    axes.set_xlabel(panel.figure)
    axes.spines[["top", "right"]].set_visible(False)
    if runs > 1:
        axes.legend(fontsize=8, frameon=False)


def _remark(change: Change) -> str:
    percent = "" if change.percent is None else f"  {change.percent:+.1f} %"
    return percent if change.verdict is Verdict.NONE else f"{percent}, {change.verdict}"


def _matplotlib() -> Any:
    try:
        return importlib.import_module("matplotlib")
    except ImportError:
        raise BenchmarkError(f"bench: --chart needs matplotlib: {INSTALL}") from None
