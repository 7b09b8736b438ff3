"""
What a check says: a verdict, what was found, and the commands that change it.

A check that cannot look (no right, no such file, another system) says so in a finding of its own kind: verdict ``note``
and ``known`` False. Nothing is ever called fine that was not seen.
"""

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Finding", "Verdict", "cannot_tell", "fault", "note", "ok", "warning"]


class Verdict(StrEnum):
    """How bad it is, from the best to the worst."""

    OK = "ok"
    NOTE = "note"
    """Worth knowing; nothing has to change."""
    WARNING = "warning"
    """The node works, slower or with less in reserve than this machine could give it."""
    FAULT = "fault"
    """The node does not start, serves fewer than it is told to, or loses traffic."""

    @property
    def rank(self) -> int:
        """0 for the best verdict, 3 for the worst."""
        return list(Verdict).index(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """
    The answer of one check.

    ``found`` is one clause with the figures that were seen. ``fixes`` are alternatives, best first, each a line to copy
    into a shell or the configuration; empty where there is nothing to change. ``known`` is False where the check could
    not look, and ``found`` then says why.
    """

    verdict: Verdict
    found: str
    fixes: tuple[str, ...] = ()
    known: bool = True


def ok(found: str) -> Finding:
    """Nothing to do."""
    return Finding(verdict=Verdict.OK, found=found)


def note(found: str, *fixes: str) -> Finding:
    """Worth knowing."""
    return Finding(verdict=Verdict.NOTE, found=found, fixes=fixes)


def warning(found: str, *fixes: str) -> Finding:
    """Costs speed or reserve."""
    return Finding(verdict=Verdict.WARNING, found=found, fixes=fixes)


def fault(found: str, *fixes: str) -> Finding:
    """Does not work."""
    return Finding(verdict=Verdict.FAULT, found=found, fixes=fixes)


def cannot_tell(reason: str, *fixes: str) -> Finding:
    """Return the finding of a check that could not look, why not, and what else would tell."""
    return Finding(verdict=Verdict.NOTE, found=f"cannot tell: {reason}", fixes=fixes, known=False)
