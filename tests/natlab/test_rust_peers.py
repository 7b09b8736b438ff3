"""Real ant-quic peers behind NATs find each other through a coordinator that both know."""

import pytest

from antquic_server.errors import CannotBootError
from antquic_server.natlab.lab import Lab
from antquic_server.natlab.matrix import Cell
from antquic_server.natlab.model import KINDS
from antquic_server.natlab.rust_trial import Coordinator, RustTrial, default_program
from support.require import require

pytestmark = [pytest.mark.end_to_end, pytest.mark.peers]

COORDINATORS = [Coordinator.OURS, Coordinator.ANT_QUIC]

ATTEMPTS = 3
"""Of fifty meetings with their own coordinator one or two fail inside the peers (0.27.44): both dials succeed and each
side keeps the connection the other gave up, or the target never dials."""


@pytest.fixture
def rust_trial(request: pytest.FixtureRequest) -> RustTrial:
    """Return the trial with the coordinator that is the fixture's parameter."""
    try:
        return RustTrial(program=default_program(), coordinator=request.param)
    except CannotBootError as error:
        require(False, str(error))
        raise


@pytest.mark.parametrize("rust_trial", COORDINATORS, ids=str, indirect=True)
@pytest.mark.parametrize("initiator", ["a", "b"])
@pytest.mark.parametrize(
    ("kind_a", "kind_b"),
    [("port-restricted", "port-restricted"), ("symmetric", "full-cone"), ("cgnat", "address-restricted")],
)
@pytest.mark.usefixtures("_lab_is_possible")
def test_peers_meet_directly(rust_trial: RustTrial, kind_a: str, kind_b: str, initiator: str) -> None:
    """Where theory allows a direct path there is one, and bytes come over it."""
    cell = Cell(kind_a=KINDS[kind_a], kind_b=KINDS[kind_b], initiator=initiator)
    results = []
    for _ in range(ATTEMPTS):
        with Lab() as lab:
            lab.kind("A", cell.kind_a)
            lab.kind("B", cell.kind_b)
            results.append(rust_trial(lab, cell))
        if results[-1].is_direct_path:
            break

    assert results[-1].is_direct_path, results
