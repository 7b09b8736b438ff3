"""Where the files are, beside a checkout and after every way to install."""

import sys
from pathlib import Path

import pytest

import antquic_server
from antquic_server.tuning.catalogue import CatalogueError
from antquic_server.tuning.places import tuning_directory

SHARE = "share/antquic-server/tuning"


def test_a_checkout_has_them_beside_the_package() -> None:
    """So that an editable installation uses the files that are edited."""
    assert tuning_directory() == Path(antquic_server.__file__).resolve().parents[1] / "tuning"


@pytest.mark.parametrize(
    ("package", "data"),
    [
        ("venv/lib/python3.11/site-packages", f"venv/{SHARE}"),
        ("target", f"target/{SHARE}"),
        ("home/.local/lib/python3.11/site-packages", f"home/.local/{SHARE}"),
        ("usr/local/lib/python3.11/dist-packages", f"usr/local/{SHARE}"),
        ("usr/lib64/python3.11/site-packages", f"usr/{SHARE}"),
    ],
)
def test_an_installation_has_them_under_its_prefix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, data: str
) -> None:
    """A foreign package that is called tuning beside ours is not taken for them."""
    module = tmp_path / package / "antquic_server" / "__init__.py"
    (tmp_path / package / "tuning").mkdir(parents=True)
    (tmp_path / data / "linux").mkdir(parents=True)
    (tmp_path / data / "linux" / "buffers.conf").touch()
    monkeypatch.setattr(antquic_server, "__file__", str(module))
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "venv"))

    assert tuning_directory() == tmp_path / data


def test_without_them_the_places_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever packages this sees where they belong."""
    monkeypatch.setattr(antquic_server, "__file__", str(tmp_path / "a" / "antquic_server" / "__init__.py"))
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "b"))

    with pytest.raises(CatalogueError, match=f"expected in {tmp_path}/a/tuning or {tmp_path}/b/{SHARE}"):
        tuning_directory()
