"""Fixes are lines to copy."""

import shlex
from pathlib import Path

import pytest

from antquic_server.doctor import remedies
from antquic_server.doctor.remedies import setting, tuning_file, unit
from antquic_server.tuning.catalogue import CatalogueError


@pytest.mark.parametrize("value", ["4", '"auto"', '["0.0.0.0:10000", "[::]:10000"]', "{net = 1}"])
def test_a_setting_survives_the_shell(value: str) -> None:
    """As one word, whatever TOML needs."""
    assert shlex.split(setting("a.b", value)) == ["antquic-server", "serve", "--set", f"a.b={value}"]


def test_a_line_of_the_unit_names_its_section() -> None:
    """For the editor that the command opens."""
    assert unit("LimitNOFILE=5") == "systemctl edit antquic-server   # [Service] LimitNOFILE=5"
    assert unit("A=1", "B=2", "C=3").endswith("# [Service] A=1 and B=2 and C=3")


def test_a_tuning_file_is_named_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the directory of the shell is; None where an installation has lost them."""
    (named,) = shlex.split(tuning_file("linux/queues.sh") or "")
    assert Path(named).is_absolute()
    assert Path(named).is_file()

    monkeypatch.setattr(remedies, "tuning_directory", lambda: Path("/a directory/tuning"))
    assert shlex.split(tuning_file("linux/x") or "") == ["/a directory/tuning/linux/x"]

    def missing() -> Path:
        raise CatalogueError("the tuning files are missing")

    monkeypatch.setattr(remedies, "tuning_directory", missing)
    assert tuning_file("linux/x") is None
