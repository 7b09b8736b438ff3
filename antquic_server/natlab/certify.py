"""Proof that the emulated NATs are what they are called: each is built and classified from inside."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from antquic_server.natlab.classifier import Classification, classify
from antquic_server.natlab.lab import Lab
from antquic_server.natlab.model import Nat, all_nats

__all__ = ["Certificate", "certificates_json", "certify", "render_certificates"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A NAT as it was built and as it was seen from inside; nothing was seen if no UDP came through."""

    built: Nat
    seen: Classification | None

    @property
    def is_true(self) -> bool:
        """Whether the NAT is what it is called."""
        return self.seen is not None and self.seen.agrees_with(self.built)


def certify() -> Iterator[Certificate]:
    """Build and classify every pair of mapping and filtering, with every way to pick ports, hairpin or none."""
    with Lab() as lab:
        for nat in all_nats():
            for hairpin in (False, True):
                built = replace(nat, hairpin=hairpin)
                lab.nat("A", built)
                yield Certificate(built=built, seen=classify(lab, "a", neighbour="a2"))


def render_certificates(certificates: Sequence[Certificate]) -> str:
    """Return a line for each NAT, and a count below."""
    lines = [f"{'built':<30}{'seen from inside':<30}"]
    for certificate in certificates:
        seen = _text(certificate.seen, certificate.seen.hairpin if certificate.seen else None)
        built = _text(certificate.built, certificate.built.hairpin)
        lines.append(f"{built:<30}{seen:<30}{'ok' if certificate.is_true else 'WRONG'}")
    wrong = sum(not certificate.is_true for certificate in certificates)
    lines += ["", f"{len(certificates)} NATs, " + (f"{wrong} of them wrong" if wrong else "all as built")]
    return "\n".join(lines)


def certificates_json(certificates: Sequence[Certificate]) -> str:
    """Return the same as one JSON object."""
    rows = [
        {
            "built": str(certificate.built),
            "hairpin": certificate.built.hairpin,
            "seen": None if certificate.seen is None else str(certificate.seen),
            "seen_hairpin": None if certificate.seen is None else certificate.seen.hairpin,
            "ok": certificate.is_true,
        }
        for certificate in certificates
    ]
    return json.dumps({"nats": rows}, indent=2)


def _text(described: Nat | Classification | None, hairpin: bool | None) -> str:
    if described is None:
        return "no UDP"
    return f"{described} hairpin" if hairpin else str(described)
