"""Tests of dividing the relay bandwidth among workers."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antquic_server.supervisor.relay_shares import IDLE_AFTER_S, IDLE_PART, WorkerShares, divide

DEMANDS = st.dictionaries(st.integers(0, 63), st.floats(0, 1e12) | st.just(math.inf), min_size=1, max_size=64)


@given(total=st.floats(1, 1e12), demands=DEMANDS)
def test_division_is_complete_and_fair(total: float, demands: dict[int, float]) -> None:
    """All is given out; who gets less than wished gets as much as anybody who got no more than wished, or more."""
    parts = divide(total, demands)

    assert parts.keys() == demands.keys()
    assert sum(parts.values()) == pytest.approx(total)
    assert min(parts.values()) >= 0
    for slot, part in parts.items():
        if part < demands[slot] * (1 - 1e-9):
            assert part >= max(parts.values()) * (1 - 1e-9) or all(
                parts[other] <= demands[other] * (1 + 1e-9) for other in parts
            )


@pytest.mark.parametrize(
    ("demands", "parts"),
    [
        ({}, {}),
        ({3: 0.0}, {3: 90.0}),
        ({0: 0.0, 1: 0.0, 2: 0.0}, {0: 30.0, 1: 30.0, 2: 30.0}),
        ({0: 60.0, 1: 10.0, 2: 5.0}, {0: 65.0, 1: 15.0, 2: 10.0}),
        ({0: math.inf, 1: 10.0, 2: 10.0}, {0: 70.0, 1: 10.0, 2: 10.0}),
        ({0: math.inf, 1: math.inf, 2: 10.0}, {0: 40.0, 1: 40.0, 2: 10.0}),
        ({0: 100.0, 1: 100.0, 2: 10.0}, {0: 40.0, 1: 40.0, 2: 10.0}),
    ],
)
def test_each_gets_what_it_used_and_an_even_part_of_the_rest(
    demands: dict[int, float], parts: dict[int, float]
) -> None:
    """Of 90: small demands are met first, endless ones share what is left."""
    assert divide(90.0, demands) == pytest.approx(parts)


class Node:
    """Workers that use as much of their share as they wish, second by second."""

    def __init__(self, wishes: list[float], total: float = 100_000.0) -> None:
        self.total = total
        self.wishes = wishes
        self.shares = WorkerShares()
        self.now_s = 50.0
        self.told: dict[int, float] = {}

    def let_pass(self, seconds: int) -> list[float]:
        """Return what each worker moved in the last second."""
        used: list[float] = []
        for _ in range(seconds):
            self.told = self.shares.settle(self.total, range(len(self.wishes)), self.now_s)
            self.now_s += 1.0
            used = [min(wish, self.told[slot]) for slot, wish in enumerate(self.wishes)]
            for slot, moved in enumerate(used):
                if moved:
                    self.shares.moved(slot, int(moved))
                    self.shares.reported(slot, self.now_s)
        return used


def test_one_busy_worker_gets_nearly_all_within_seconds() -> None:
    """The others keep what they need to begin with."""
    node = Node([math.inf, 0.0, 0.0, 0.0])
    (busy, *_) = node.let_pass(10)

    assert busy == pytest.approx(100_000 * (1 - 3 * IDLE_PART / 4))
    assert sum(node.told.values()) == pytest.approx(100_000)


def test_worker_that_was_idle_gets_an_even_part_within_two_seconds() -> None:
    """However much the busy one has had until then."""
    node = Node([math.inf, 0.0])
    node.let_pass(10)
    node.wishes[1] = math.inf

    assert node.let_pass(3) == pytest.approx([50_000, 50_000], rel=0.01)


@given(wishes=st.lists(st.floats(0, 1e6), min_size=1, max_size=8))
def test_wishes_that_fit_together_are_met(wishes: list[float]) -> None:
    """Whatever they are, if their sum leaves some room, nobody is held back after a few seconds."""
    node = Node(wishes, total=max(100.0, sum(wishes) * 1.5))

    assert node.let_pass(12) == pytest.approx(wishes, abs=1)


def test_load_is_that_of_the_last_report_and_fades() -> None:
    """A worker that moves nothing reports nothing."""
    shares = WorkerShares()
    assert shares.load(0, 10.0) == 0
    shares.moved(0, 500)
    shares.reported(0, 10.0)
    assert shares.load(0, 11.0) == 500
    shares.moved(0, 1000)
    shares.reported(0, 12.0)
    assert shares.load(0, 12.0) == 500
    assert shares.load(0, 12.1 + IDLE_AFTER_S) == 0


@pytest.mark.parametrize("gap_s", [0.001, 60.0])
def test_report_that_was_held_up_counts_as_of_one_second(gap_s: float) -> None:
    """Two in a row make no peak, and a pause before the first byte makes no trickle."""
    shares = WorkerShares()
    for at_s in (10.0, 10.0 + gap_s):
        shares.moved(0, 1000)
        shares.reported(0, at_s)

    assert shares.load(0, 10.0 + gap_s) == 1000


def test_dead_worker_is_forgotten() -> None:
    """Its successor begins without a load, and without a share that it could have used up."""
    shares = WorkerShares()
    shares.settle(100, [0, 1], 10.0)
    shares.moved(0, 50)
    shares.reported(0, 10.0)
    shares.moved(0, 7)
    shares.forget(0)
    shares.reported(0, 11.0)

    assert shares.load(0, 11.0) == 0
    assert shares.settle(100, [0, 1], 11.0) == {0: 50, 1: 50}
    assert shares.settle(100, [], 12.0) == {}
