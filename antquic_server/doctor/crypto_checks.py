"""Which post-quantum provider will be used, and is it as fast as this CPU allows?"""

from antquic_server.doctor.case import Case, Check, Topic
from antquic_server.doctor.finding import Finding, fault, note, ok, warning
from antquic_server.doctor.remedies import setting, unit
from antquic_server.errors import CannotTellError

__all__ = ["CHECKS"]

OPTIMISED_SPEEDUP = 2.0
"""
Liboqs with AVX2 verifies 4.4 times as fast as ``cryptography``, which has portable code only; portable code of liboqs
cannot be far from that.
"""

_INSTALL = (
    "dnf install liboqs   # Fedora; Homebrew and MacPorts: liboqs",
    "make liboqs   # elsewhere; then set OQS_INSTALL_PATH to the directory it prints",
)

_RESTART = "systemctl restart antquic-server   # it looks for liboqs when it starts"


def liboqs(case: Case) -> Finding:
    """Ask the running node; load what the configuration asks for."""
    wanted, facts, used = case.settings.pqc.provider, case.machine.pqc(), case.pqc_provider()
    if wanted == "cryptography":
        there = f"liboqs {facts.version} is there and not used" if facts.version else "liboqs is not installed either"
        fixes = (setting("pqc.provider", '"auto"'),) if facts.version else _INSTALL
        return note(f"cryptography, as pqc.provider says; {there}", *fixes)
    if used == "liboqs":
        # What this command finds is a matter of its own environment, which need not be the node's.
        here = f"liboqs {facts.version} is" if facts.version else "no liboqs is"
        return ok(f"the running node uses liboqs; {here} found from here")
    if facts.version and used == "cryptography":
        directory = case.machine.environment.get("OQS_INSTALL_PATH")
        fixes = (_RESTART,) if directory is None else (unit(f"Environment=OQS_INSTALL_PATH={directory}"), _RESTART)
        found = f"the running node uses cryptography, although liboqs {facts.version} is found from here"
        return warning(found, *fixes)
    if facts.version:
        return ok(f"liboqs {facts.version} will be used")
    why = facts.missing.partition(": ")[0]
    if wanted == "liboqs":
        return fault(f"pqc.provider is liboqs, and {why}", *_INSTALL, setting("pqc.provider", '"auto"'))
    uses = "cryptography will be used" if used is None else "the running node uses cryptography"
    return warning(f"{uses}: {why}", *_INSTALL)


def liboqs_speed(case: Case) -> Finding:
    """Compare liboqs with portable code on the same CPU."""
    facts = case.machine.pqc()
    if not facts.version and case.pqc_provider() == "liboqs":
        fix = "OQS_INSTALL_PATH=DIRECTORY antquic-server doctor liboqs-speed   # that of the node's environment"
        return note("the running node's liboqs is not found from here, and so not measured", fix)
    if not facts.version:
        return note("there is no liboqs to measure")
    found = f"it verifies {facts.speedup:.1f} times as fast as cryptography"
    has_avx2 = _cpu_has_avx2(case)
    if facts.speedup >= OPTIMISED_SPEEDUP:
        return ok(f"{found}{', with AVX2' if has_avx2 and facts.sees_avx2 is not False else ''}")
    if has_avx2 is False:
        return note(f"{found}: this CPU has no AVX2")
    if has_avx2 is None:
        return note(f"{found}: it was built without code for this CPU, or has none")
    return warning(f"{found}, although the CPU has AVX2: it was built without", *_INSTALL)


def _cpu_has_avx2(case: Case) -> bool | None:
    """Whether the CPU has it; None for another architecture, or if the system does not say."""
    try:
        text = case.machine.read("/proc/cpuinfo")
    except CannotTellError:
        return None
    flags = [line.partition(":")[2].split() for line in text.splitlines() if line.startswith("flags")]
    return "avx2" in flags[0] if flags else None


CHECKS = (
    Check(
        name="liboqs",
        topic=Topic.CRYPTOGRAPHY,
        looks_at="pqc_provider in /status of the running node; pqc.provider, and whether liboqs 0.13 or newer can be "
        "loaded from here",
        why="it signs several times as fast as the cryptography package, which does the work where it is missing",
        effect="a post-quantum handshake takes 1.42 ms of server CPU with it, 2.40 ms without "
        "(antquic-server bench handshake)",
        examine=liboqs,
    ),
    Check(
        name="liboqs-speed",
        topic=Topic.CRYPTOGRAPHY,
        looks_at="liboqs against cryptography, by CPU time, and the CPU's flags: whether its AVX2 code runs",
        why="liboqs that was built without code for the CPU is hardly faster than what it replaces",
        effect="with AVX2 it verifies an ML-DSA-65 signature 4.4 times as fast as cryptography, which has none "
        "(antquic-server doctor liboqs-speed)",
        examine=liboqs_speed,
    ),
)
"""In the order in which they are shown."""
