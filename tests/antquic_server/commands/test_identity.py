"""``identity``: making and showing the node key."""

import json
import stat
from pathlib import Path

import pytest

from antquic_server import cli
from antquic_server.commands.identity import expand_path, key_path
from antquic_server.identity import default_identity_path


@pytest.fixture(autouse=True)
def _no_configuration_around(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the machine's own configuration out."""
    monkeypatch.delenv("ANTQUIC_CONFIG", raising=False)


def test_new_key_is_shown_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``new`` makes a private file, and ``show`` prints the same peer id."""
    path = tmp_path / "node.pem"

    assert cli.main(["identity", "new", "--file", str(path)]) == 0
    made = capsys.readouterr().out
    assert cli.main(["identity", "show", "--file", str(path)]) == 0
    assert capsys.readouterr().out == made
    first, second = made.splitlines()
    assert first.startswith("peer id  ")
    assert len(first.split()[-1]) == 64
    assert second == f"file     {path}"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_json_form_has_the_same_facts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--json prints one object."""
    path = tmp_path / "node.pem"
    cli.main(["identity", "new", "--file", str(path), "--json"])

    facts = json.loads(capsys.readouterr().out)
    assert facts["file"] == str(path)
    assert len(bytes.fromhex(facts["peer_id"])) == 32


def test_existing_key_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A second ``new`` fails with one line and leaves the key as it was."""
    path = tmp_path / "node.pem"
    cli.main(["identity", "new", "--file", str(path)])
    before = path.read_bytes()
    capsys.readouterr()

    assert cli.main(["identity", "new", "--file", str(path)]) == 3
    printed = capsys.readouterr()
    assert printed.err.startswith(f"antquic-server: error: {path}")
    assert printed.err.count("\n") == 1
    assert printed.out == ""
    assert path.read_bytes() == before


def test_replaced_key_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--replace makes a new key and keeps the old one beside it."""
    path = tmp_path / "node.pem"
    cli.main(["identity", "new", "--file", str(path)])
    before = path.read_bytes()

    assert cli.main(["identity", "new", "--replace", "--file", str(path)]) == 0
    assert path.read_bytes() != before
    assert [kept.read_bytes() for kept in tmp_path.glob("node.pem.bak-*")] == [before]


def test_missing_key_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``show`` makes nothing, and says which file is missing."""
    path = tmp_path / "node.pem"

    assert cli.main(["identity", "show", "--file", str(path)]) == 3
    printed = capsys.readouterr()
    assert str(path) in printed.err
    assert printed.err.count("\n") == 1
    assert not path.exists()


def test_configured_key_is_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without --file, the key is the one that the node of this configuration would use."""
    path = tmp_path / "configured.pem"
    (tmp_path / "node.toml").write_text(f'[identity]\nfile = "{path}"\n')
    monkeypatch.setenv("ANTQUIC_CONFIG", str(tmp_path / "node.toml"))

    assert cli.main(["identity", "new"]) == 0
    assert path.exists()


def test_path_defaults_and_expands(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty setting is the default place; ``~`` is the home directory; an unknown home stays as written."""
    monkeypatch.setenv("HOME", "/home/somebody")

    assert key_path("") == default_identity_path()
    assert key_path("~/node.pem") == Path("/home/somebody/node.pem")
    assert expand_path("~nobody-of-that-name/node.pem") == Path("~nobody-of-that-name/node.pem")
