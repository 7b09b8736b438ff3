"""
The settings tables of ``docs/tuning.md``, made from the settings files.

Run as a program in the checkout it writes them into the page: ``python tests/support/tuning_tables.py``.
"""

import re
import sys
from collections.abc import Mapping
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = REPOSITORY / "docs" / "tuning.md"

if __name__ == "__main__":
    sys.path.insert(0, str(REPOSITORY))

from antquic_server.tuning.catalogue import Setting, Topic, load_topic, load_topics  # noqa: E402
from antquic_server.tuning.rules import RuleKind  # noqa: E402

__all__ = ["PAGE", "render_table", "tables", "with_tables"]

_BLOCK = re.compile(r"(<!-- settings: ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def tables() -> Mapping[str, str]:
    """Return the table of every topic by the name that marks its place: the Linux topics, macos, windows."""
    tuning = REPOSITORY / "tuning"
    found = {topic.name: render_table(topic) for topic in load_topics(tuning / "linux")}
    for platform in ("macos", "windows"):
        found[platform] = render_table(load_topic(tuning / platform / "settings.conf"))
    return found


def with_tables(text: str) -> str:
    """Return a page with the right table between each pair of marks."""
    known = tables()
    return _BLOCK.sub(lambda match: f"{match[1]}{known[match[2]]}{match[3]}", text)


def render_table(topic: Topic) -> str:
    """Return what a topic is about and its table in Markdown."""
    head = "| setting | value | stock | why | effect | undo | kernels |\n|---|---|---|---|---|---|---|\n"
    return f"{topic.about}\n\n{head}" + "".join(map(_row, topic.settings))


def _row(setting: Setting) -> str:
    rule = setting.rule
    kind = f"{rule.low} to {rule.high}, else" if rule.kind is RuleKind.RANGE else str(rule.kind)
    value = f"{kind} `{setting.value}` ({setting.unit})"
    undo = f"`{setting.undo}`" if setting.undo.startswith("sysctl") else setting.undo
    cells = (f"`{setting.key}`", value, setting.stock, setting.why, setting.effect, undo, setting.kernels)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text()))
