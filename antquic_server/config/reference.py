"""
The configuration reference: one Markdown table per section, made from the model.

Defaults come from ``Settings()``, limits from the rules, meanings from ``config.meanings``. The prose around the
tables of ``docs/configuration.md`` is written by hand; the tables are not, and a test holds the page to that.
"""

import json
import re
from collections.abc import Mapping

from antquic_server.config.meanings import MEANINGS
from antquic_server.config.model import Settings, rules_of, section_types, to_plain

__all__ = ["render_table", "render_toml", "render_value", "replace_tables"]

_HEAD = "| key | default | accepts | meaning |\n|---|---|---|---|\n"


def render_table(section: str) -> str:
    """
    Return the table of one section, a line per key, ending in a line break.

    Raises:
        KeyError: There is no such section, or one of its keys has no meaning written down.
    """
    defaults = _plain_section(Settings(), section)
    rows = [
        f"| `{key}` | `{render_value(defaults[key])}` | {rule.expected} | {MEANINGS[f'{section}.{key}']} |\n"
        for key, rule in rules_of(section).items()
    ]
    return _HEAD + "".join(rows)


def replace_tables(page: str) -> str:
    """Return the reference page (Markdown) with the table below each heading ``### `[section]` `` made anew."""
    for section in section_types():
        pattern = re.compile(rf"(### `\[{section}\]`.*?\n\n)\| key \|.*?\n(?=\n|\Z)", re.DOTALL)
        page = pattern.sub(lambda found, name=section: found[1] + render_table(name), page, count=1)  # type: ignore[misc]
    return page


def render_toml(settings: Settings) -> str:
    """Return a complete configuration file with these settings; what differs from its default says so."""
    lines: list[str] = []
    for section in section_types():
        values, defaults = _plain_section(settings, section), _plain_section(Settings(), section)
        lines.append(f"[{section}]")
        for key, value in values.items():
            changed = "" if value == defaults[key] else f"  # default: {render_value(defaults[key])}"
            lines.append(f"{key} = {render_value(value)}{changed}")
        lines.append("")
    return "\n".join(lines)


def render_value(value: object) -> str:
    """
    Return a plain value (``model.to_plain``) as TOML writes it on one line; None is an empty string.

    A JSON string is a TOML string as well: both escape quotes, backslashes and control characters alike.
    """
    if value is None:
        return '""'
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_quoted(key)} = {render_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(render_value(item) for item in value) + "]"
    if isinstance(value, str):
        return _quoted(value)
    return json.dumps(value)


def _quoted(text: str) -> str:
    # JSON leaves DEL as it is, TOML does not. Escaped surrogate pairs, JSON's other habit, are none of TOML's.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _plain_section(settings: Settings, section: str) -> dict[str, object]:
    table = to_plain(settings)[section]
    # By ``to_plain``; said for the type checker.
    assert isinstance(table, dict)
    return table
