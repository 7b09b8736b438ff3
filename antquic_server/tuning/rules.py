"""
What a setting must be, and what is written where it is not.

Values are text as the kernel writes it: numbers apart by blanks or tabs, or ports like ``8080,9000-9100``.
No rule ever takes away from a value that already serves: a larger buffer stays, a wider range stays wide.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

from antquic_server.errors import AntQuicError

__all__ = ["Rule", "RuleError", "RuleKind", "normal", "parse_rule", "port_text", "ports_of", "target"]

_LARGEST_PORT = 65535


class RuleError(AntQuicError):
    """A rule or a value is not of the form that is needed; the text says what was expected."""


class RuleKind(StrEnum):
    """How a value found is compared with the one wanted."""

    AT_LEAST = "at least"
    AT_MOST = "at most"
    EXACTLY = "exactly"
    RANGE = "range"
    COVERS = "covers"
    INCLUDES = "includes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A kind of comparison; ``low`` and ``high`` are the bounds, both included, of RANGE and mean nothing else."""

    kind: RuleKind
    low: int = 0
    high: int = 0

    def __str__(self) -> str:
        """Return the rule as it stands in a settings file."""
        return f"{self.kind} {self.low} {self.high}" if self.kind is RuleKind.RANGE else str(self.kind)


def parse_rule(text: str) -> Rule:
    """
    Read a rule as it stands in a settings file: ``at least``, ``range 20 60``.

    Raises:
        RuleError: There is no such rule.
    """
    match = re.fullmatch(r"range ([0-9]+) ([0-9]+)", text)
    if match is not None and int(match[1]) <= int(match[2]):
        return Rule(kind=RuleKind.RANGE, low=int(match[1]), high=int(match[2]))
    if text not in list(RuleKind) or text == RuleKind.RANGE:
        known = ", ".join(RuleKind)
        raise RuleError(f"rule {text!r}: expected one of {known} (range with its bounds: range 1 9)")
    return Rule(kind=RuleKind(text))


def normal(value: str) -> str:
    """Return a value with single blanks, so that two spellings of one value compare equal."""
    return " ".join(value.split())


def target(rule: Rule, *, found: str, wanted: str) -> str | None:
    """
    Return what has to be written, None where the value found will do.

    Args:
        rule: How they are compared. Values of several numbers are compared number by number; for COVERS they are
            one range (first, last), for INCLUDES a set of ports.
        found: The value the kernel has.
        wanted: The value of the settings file.

    Raises:
        RuleError: One of the values is not what the rule compares.
    """
    if rule.kind is RuleKind.INCLUDES:
        present = ports_of(found)
        return None if ports_of(wanted) <= present else port_text(present | ports_of(wanted))
    if rule.kind is RuleKind.EXACTLY:
        return None if normal(found) == normal(wanted) else normal(wanted)
    now, aim = _numbers(found), _numbers(wanted)
    if len(now) != len(aim):
        raise RuleError(f"{normal(found)!r}: expected {len(aim)} numbers like {normal(wanted)!r}")
    if rule.kind is RuleKind.RANGE:
        if not _within(rule, aim):
            raise RuleError(f"{normal(wanted)!r}: expected a value from {rule.low} to {rule.high}")
        better = now if _within(rule, now) else aim
    elif rule.kind is RuleKind.COVERS:
        better = [min(now[0], aim[0]), max(now[-1], aim[-1])]
    else:
        choose = max if rule.kind is RuleKind.AT_LEAST else min
        better = [choose(pair) for pair in zip(now, aim, strict=True)]
    return None if better == now else " ".join(map(str, better))


def ports_of(text: str) -> frozenset[int]:
    """
    Return the ports that a list like ``8080,9000-9100`` names; an empty list names none.

    Raises:
        RuleError: It is not such a list.
    """
    ports: set[int] = set()
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        match = re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match is not None else (1, 0)
        if not first <= last <= _LARGEST_PORT:
            raise RuleError(f"{part!r}: expected a port or a range of ports like 9000-9100")
        ports.update(range(first, last + 1))
    return frozenset(ports)


def port_text(ports: frozenset[int]) -> str:
    """Return a set of ports as the kernel writes it: in order, ranges where there are any."""
    runs: list[list[int]] = []
    for port in sorted(ports):
        if runs and port == runs[-1][-1] + 1:
            runs[-1][1:] = [port]
        else:
            runs.append([port])
    return ",".join("-".join(map(str, run)) for run in runs)


def _within(rule: Rule, numbers: list[int]) -> bool:
    return all(rule.low <= number <= rule.high for number in numbers)


def _numbers(text: str) -> list[int]:
    words = text.split()
    if not words or not all(re.fullmatch(r"-?[0-9]{1,20}", word) for word in words):
        raise RuleError(f"{normal(text)!r}: expected whole numbers")
    return [int(word) for word in words]
