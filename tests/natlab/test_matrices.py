"""
Every pair of NATs with real programs: two of our peers, two ant-quic, one of each; our node the only one they know.

``antquic-server natlab run`` has all cells of all three. Here are all of our own peers', and of the others' one or more
of each kind that theory tells apart, in both roles.
"""

from collections import Counter
from collections.abc import Sequence

import pytest

from antquic_server import cli
from antquic_server.errors import CannotBootError
from antquic_server.natlab.expectation import Expected
from antquic_server.natlab.matrix import Cell, CellResult, Outcome, Verdict, all_cells, render_matrix, run_matrix
from antquic_server.natlab.meeting import Coordinator, MeetingTrial
from antquic_server.natlab.model import CONES_AND_SYMMETRIC, KINDS, PREDICTABLE
from antquic_server.natlab.programs import AntQuic, Library, PeerProgram, default_program
from antquic_server.peer.settings import PeerSettings
from support.require import require

pytestmark = [pytest.mark.end_to_end, pytest.mark.usefixtures("_lab_is_possible")]

AT_ONCE = 5
ATTEMPTS_WITH_ANT_QUIC = 3
"""Of fifty meetings one or two fail inside ant-quic 0.27.44, with its own coordinator as well: both dials succeed and
each side keeps the connection the other gave up, or the target never dials."""

OUR_ATTEMPTS, MOST_REPEATED = 2, 2
"""Our own peers fail nowhere by themselves; a machine that is busy for seconds may cost one of fifty its time."""

GRACE_S = 3.0

RUST_PAIRS = (
    ("full-cone", "full-cone"),
    ("full-cone", "symmetric"),
    ("address-restricted", "address-restricted"),
    ("address-restricted", "symmetric"),
    ("port-restricted", "full-cone"),
    ("port-restricted", "address-restricted"),
    ("port-restricted", "port-restricted"),
    ("port-restricted", "symmetric"),
    ("cgnat", "address-restricted"),
)
MIXED_PAIRS = (
    ("full-cone", "symmetric"),
    ("symmetric", "full-cone"),
    ("address-restricted", "symmetric"),
    ("symmetric", "address-restricted"),
    ("port-restricted", "address-restricted"),
    ("port-restricted", "port-restricted"),
    ("symmetric", "port-restricted"),
)
"""The first of each is ant-quic's."""


@pytest.fixture(scope="session")
def ant_quic() -> AntQuic:
    """Return the real program."""
    try:
        return AntQuic(program=default_program())
    except CannotBootError as error:
        require(False, str(error))
        raise


def cells_of(pairs: Sequence[tuple[str, str]]) -> list[Cell]:
    """Return both meetings of each pair."""
    return [Cell(kind_a=KINDS[a], kind_b=KINDS[b], initiator=who) for a, b in pairs for who in ("a", "b")]


def hold(cells: Sequence[Cell], trial: MeetingTrial, *, attempts: int) -> list[CellResult]:
    """Run the cells and check that each is what theory says; what is impossible failed for a reason."""
    results = list(
        run_matrix(
            cells,
            trial,
            prediction=trial.prediction,
            relaying=trial.relaying,
            attempts=attempts,
            at_once=AT_ONCE,
        )
    )

    table = render_matrix(results)
    assert [found.cell for found in results] == list(cells)
    assert all(found.verdict is not Verdict.WORSE for found in results), table
    for found in results:
        if found.expected is Expected.DIRECT:
            # A peer that was introduced by a node has punched, and eight bytes at least came each way.
            assert found.result.outcome in (Outcome.PUNCHED, Outcome.DIRECT), table
            assert found.result.delivered_bytes >= 16, table
        elif found.result.outcome is Outcome.FAILED or trial.relaying:
            assert found.result.reason or found.result.is_direct_path, table
    return results


