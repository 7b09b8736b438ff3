"""``docs/tuning.md``: tables as the settings files have them, figures as they are measured, names that exist."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from antquic_server import cli
from antquic_server.config.load import load_settings
from antquic_server.stats.counters import METRICS
from support.tuning_tables import PAGE, REPOSITORY, tables, with_tables

TEXT = PAGE.read_text()


def table_after(heading: str) -> list[list[str]]:
    """Return the cells of the first table below a heading, its head included."""
    below = TEXT[TEXT.index(f"\n{heading}\n") :]
    lines = below[below.index("\n|") + 1 :].partition("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_settings_tables_are_those_of_the_settings_files() -> None:
    """Every topic and platform has its place; run tests/support/tuning_tables.py after a change."""
    marks = re.findall(r"<!-- settings: ([a-z-]+) -->", TEXT)

    assert sorted(marks) == sorted(tables())
    assert with_tables(TEXT) == TEXT, "python tests/support/tuning_tables.py writes the tables anew"


def rows_of_sizes(value: object) -> Iterator[dict[str, Any]]:
    """Find the rows that count bytes, wherever the benchmark's JSON has them."""
    if isinstance(value, dict) and "total B" in value:
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from rows_of_sizes(inner)


def test_the_sizes_of_handshakes_are_those_of_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    """Byte for byte: they do not vary from run to run."""
    words = ["bench", "handshake", "--json", "--option", "rounds=1", "--option", "live_s=0"]
    assert cli.main(words) == 0
    found = rows_of_sizes(json.loads(capsys.readouterr().out))
    rows = {str(row["handshake"]).split(" (")[0]: row for row in found}
    client_hello, flight, whole, ratio = table_after("### Size")[2:]

    for column, kind in ((3, "classical"), (4, "hybrid"), (5, "pure")):
        assert client_hello[column] == f"{rows[kind]['ClientHello B']:,}"
        assert flight[column] == f"{rows[kind]['server flight B']:,}"
        assert whole[column] == f"{rows[kind]['total B']:,}"
        assert float(ratio[column]) == pytest.approx(rows[kind]["x bytes"], abs=0.01)


def test_every_metric_that_is_named_exists() -> None:
    """Under the name that /metrics gives it."""
    named = {name.removesuffix("_total") for name in re.findall(r"`antquic_([a-z_]+)[`{]", TEXT)}

    assert named
    assert named <= set(METRICS)


def test_every_setting_that_is_named_exists() -> None:
    """With its section."""
    settings = load_settings(None, environment={})
    named = re.findall(r"`(endpoint|pqc|nat|mtu|relay|limits|log|admin)\.([a-z_]+)`", TEXT)

    assert len(named) > 10
    for section, key in named:
        assert hasattr(getattr(settings, section), key), f"{section}.{key}"


def test_the_defaults_that_are_named_are_the_defaults() -> None:
    """In the tables with a column for the guide and one for ours."""
    settings = load_settings(None, environment={})
    for heading, section, expected in (
        ("## NAT traversal", "nat", {"max_candidates": "10", "hole_punch_retries": "3"}),
        ("## Datagram sizes (MTU)", "mtu", {"initial": "1200", "min": "1200", "max": "1452"}),
    ):
        rows = {row[0].strip("`").partition(".")[2]: row[2] for row in reversed(table_after(heading)[2:])}
        for key, shown in expected.items():
            assert rows[key] == shown
            assert str(getattr(getattr(settings, section), key)) == shown


def test_the_files_that_are_named_exist() -> None:
    """In the checkout."""
    named = set(re.findall(r"(?<![\w-])((?:tuning|tests)/[\w/.-]+\.\w+)", TEXT))

    assert {"tuning/linux/queues.sh", "tuning/linux/notrack.nft", "tuning/macos/tune.sh"} <= named
    for name in named:
        assert (REPOSITORY / name).is_file(), name


def test_the_checks_that_are_named_exist() -> None:
    """Each in the last column of the best practices, or between two of them, is one of the doctor's."""
    named = {name for row in table_after("## Best practices")[2:] for name in re.findall(r"`([a-z0-9-]+)`", row[2])}
    checks = set()
    for path in (REPOSITORY / "antquic_server" / "doctor").glob("*_checks.py"):
        checks |= set(re.findall(r"^\s+name=\"([a-z0-9-]+)\"", path.read_text(), re.MULTILINE))

    assert len(named) > 25
    assert named <= checks


def test_the_page_of_the_folder_lists_every_file() -> None:
    """tuning/README.md is what an operator sees first there."""
    readme = (REPOSITORY / "tuning" / "README.md").read_text()
    files = [path for path in (REPOSITORY / "tuning").rglob("*") if path.is_file() and path.name != "README.md"]

    assert len(files) > 10
    for path in files:
        assert f"`{Path(path).relative_to(REPOSITORY / 'tuning')}`" in readme, path
