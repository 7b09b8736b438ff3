"""The certificate of the emulated NATs as text and JSON."""

import json
from collections.abc import Iterator
from typing import Self

import pytest

from antquic_server.natlab import certify as module
from antquic_server.natlab.certify import Certificate, certificates_json, certify, render_certificates
from antquic_server.natlab.classifier import Classification
from antquic_server.natlab.model import Nat, Ports, all_nats


def seen(nat: Nat) -> Classification:
    """Return what a classifier should see of ``nat``."""
    return Classification(mapping=nat.mapping, filtering=nat.filtering, ports=nat.ports, hairpin=nat.hairpin)


@pytest.fixture
def _fake_lab(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A lab that only remembers its NAT, and a classifier that reads it."""

    class FakeLab:
        current = Nat()

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            return None

        def nat(self, router: str, nat: Nat) -> None:
            self.current = nat

    monkeypatch.setattr(module, "Lab", FakeLab)
    monkeypatch.setattr(module, "classify", lambda lab, host, *, neighbour: seen(lab.current))
    return iter(())


@pytest.mark.usefixtures("_fake_lab")
def test_every_nat_is_certified_with_and_without_hairpin() -> None:
    """None is left out."""
    certificates = list(certify())

    assert len(certificates) == 2 * len(all_nats())
    assert {certificate.built for certificate in certificates if not certificate.built.hairpin} == set(all_nats())
    assert all(certificate.is_true for certificate in certificates)


def test_a_false_nat_stands_out() -> None:
    """What is not what it is called is marked, counted, and false in JSON; so is one that lets nothing through."""
    good, nat = Nat(hairpin=True), Nat(ports=Ports.SEQUENTIAL)
    certificates = [
        Certificate(built=good, seen=seen(good)),
        Certificate(built=nat, seen=seen(Nat())),
        Certificate(built=nat, seen=None),
    ]

    assert [line.split() for line in render_certificates(certificates).splitlines()[1:]] == [
        ["eim/apdf", "random", "hairpin", "eim/apdf", "random", "hairpin", "ok"],
        ["eim/apdf", "sequential", "eim/apdf", "random", "WRONG"],
        ["eim/apdf", "sequential", "no", "UDP", "WRONG"],
        [],
        ["3", "NATs,", "2", "of", "them", "wrong"],
    ]
    assert [row["ok"] for row in json.loads(certificates_json(certificates))["nats"]] == [True, False, False]
