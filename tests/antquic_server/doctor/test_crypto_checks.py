"""Planted: liboqs missing, unused, or built without AVX2."""

from dataclasses import replace
from pathlib import Path

import pytest

from antquic_server.config.model import PqcSettings, Settings
from antquic_server.doctor.case import Case
from antquic_server.doctor.finding import Verdict
from antquic_server.doctor.pqc_probe import PqcFacts
from support.planted_machine import HEALTHY_STATUS, findings, healthy_case, not_ok, planted

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


def _used(case: Case, provider: str) -> Case:
    """The same with a running node that says so."""
    return replace(case, status={**HEALTHY_STATUS, "node": {**HEALTHY_STATUS["node"], "pqc_provider": provider}})


@pytest.mark.parametrize("wanted", ["auto", "liboqs"])
def test_a_running_node_is_believed_that_it_uses_liboqs(tmp_path: Path, wanted: str) -> None:
    """Although the operator's shell, without the node's OQS_INSTALL_PATH, finds none."""
    case = _used(replace(healthy_case(tmp_path), settings=Settings(pqc=PqcSettings(provider=wanted))), "liboqs")
    assert findings(case)["liboqs"].found == "the running node uses liboqs; liboqs 0.14.0 is found from here"

    planted(case).pqc_facts = MISSING
    assert not_ok(case) == {"liboqs-speed": Verdict.NOTE}
    assert findings(case)["liboqs"].found == "the running node uses liboqs; no liboqs is found from here"
    speed = findings(case)["liboqs-speed"]
    assert speed.found == "the running node's liboqs is not found from here, and so not measured"
    assert speed.fixes[0].startswith("OQS_INSTALL_PATH=DIRECTORY antquic-server doctor liboqs-speed")


def test_a_running_node_that_does_not_use_liboqs_is_found(tmp_path: Path) -> None:
    """Not there, or not where the node looks for it; the shell's variable is what the unit lacks."""
    case = _used(healthy_case(tmp_path), "cryptography")
    restart = "systemctl restart antquic-server   # it looks for liboqs when it starts"
    assert not_ok(case) == {"liboqs": Verdict.WARNING}
    finding = findings(case)["liboqs"]
    assert finding.found == "the running node uses cryptography, although liboqs 0.14.0 is found from here"
    assert finding.fixes == (restart,)
    planted(case).environment = {"OQS_INSTALL_PATH": "/opt/oqs"}
    assert findings(case)["liboqs"].fixes == (
        "systemctl edit antquic-server   # [Service] Environment=OQS_INSTALL_PATH=/opt/oqs",
        restart,
    )

    planted(case).pqc_facts = MISSING
    assert findings(case)["liboqs"].found == "the running node uses cryptography: liboqs is not installed"


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
