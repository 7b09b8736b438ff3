"""Loading and measuring the providers."""

import pytest

from antquic_server.doctor import pqc_probe
from antquic_server.doctor.pqc_probe import probe_pqc
from antquic_server.errors import ProviderUnavailableError
from support.pqc import load_or_skip


def test_liboqs_is_measured() -> None:
    """It is there, has a version, and can be compared."""
    load_or_skip("liboqs")
    facts = probe_pqc()

    assert facts.version.startswith("0.")
    assert facts.missing == ""
    assert facts.speedup > 0.5
    assert facts.sees_avx2 in (True, False, None)


def test_missing_liboqs_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the reason, and without measuring anything."""

    def missing() -> None:
        raise ProviderUnavailableError("liboqs is not installed: install it")

    monkeypatch.setattr(pqc_probe, "load_liboqs", missing)

    facts = probe_pqc()
    assert (facts.version, facts.missing) == ("", "liboqs is not installed: install it")
