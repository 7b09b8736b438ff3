"""What a benchmark is: a function from options to a report, and what a listing says about it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from antquic_server.bench.report import Report

__all__ = ["RESERVED_NAMES", "Benchmark", "chosen_options"]

RESERVED_NAMES = ("all", "compare")
"""What ``antquic-server bench`` takes for something else than a name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """
    One benchmark.

    ``options`` maps each option it knows to its default, as text, and ``quick`` some of them to values with which it
    only shows that it works. ``run`` measures once and gets all options, as text; it may raise
    :class:`~antquic_server.errors.UsageError` for one that makes no sense and
    :class:`~antquic_server.errors.CannotBootError` where something that it needs is missing.
    """

    summary: str
    """What is measured."""
    run: Callable[[Mapping[str, str]], Report]
    options: Mapping[str, str] = field(default_factory=dict)
    quick: Mapping[str, str] = field(default_factory=dict)
    ratio: str = ""
    """What is compared with what within one run; empty: nothing is."""
    about_s: float = 0.0
    """Seconds that one run takes with the defaults, roughly; 0: nobody knows."""
    quick_s: float = 0.0
    """The same for ``--quick``."""
    needs: str = "nothing"
    """What must be there for all of it."""


def chosen_options(benchmark: Benchmark, options: Mapping[str, str], *, quick: bool) -> dict[str, str]:
    """Return all options of a benchmark: what was asked for, else those of ``quick`` if wanted, else its defaults."""
    defaults = {**benchmark.options, **(benchmark.quick if quick else {})}
    return {key: options.get(key, default) for key, default in defaults.items()}
