"""The model: defaults, their documentation, and the plain form that workers receive."""

import json
import re
import tomllib
from dataclasses import FrozenInstanceError, fields, replace
from pathlib import Path
from typing import Any

import pytest

import antquic_server
from antquic_server.config.load import load_settings
from antquic_server.config.model import Settings, from_plain, rules_of, section_types, to_plain
from antquic_server.errors import ConfigurationError

DOCS = Path(antquic_server.__file__).parents[1] / "docs"
EXAMPLE = DOCS / "examples" / "antquic-server.toml"

KEYS = [(section, key) for section in section_types() for key in rules_of(section)]


def _plain_default(section: str, key: str) -> object:
    table = to_plain(Settings())[section]
    assert isinstance(table, dict)
    # None is how the model keeps an absent account; files write an empty string.
    return "" if table[key] is None else table[key]


@pytest.mark.parametrize(("section", "key"), KEYS)
def test_default_obeys_its_own_rule(section: str, key: str) -> None:
    """Every default is a value that a file could give, and is kept unchanged."""
    default = getattr(getattr(Settings(), section), key)

    assert rules_of(section)[key].accept("defaults", key, _plain_default(section, key)) == default


def test_every_section_is_found_with_every_key() -> None:
    """The loader sees exactly the fields of the classes."""
    assert list(section_types()) == [item.name for item in fields(Settings)]
    for name, section_type in section_types().items():
        assert list(rules_of(name)) == [item.name for item in fields(section_type)]


def test_sections_are_frozen() -> None:
    """Nobody changes a setting after it was checked."""
    with pytest.raises(FrozenInstanceError):
        Settings().endpoint.workers = 3  # type: ignore[misc]


def test_plain_form_survives_json() -> None:
    """The settings message carries everything, tuples and absent accounts included."""
    settings = load_settings(
        None,
        overrides=[
            "endpoint.workers=3",
            "endpoint.alpn=['h3']",
            "endpoint.user='nobody'",
            "relay.port_range=[2000, 3000]",
            "log.modules={net='debug'}",
        ],
    )

    assert from_plain(json.loads(json.dumps(to_plain(settings)))) == settings
    assert from_plain(to_plain(Settings())) == Settings()


@pytest.mark.parametrize(
    "damage",
    [
        lambda plain: plain.pop("mtu"),
        lambda plain: plain.update(extra={}),
        lambda plain: plain["mtu"].pop("min"),
        lambda plain: plain["mtu"].update(extra=1),
        lambda plain: plain["mtu"].update(min="1200"),
        lambda plain: plain.update(mtu=[1200]),
    ],
)
def test_foreign_plain_form_is_refused(damage: Any) -> None:
    """A settings message of another version is an error, not a half-filled model."""
    plain = to_plain(Settings())
    damage(plain)

    with pytest.raises(ConfigurationError, match="settings message"):
        from_plain(plain)


def test_plain_form_does_not_share_tables_with_the_settings() -> None:
    """Changing the plain form leaves the settings alone."""
    settings = replace(Settings(), log=replace(Settings().log, modules={"net": "debug"}))
    plain: dict[str, Any] = to_plain(settings)
    plain["log"]["modules"]["net"] = "info"

    assert settings.log.modules == {"net": "debug"}


def test_example_file_names_every_key_with_its_default() -> None:
    """The example is complete, in the order of the model, and changes nothing when used as it is."""
    tables = tomllib.loads(EXAMPLE.read_text())

    assert [(section, key) for section, table in tables.items() for key in table] == KEYS
    assert {name: dict(table) for name, table in tables.items()} == {
        section: {key: _plain_default(section, key) for key in rules_of(section)} for section in tables
    }
    assert load_settings(EXAMPLE) == Settings()


def test_example_file_explains_every_key() -> None:
    """In the example, every key stands below a comment, its own or that of the key above it."""
    above = ""
    for line in EXAMPLE.read_text().splitlines():
        if re.match(r"\w+ = ", line):
            assert above.startswith("#") or re.match(r"\w+ = ", above), line
        above = line


@pytest.mark.parametrize(("section", "key"), KEYS)
def test_documentation_has_default_and_limits_of_every_key(section: str, key: str) -> None:
    """docs/configuration.md has one row per key whose default and limits are those of the model."""
    text = (DOCS / "configuration.md").read_text()
    table = text.split(f"### `[{section}]`")[1].split("\n### ")[0]
    rows = [row.strip("|").split(" | ") for row in table.splitlines() if row.startswith(f"| `{key}` |")]

    assert len(rows) == 1
    _, default, accepted, meaning = (cell.strip() for cell in rows[0])
    assert tomllib.loads(f"value = {default.strip('`')}")["value"] == _plain_default(section, key)
    assert accepted == rules_of(section)[key].expected
    assert meaning.endswith((".", "*"))
