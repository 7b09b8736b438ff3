"""Moving connections: probes, arrival, giving up."""

from antquic_server.peer.link import Link, Path
from antquic_server.peer.moves import PROBE_INTERVAL_S, Moves
from support.stand_in import StandIn, public_key_of

HERE, THERE, ELSEWHERE = ("198.18.0.1", 1), ("198.18.0.2", 2), ("198.18.0.3", 3)


class Quic(StandIn):
    """Remembers where it is told to go."""

    def __init__(self) -> None:
        super().__init__(public_key=public_key_of("x"), own_cid=bytes(8), first_cid=bytes(8), is_client=True)
        self._addr = HERE
        self.probed: list[Path] = []
        self.abandoned: list[Path] = []

    def probe_path(self, addr: Path) -> bool:  # noqa: D102
        self.probed.append(addr)
        return True

    def abandon_path(self, addr: Path) -> None:  # noqa: D102
        self.abandoned.append(addr)


class Mover:
    """Moves, and what they report."""

    def __init__(self) -> None:
        self.quic = Quic()
        self.link = Link(number=1, quic=self.quic, path=HERE, handshake_deadline_s=None)
        self.touched = 0
        self.moved: list[tuple[Link, Path]] = []
        self.failed: list[Path] = []
        self.moves = Moves(
            touch=self._touch,
            moved=lambda link, before, _now_s: self.moved.append((link, before)),
            failed=lambda _link, path, _now_s: self.failed.append(path),
        )

    def _touch(self, _link: Link) -> None:
        self.touched += 1


def test_probes_are_repeated_until_the_other_side_answers() -> None:
    """Then the others are given up, and it is reported once."""
    mover = Mover()
    mover.moves.begin(mover.link, THERE, 0.0, 10.0)
    mover.moves.begin(mover.link, THERE, 0.0, 10.0)
    mover.moves.begin(mover.link, ELSEWHERE, 0.0, 10.0)
    assert mover.link in mover.moves
    assert mover.link.probing == [THERE, ELSEWHERE]
    assert mover.moves.next_deadline_s() == PROBE_INTERVAL_S
    mover.moves.handle_timer(PROBE_INTERVAL_S)
    mover.moves.look(mover.link, HERE, 0.3)
    assert mover.moved == []
    mover.quic._addr = THERE
    mover.moves.look(mover.link, HERE, 0.4)
    mover.moves.look(mover.link, HERE, 0.5)

    assert mover.quic.probed == [THERE, ELSEWHERE, THERE, ELSEWHERE]
    assert mover.moved == [(mover.link, HERE)]
    assert ELSEWHERE in mover.quic.abandoned
    assert mover.link not in mover.moves
    assert mover.link.probing == []
    assert mover.moves.next_deadline_s() is None
    assert mover.touched >= 4


def test_a_move_that_takes_too_long_has_failed() -> None:
    """At its deadline, and only that one."""
    mover = Mover()
    mover.moves.begin(mover.link, THERE, 0.0, 1.0)
    mover.moves.begin(mover.link, ELSEWHERE, 0.0, 2.0)
    mover.moves.handle_timer(1.0)

    assert mover.failed == [THERE]
    assert mover.quic.abandoned == [THERE]
    assert mover.link.probing == [ELSEWHERE]


def test_giving_up_is_reported_to_nobody() -> None:
    """One path or all of them; a connection that has ended is not written to."""
    mover = Mover()
    mover.moves.begin(mover.link, THERE, 0.0, 1.0)
    mover.moves.begin(mover.link, ELSEWHERE, 0.0, 1.0)
    mover.moves.give_up(mover.link, THERE)
    assert mover.link.probing == [ELSEWHERE]
    mover.link.closed = True
    mover.moves.give_up(mover.link)

    assert mover.quic.abandoned == [THERE]
    assert mover.link not in mover.moves
    assert (mover.moved, mover.failed) == ([], [])


def test_what_ends_meanwhile_is_left_out() -> None:
    """The failure of one move may end others."""
    mover = Mover()
    mover.moves = Moves(
        touch=lambda _link: None,
        moved=lambda *_: None,
        failed=lambda link, _path, _now_s: mover.moves.give_up(link),
    )
    mover.moves.begin(mover.link, THERE, 0.0, 1.0)
    mover.moves.begin(mover.link, ELSEWHERE, 0.0, 1.0)
    mover.moves.handle_timer(1.0)

    assert mover.link not in mover.moves
