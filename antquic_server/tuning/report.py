"""How the outcome of ``tune`` is shown: a table for people, one object for programs."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from textwrap import fill

from antquic_server.tuning.actions import Report
from antquic_server.tuning.catalogue import Topic
from antquic_server.tuning.plan import Outcome, Verdict
from antquic_server.tuning.rules import normal

__all__ = ["render_json", "render_text", "render_topics", "render_topics_json"]

_HEADINGS: Mapping[str, tuple[str, str]] = {
    "check": ("now", "expected"),
    "apply": ("found", "expected or set"),
    "revert": ("now", "found by apply"),
}
_NOTHING: Mapping[str, str] = {
    "check": "nothing to do: every setting is as wanted",
    "apply": "nothing to change: every setting is as wanted",
    "revert": "nothing to revert: nothing is recorded",
}

_FACTS = ("unit", "stock", "why", "effect", "undo", "kernels")
_COLUMNS = 100
"""Of text that is read rather than compared."""


def render_text(report: Report) -> str:
    """Return the table, what is to be said about single settings, and a sentence that sums up."""
    left, right = _HEADINGS[report.action]
    rows = [("topic", "setting", left, right, "verdict")]
    topic = ""
    for one in report.outcomes:
        shown, topic = "" if one.topic == topic else one.topic, one.topic
        rows.append((shown, one.key, normal(one.now) or "-", _aim(report, one), _word(report, one)))
    lines = _table(rows) if report.outcomes else []
    notes: dict[str, list[str]] = {}
    for outcome in report.outcomes:
        if outcome.note:
            notes.setdefault(outcome.note, []).append(outcome.key)
    if notes:
        lines += ["", *(f"{', '.join(keys)}: {note}" for note, keys in notes.items())]
    if report.files:
        lines += ["", *report.files]
    return "\n".join([*lines, *([""] if lines else []), _summary(report)])


def _aim(report: Report, outcome: Outcome) -> str:
    """What is expected; where a value was or would be written, that value."""
    is_plan = report.action == "check" or outcome.verdict in (Verdict.FINE, Verdict.MISSING)
    return (outcome.asked if is_plan else normal(outcome.wanted)) or "-"


def _word(report: Report, outcome: Outcome) -> str:
    if report.dry_run and outcome.verdict is Verdict.TO_DO:
        return f"would {'set' if report.action == 'apply' else 'restore'}"
    return str(outcome.verdict)


def _summary(report: Report) -> str:
    counts: dict[str, int] = {}
    for outcome in report.outcomes:
        counts[_word(report, outcome)] = counts.get(_word(report, outcome), 0) + 1
    quiet = {str(Verdict.FINE), str(Verdict.MISSING)}
    if set(counts) <= quiet:
        absent = counts.get(Verdict.MISSING, 0)
        return _NOTHING[report.action] + (f" ({absent} not there)" if absent else "")
    summary = ", ".join(f"{count} {word}" for word, count in counts.items())
    if report.action == "check":
        return f"{summary}: antquic-server tune apply (as root)"
    return summary


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def render_json(report: Report) -> str:
    """Return one JSON object: ``good``, ``changed`` and lists ``settings`` and ``files``; values are text."""
    settings = [
        {
            "key": outcome.key,
            "topic": outcome.topic,
            "now": normal(outcome.now),
            "wanted": normal(outcome.wanted),
            "expected": outcome.asked,
            "verdict": str(outcome.verdict),
            "note": outcome.note,
        }
        for outcome in report.outcomes
    ]
    content = {
        "action": report.action,
        "dry_run": report.dry_run,
        "good": report.is_good,
        "changed": report.has_changed,
        "settings": settings,
        "files": list(report.files),
    }
    return json.dumps(content)


def render_topics_json(topics: Sequence[Topic]) -> str:
    """Return the same as one JSON object, ``{"topics": [...]}``, with the fields of the settings files."""
    content = []
    for topic in topics:
        settings = [{**asdict(setting), "rule": str(setting.rule)} for setting in topic.settings]
        content.append({**asdict(topic), "settings": settings})
    return json.dumps({"topics": content})


def render_topics(topics: Sequence[Topic]) -> str:
    """Return every topic with its settings, as ``tune list`` shows them."""
    blocks = []
    for topic in topics:
        when = "by default" if topic.by_default else f"only with --topic {topic.name}"
        lines = [f"{topic.name}: {topic.title} ({when})", _wrapped("  ", topic.about)]
        for setting in topic.settings:
            lines += ["", f"  {setting.key} = {setting.value}"]
            facts = {"rule": str(setting.rule)} | {name: getattr(setting, name) for name in _FACTS}
            lines += [_wrapped(f"    {name:9}", fact) for name, fact in facts.items()]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _wrapped(start: str, text: str) -> str:
    return fill(
        text,
        width=_COLUMNS,
        initial_indent=start,
        subsequent_indent=" " * len(start),
        break_long_words=False,
        break_on_hyphens=False,
    )
