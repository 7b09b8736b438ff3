"""
Results as a table for people and as JSON for programs.

The JSON is stable: keys are added, never renamed or dropped, while ``schema`` stays the same::

    schema    1
    version   of this program
    checks    name, topic, verdict, known, found, looks_at, why, effect, fixes
    summary   how many of each verdict
    exit_code what the command returns
"""

import textwrap
from collections.abc import Sequence

from antquic_server import __version__
from antquic_server.doctor.examination import Result, count_by_verdict
from antquic_server.doctor.finding import Verdict

__all__ = ["SCHEMA", "document", "render_text", "summary"]

SCHEMA = 1

MIN_WIDTH, MAX_WIDTH = 72, 140

_COLOURS = {Verdict.OK: "32", Verdict.NOTE: "36", Verdict.WARNING: "33", Verdict.FAULT: "1;31"}


def document(results: Sequence[Result], exit_code: int) -> dict[str, object]:
    """Return the results for ``--json``."""
    return {
        "schema": SCHEMA,
        "version": __version__,
        "checks": [
            {
                "name": check.name,
                "topic": str(check.topic),
                "verdict": str(finding.verdict),
                "known": finding.known,
                "found": finding.found,
                "looks_at": check.looks_at,
                "why": check.why,
                "effect": check.effect,
                "fixes": list(finding.fixes),
            }
            for check, finding in ((result.check, result.finding) for result in results)
        ],
        "summary": {str(verdict): count for verdict, count in count_by_verdict(results).items()},
        "exit_code": exit_code,
    }


def render_text(results: Sequence[Result], *, width: int, colour: bool) -> str:
    """
    Return the table, then what can be done about it, then the summary line.

    Args:
        results: What was found.
        width: Columns of the terminal.
        colour: Whether it shows colours.
    """
    width = min(max(width, MIN_WIDTH), MAX_WIDTH)
    lines: list[str] = []
    longest = max((len(result.check.name) for result in results), default=0)
    topic = None
    for result in results:
        if result.check.topic is not topic:
            topic = result.check.topic
            lines.append(_bold(str(topic), colour))
        label = _painted(result.finding.verdict, f"{result.finding.verdict:<8}", colour)
        indent = " " * (longest + 13)
        wrapped = _wrap(_printable(result.finding.found), width, indent)
        lines.append(f"  {label} {result.check.name:<{longest}}  {wrapped.lstrip()}")
    worth = [result for result in results if result.finding.fixes]
    if worth:
        lines += ["", _bold("what to do", colour)]
    for result in sorted(worth, key=lambda each: -each.finding.verdict.rank):
        lines += _advice(result, width, colour)
    return "\n".join([*lines, "", summary(results)])


def _advice(result: Result, width: int, colour: bool) -> list[str]:
    check, finding = result.check, result.finding
    why = _wrap(f"{check.name}: {check.why}", width, " " * 4).strip()
    lines = [f"  {_painted(finding.verdict, check.name, colour)}{why.removeprefix(check.name)}"]
    if check.effect:
        lines.append(_wrap(f"measured: {check.effect}", width, " " * 4))
    # Commands are never wrapped: they are there to be copied.
    lines += [f"    {'or  ' if number else 'fix '} {_printable(fix)}" for number, fix in enumerate(finding.fixes)]
    return lines


def summary(results: Sequence[Result]) -> str:
    """Return one line: ``2 faults, 1 warning, 3 notes, 20 ok``; what there is none of is left out, but for faults."""
    counts = count_by_verdict(results)
    parts = [_counted(counts[Verdict.FAULT], "fault")]
    parts += [_counted(counts[each], str(each)) for each in (Verdict.WARNING, Verdict.NOTE) if counts[each]]
    unknown = sum(not result.finding.known for result in results)
    told = f" ({unknown} cannot be told)" if unknown else ""
    return f"{', '.join(parts)}, {counts[Verdict.OK]} ok{told}"


def _counted(count: int, word: str) -> str:
    return f"{count or 'no'} {word}{'' if count == 1 else 's'}"


def _wrap(text: str, width: int, indent: str) -> str:
    return textwrap.fill(
        text, width, initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def _printable(text: str) -> str:
    """Escape what could command a terminal: names of processes and contents of files are in other people's hands."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _painted(verdict: Verdict, text: str, colour: bool) -> str:
    return f"\x1b[{_COLOURS[verdict]}m{text}\x1b[0m" if colour else text


def _bold(text: str, colour: bool) -> str:
    return f"\x1b[1m{text}\x1b[0m" if colour else text
