"""``config``: checking a configuration, showing it, printing the reference."""

import json
import shutil
from pathlib import Path

import pytest

import antquic_server
from antquic_server import cli
from antquic_server.config.load import load_settings
from antquic_server.config.model import Settings, section_types, to_plain
from antquic_server.config.reference import render_table

PAGE = Path(antquic_server.__file__).parents[1] / "docs" / "configuration.md"


@pytest.fixture(autouse=True)
def _no_configuration_around(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the machine's own configuration out."""
    monkeypatch.delenv("ANTQUIC_CONFIG", raising=False)


def _file(tmp_path: Path, text: str) -> str:
    path = tmp_path / "node.toml"
    path.write_text(text)
    return str(path)


def test_check_of_a_good_file_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And exit code 0."""
    assert cli.main(["config", "check", "--config", _file(tmp_path, "[endpoint]\nworkers = 4\n")]) == 0
    assert capsys.readouterr() == ("configuration: fine\n", "")


def test_check_of_a_bad_file_names_the_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """File, key, value and what was expected, as `serve` would say it, and exit code 2."""
    path = _file(tmp_path, "[endpoint]\nworkers = 65\n")

    assert cli.main(["config", "check", "--config", path]) == 2
    expected = f"antquic-server: error: {path}: endpoint.workers = 65: expected an integer from 0 to 64\n"
    assert capsys.readouterr() == ("", expected)


def test_check_reads_the_file_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As `serve` does."""
    monkeypatch.setenv("ANTQUIC_CONFIG", _file(tmp_path, "[endpoint]\nworker = 4\n"))

    assert cli.main(["config", "check"]) == 2
    assert "did you mean endpoint.workers?" in capsys.readouterr().err


def test_show_prints_a_file_that_comes_to_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every key, --set included."""
    assert cli.main(["config", "show", "--set", "endpoint.workers=4"]) == 0
    shown = capsys.readouterr().out

    assert load_settings(Path(_file(tmp_path, shown))) == load_settings(None, overrides=["endpoint.workers=4"])


def test_show_as_json_has_every_key(capsys: pytest.CaptureFixture[str]) -> None:
    """In the plain form."""
    assert cli.main(["config", "show", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(to_plain(Settings())))


def test_reference_prints_every_table(capsys: pytest.CaptureFixture[str]) -> None:
    """Below the name of its section."""
    assert cli.main(["config", "reference"]) == 0
    text = capsys.readouterr().out

    for section in section_types():
        assert f"### `[{section}]`\n\n{render_table(section)}" in text


def test_reference_renews_a_page(tmp_path: Path) -> None:
    """In place."""
    page = tmp_path / "configuration.md"
    shutil.copy(PAGE, page)
    page.write_text(page.read_text().replace("| `workers` | `0` |", "| `workers` | `7` |"))

    assert cli.main(["config", "reference", "--write", str(page)]) == 0
    assert page.read_text() == PAGE.read_text()


def test_a_page_that_is_not_there_is_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With exit code 2."""
    page = tmp_path / "missing.md"

    assert cli.main(["config", "reference", "--write", str(page)]) == 2
    assert capsys.readouterr().err.startswith(f"antquic-server: error: command line: --write {page}: expected a page")


def test_an_unknown_action_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """With what there is."""
    assert cli.main(["config", "chekc"]) == 2
    assert "expected one of check, show, reference" in capsys.readouterr().err
