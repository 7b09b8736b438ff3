"""Planted: liboqs missing, unused, or built without AVX2."""

from dataclasses import replace
from pathlib import Path

import pytest

from antquic_server.config.model import PqcSettings, Settings
from antquic_server.doctor.finding import Verdict
from antquic_server.doctor.pqc_probe import PqcFacts
from support.planted_machine import findings, healthy_case, planted

MISSING = PqcFacts(missing="liboqs is not installed: install liboqs (…)")
SLOW = PqcFacts(version="0.14.0", speedup=1.2, sees_avx2=True)


@pytest.mark.parametrize(
    ("provider", "verdict"), [("auto", Verdict.WARNING), ("liboqs", Verdict.FAULT), ("cryptography", Verdict.NOTE)]
)
def test_missing_liboqs_is_found(tmp_path: Path, provider: str, verdict: Verdict) -> None:
    """A fault only where it was asked for: the node does not start then."""
    case = replace(healthy_case(tmp_path), settings=Settings(pqc=PqcSettings(provider=provider)))
    planted(case).pqc_facts = MISSING

    finding = findings(case)["liboqs"]
    assert finding.verdict is verdict
    assert any("make liboqs" in fix for fix in finding.fixes)
    assert "liboqs is not installed" in finding.found


def test_liboqs_that_is_not_used_is_told(tmp_path: Path) -> None:
    """With the setting that uses it."""
    case = replace(healthy_case(tmp_path), settings=Settings(pqc=PqcSettings(provider="cryptography")))

    finding = findings(case)["liboqs"]
    assert finding.verdict is Verdict.NOTE
    assert finding.fixes == ("antquic-server serve --set 'pqc.provider=\"auto\"'",)


@pytest.mark.parametrize(
    ("cpuinfo", "verdict"),
    [
        ("flags : sse2 avx avx2\n", Verdict.WARNING),
        ("flags : sse2\n", Verdict.NOTE),
        ("Features : asimd\n", Verdict.NOTE),
    ],
)
def test_liboqs_without_fast_code_is_found(tmp_path: Path, cpuinfo: str, verdict: Verdict) -> None:
    """Where the CPU could do better."""
    case = healthy_case(tmp_path)
    planted(case).pqc_facts = SLOW
    planted(case).plant("/proc/cpuinfo", cpuinfo)

    assert findings(case)["liboqs-speed"].verdict is verdict
    assert "1.2 times as fast" in findings(case)["liboqs-speed"].found


def test_fast_liboqs_names_its_code(tmp_path: Path) -> None:
    """As far as it is known."""
    case = healthy_case(tmp_path)
    assert findings(case)["liboqs-speed"].found == "it verifies 4.4 times as fast as cryptography, with AVX2"

    planted(case).remove("/proc/cpuinfo")
    assert findings(case)["liboqs-speed"].found == "it verifies 4.4 times as fast as cryptography"
