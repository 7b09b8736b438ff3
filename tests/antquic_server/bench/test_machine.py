"""Where figures come from."""

import os

import pytest

from antquic_server.bench import machine as machine_module
from antquic_server.bench.machine import load_average, machine, versions
from antquic_server.errors import ProviderUnavailableError


def test_machine_names_what_figures_depend_on() -> None:
    """Processor, core count, kernel and interpreter."""
    found = machine()

    assert set(found) == {"cpu", "cpus", "kernel", "python"}
    assert all(found.values())


def test_versions_are_those_of_what_is_measured() -> None:
    """Of what is installed here; the libraries below count as much as the packages."""
    found = versions()

    assert found["aioquic"] == "1.7.2"
    assert str(found["openssl"]).startswith("OpenSSL ")
    assert all(found[name] for name in ("antquic-server", "cryptography", "uvloop"))
    assert "liboqs" in found


def test_what_is_missing_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures without liboqs are others, and must not look alike."""

    def load() -> None:
        raise ProviderUnavailableError("not here")

    monkeypatch.setattr(machine_module, "load_liboqs", load)
    monkeypatch.setattr(machine_module, "_PACKAGES", ("no-such-package",))

    assert versions()["liboqs"] is None
    assert versions()["no-such-package"] is None


def test_load_average_may_be_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three figures, or none."""
    assert len(load_average()) == 3

    def unknown() -> None:
        raise OSError("unobtainable")

    monkeypatch.setattr(os, "getloadavg", unknown)
    assert load_average() == []