@pytest.mark.slow
def test_our_peers() -> None:
    """Five NATs against five, each side asking: all connect, directly wherever theory says, else through the node."""
    cells = all_cells([KINDS[name] for name in (*CONES_AND_SYMMETRIC, PREDICTABLE)])

    results = hold(cells, MeetingTrial(a=Library(), b=Library()), attempts=OUR_ATTEMPTS)

    outcomes = Counter(found.result.outcome for found in results)
    assert outcomes == {Outcome.PUNCHED: 40, Outcome.RELAYED: 10}
    assert all(found.result.delivered_bytes >= 16 for found in results)
    repeated = [str(found.cell) for found in results if found.attempts > 1]
    assert len(repeated) <= MOST_REPEATED, repeated


@pytest.mark.slow
def test_our_peers_where_udp_between_them_is_blocked() -> None:
    """Whatever their NATs: each still reaches the node, which carries everything."""
    names = (*CONES_AND_SYMMETRIC, "cgnat-symmetric")
    cells = cells_of([("udp-hostile", name) for name in names])

    results = hold(cells, MeetingTrial(a=Library(), b=Library()), attempts=OUR_ATTEMPTS)

    assert {found.result.outcome for found in results} == {Outcome.RELAYED}
    assert all(found.result.delivered_bytes >= 16 for found in results)


@pytest.mark.slow
def test_our_peers_without_a_relay() -> None:
    """Behind NATs that cannot be punched they are told why, in the time there is."""
    library = Library(relays=False)
    cells = cells_of([("port-restricted", "symmetric"), ("symmetric", "symmetric")])

    results = hold(cells, MeetingTrial(a=library, b=library), attempts=1)

    assert {found.result.outcome for found in results} == {Outcome.FAILED}
    for found in results:
        assert found.result.reason.startswith("no_path: "), found
        assert found.result.seconds < PeerSettings().discovery_timeout_s + GRACE_S, found


@pytest.mark.slow
@pytest.mark.peers
def test_real_peers(ant_quic: AntQuic) -> None:
    """Each pair that theory tells apart; behind two NATs that cannot be punched ant-quic says so itself."""
    results = hold(cells_of(RUST_PAIRS), MeetingTrial(a=ant_quic, b=ant_quic), attempts=ATTEMPTS_WITH_ANT_QUIC)

    impossible = [found.result for found in results if found.expected is Expected.NO_DIRECT]
    assert len(impossible) == 2
    assert all("Path validation timeout" in result.reason for result in impossible), impossible


@pytest.mark.slow
@pytest.mark.peers
def test_one_real_peer_and_one_of_ours(ant_quic: AntQuic) -> None:
    """Each behind either NAT, either one asking."""
    hold(cells_of(MIXED_PAIRS), MeetingTrial(a=ant_quic, b=Library()), attempts=ATTEMPTS_WITH_ANT_QUIC)


@pytest.mark.slow
@pytest.mark.peers
@pytest.mark.parametrize("ours", [True, False], ids=["ours", "theirs"])
def test_a_real_peer_as_the_coordinator(ant_quic: AntQuic, ours: bool) -> None:
    """In our node's place, for peers of both kinds: what fails with ours and not with theirs would be our fault."""
    peer: PeerProgram = Library() if ours else ant_quic
    trial = MeetingTrial(a=peer, b=peer, coordinator=Coordinator.ANT_QUIC, ant_quic=ant_quic)
    hold(
        cells_of([("port-restricted", "port-restricted"), ("symmetric", "full-cone")]),
        trial,
        attempts=ATTEMPTS_WITH_ANT_QUIC,
    )


def test_the_command_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    """With the peers of this package, and nothing that would have to be built."""
    assert cli.main(["natlab", "run", "--cell", "easy,full-cone", "--attempts", "2"]) == 0

    printed = capsys.readouterr()
    first, second, third = printed.out.splitlines()[:3]
    assert first.split() == ["a", "\\", "b", "full-cone"]
    assert second.split()[:3] == ["port-restricted", "a:", "punched"]
    assert third.split()[:2] == ["b:", "punched"]
    assert "2 meetings, all as theory allows" in printed.out
    assert "port-restricted (a) → full-cone (b): punched after" in printed.err
