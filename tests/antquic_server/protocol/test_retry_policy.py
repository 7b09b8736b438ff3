"""Tests of ``antquic_server.protocol.retry_policy``."""

import pytest

from antquic_server.protocol.retry_policy import LOOP_LAG_LIMIT_S, RetryPolicy


@pytest.mark.parametrize(("mode", "expected"), [("off", False), ("always", True)])
@pytest.mark.parametrize(("half_open", "loop_lag_s"), [(0, 0.0), (1_000_000, 60.0)])
def test_fixed_modes_ignore_the_load(mode: str, expected: bool, half_open: int, loop_lag_s: float) -> None:
    """``off`` and ``always`` mean what they say."""
    policy = RetryPolicy(mode=mode, half_open_threshold=10)
    assert policy.demands_retry(half_open=half_open, loop_lag_s=loop_lag_s) is expected


@pytest.mark.parametrize(
    ("half_open", "loop_lag_s", "expected"),
    [(9, 0.0, False), (10, 0.0, True), (0, LOOP_LAG_LIMIT_S - 0.001, False), (0, LOOP_LAG_LIMIT_S, True)],
)
def test_auto_switches_on_at_either_limit(half_open: int, loop_lag_s: float, expected: bool) -> None:
    """Handshakes that pile up are enough, and so is a loop that falls behind."""
    policy = RetryPolicy(mode="auto", half_open_threshold=10)
    assert policy.demands_retry(half_open=half_open, loop_lag_s=loop_lag_s) is expected


def test_auto_stays_on_until_both_have_calmed_down() -> None:
    """Off again only at half of both limits, and on again only at a whole one."""
    policy = RetryPolicy(mode="auto", half_open_threshold=10)
    story = [
        (10, 0.0, True),
        (6, 0.0, True),  # above half
        (5, LOOP_LAG_LIMIT_S * 0.6, True),  # the loop is not calm
        (5, LOOP_LAG_LIMIT_S * 0.5, False),
        (9, LOOP_LAG_LIMIT_S * 0.9, False),  # between: stays off
        (0, LOOP_LAG_LIMIT_S, True),
        (6, 0.0, True),
        (0, 0.0, False),
    ]
    seen = [policy.demands_retry(half_open=half_open, loop_lag_s=lag_s) for half_open, lag_s, _ in story]
    assert seen == [expected for _, _, expected in story]
