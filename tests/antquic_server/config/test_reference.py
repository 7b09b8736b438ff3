"""The configuration reference, made from the model."""

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import antquic_server
from antquic_server.config.load import load_settings
from antquic_server.config.model import Settings, section_types, to_plain
from antquic_server.config.reference import render_table, render_toml, render_value, replace_tables

PAGE = Path(antquic_server.__file__).parents[1] / "docs" / "configuration.md"


def test_the_page_has_the_tables_of_the_model() -> None:
    """docs/configuration.md is up to date; `make docs` renews it."""
    page = PAGE.read_text()

    assert replace_tables(page) == page
    for section in section_types():
        assert render_table(section) in page, section


def test_an_outdated_table_is_replaced_and_the_prose_kept() -> None:
    """Whatever stands in the table below a section's heading goes, nothing else does."""
    page = PAGE.read_text()
    old = page.replace(render_table("mtu"), "| key | default |\n|---|---|\n| `gone` | `1` |\n")
    assert old != page

    assert replace_tables(old) == page


def test_a_table_has_a_row_for_each_key() -> None:
    """With the default as TOML, what the rule accepts, and the meaning."""
    head, line, *rows = render_table("mtu").splitlines()

    assert head == "| key | default | accepts | meaning |"
    assert line == "|---|---|---|---|"
    assert [row.split(" | ")[:3] for row in rows] == [
        ["| `initial`", "`1200`", "an integer from 1200 to 65527"],
        ["| `min`", "`1200`", "an integer from 1200 to 65527"],
        ["| `max`", "`1452`", "an integer from 1200 to 65527"],
    ]


def test_an_unknown_section_is_a_mistake_of_the_caller() -> None:
    """There is no table for it."""
    with pytest.raises(KeyError):
        render_table("nowhere")


PLAIN = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(PLAIN)
def test_a_value_is_toml(value: object) -> None:
    """Whatever is written is read back as it was, quotes, line breaks and control characters included."""
    assert tomllib.loads(f"value = {render_value(value)}")["value"] == value


def test_an_absent_value_is_an_empty_string() -> None:
    """As files write it."""
    assert render_value(None) == '""'


def test_settings_survive_the_file_that_shows_them(tmp_path: Path) -> None:
    """What `config show` prints is a configuration that comes to the same."""
    settings = load_settings(
        None,
        overrides=[
            "endpoint.workers=3",
            "log.modules={net='debug'}",
            "relay.port_range=[50000, 50999]",
            "mtu.max=1280",
        ],
    )
    path = tmp_path / "node.toml"
    path.write_text(render_toml(settings))

    assert load_settings(path) == settings
    assert to_plain(settings) != to_plain(Settings())


def test_what_differs_from_its_default_says_so() -> None:
    """And nothing else does."""
    lines = render_toml(load_settings(None, overrides=["endpoint.workers=3"])).splitlines()

    assert [line for line in lines if "#" in line] == ["workers = 3  # default: 0"]
