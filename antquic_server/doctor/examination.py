"""All checks by name, and the examination of a machine by some or all of them."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from antquic_server.doctor import (
    clock_checks,
    crypto_checks,
    firewall_checks,
    health_checks,
    kernel_checks,
    network_checks,
    node_checks,
    port_checks,
    processor_checks,
    python_checks,
    socket_checks,
)
from antquic_server.doctor.case import Case, Check, Topic
from antquic_server.doctor.finding import Finding, Verdict, cannot_tell
from antquic_server.errors import CannotTellError, ConfigurationError

__all__ = ["CHECKS", "Result", "count_by_verdict", "examine", "worst_verdict"]

_MODULES = (
    socket_checks,
    processor_checks,
    kernel_checks,
    python_checks,
    crypto_checks,
    clock_checks,
    network_checks,
    firewall_checks,
    port_checks,
    node_checks,
    health_checks,
)

CHECKS: dict[str, Check] = {
    check.name: check for topic in Topic for module in _MODULES for check in module.CHECKS if check.topic is topic
}
"""Every check of a machine by its name, topic by topic."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A check and its answer."""

    check: Check
    finding: Finding


def examine(case: Case, names: Sequence[str] = (), *, before: Callable[[str], None] = lambda _: None) -> list[Result]:
    """
    Run the checks of these names, in the order of ``CHECKS``; all if there are none.

    ``before`` is called with the name of each check.

    Raises:
        ConfigurationError: There is no check of one of the names.
    """
    for name in names:
        if name not in CHECKS:
            near = get_close_matches(name, CHECKS, n=1)
            expected = f"a check (did you mean {near[0]}?)" if near else "a check, one of " + ", ".join(CHECKS)
            raise ConfigurationError("command line", "CHECK", name, expected)
    results = []
    for check in CHECKS.values():
        if not names or check.name in names:
            before(check.name)
            results.append(Result(check=check, finding=_ask(check, case)))
    return results


def _ask(check: Check, case: Case) -> Finding:
    try:
        return check.examine(case)
    except CannotTellError as error:
        return cannot_tell(str(error))
    # A kernel may answer in a form nobody has seen; one check less is better than none.
    except (ValueError, IndexError, KeyError, OSError) as error:
        return cannot_tell(f"the system's answer is not understood ({type(error).__name__}: {str(error)[:80]})")


def count_by_verdict(results: Iterable[Result]) -> dict[Verdict, int]:
    """Return how many findings have each verdict, zeros included."""
    verdicts = [result.finding.verdict for result in results]
    return {verdict: verdicts.count(verdict) for verdict in Verdict}


def worst_verdict(results: Iterable[Result]) -> Verdict:
    """Return the worst verdict, ok if there are no results."""
    return max((result.finding.verdict for result in results), key=lambda verdict: verdict.rank, default=Verdict.OK)
