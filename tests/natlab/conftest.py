"""A lab for the tests of this directory; they are skipped where there can be none."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from antquic_server.natlab.lab import Lab
from antquic_server.natlab.namespaces import LabUnavailableError, find_tools
from support.behind_nats import Meet
from support.require import require


@pytest.fixture(scope="session")
def _lab_is_possible() -> None:
    """Skip with the reason when rights or programs are missing; in CI that is a failure."""
    try:
        find_tools()
    except LabUnavailableError as error:
        require(False, str(error))


@pytest.fixture
def lab(_lab_is_possible: None) -> Iterator[Lab]:
    """Return a fresh lab of the test's own: setting one up takes a tenth of a second."""
    with Lab() as lab:
        yield lab


@pytest.fixture
def lab_v6(_lab_is_possible: None) -> Iterator[Lab]:
    """Return a fresh lab with IPv6."""
    with Lab(ipv6=True) as lab:
        yield lab


@pytest.fixture
def meet(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Meet:
    """Return what runs a story with a peer behind each of two NATs and a node with two addresses."""
    return Meet(lab, tmp_path, monkeypatch)
