"""Where figures come from: the machine, its load, and the versions of what is measured."""

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Final

from cryptography.hazmat.backends.openssl import backend

from antquic_server import __version__
from antquic_server.errors import ProviderUnavailableError
from antquic_server.pqc.liboqs_library import load_liboqs, version_of

__all__ = ["load_average", "machine", "versions"]

_PACKAGES: Final = ("aioquic", "cryptography", "liboqs-python", "uvloop")


def machine() -> dict[str, object]:
    """Describe the machine: CPU model, CPUs that this process may use, kernel and interpreter."""
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass  # not Linux, or a processor without a name
    return {
        "cpu": model,
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def versions() -> dict[str, str | None]:
    """Return the versions of what the figures depend on, None for what is not installed."""
    found: dict[str, str | None] = {"antquic-server": __version__, "openssl": backend.openssl_version_text()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    found["liboqs"] = _liboqs_version()
    return found


def load_average() -> list[float]:
    """Return the load averages of the last 1, 5 and 15 minutes; empty where the system has none."""
    try:
        return list(os.getloadavg())
    except OSError:
        return []


def _liboqs_version() -> str | None:
    try:
        return version_of(load_liboqs())
    except ProviderUnavailableError:
        return None
