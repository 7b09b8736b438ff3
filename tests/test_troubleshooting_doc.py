"""docs/troubleshooting.md quotes what the program says, and explains each reason that it counts."""

import re
from pathlib import Path

import pytest
from aioquic.tls import AlertDescription

REPOSITORY = Path(__file__).resolve().parents[1]
PAGE = (REPOSITORY / "docs" / "troubleshooting.md").read_text()
SOURCE = "\n".join(
    path.read_text() for package in ("antquic_server", "workers") for path in (REPOSITORY / package).rglob("*.py")
)


def _rows(heading: str) -> list[list[str]]:
    head = f"| {heading} |"
    lines = PAGE[PAGE.index(head) :].partition("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


@pytest.mark.parametrize("quoted", [re.findall(r"`(.+?)`", row[0])[0] for row in _rows("the line says")])
def test_a_node_that_does_not_start_really_says_so(quoted: str) -> None:
    """Each quoted message stands in the program; "…" is what varies."""
    assert quoted.replace("…", "").strip() in SOURCE


def test_every_row_says_what_to_do() -> None:
    """None ends with a shrug."""
    for row in _rows("the line says") + _rows("reason") + _rows("seen"):
        assert len(row) == len([cell for cell in row if cell]) >= 3, row


@pytest.mark.parametrize(
    "word", [word for row in _rows("reason") for word in re.findall(r"`(\w+)`", row[0]) if word.startswith("alert_")]
)
def test_failure_reasons_are_alerts(word: str) -> None:
    """By TLS's names, as the metric has them."""
    assert word.removeprefix("alert_") in {alert.name for alert in AlertDescription}
