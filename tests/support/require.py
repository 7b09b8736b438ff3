"""What a test does when something it needs is missing: skip on a developer's machine, fail where CI promised it."""

import os

import pytest

__all__ = ["require", "running_in_ci", "slow_tests_wanted"]


def running_in_ci() -> bool:
    """Whether ``CI`` is set to ``true``, as every common CI system does."""
    return os.environ.get("CI", "").lower() == "true"


def slow_tests_wanted() -> bool:
    """Whether tests may take minutes: in CI, and wherever ``ANTQUIC_SLOW=1`` asks for it."""
    return running_in_ci() or os.environ.get("ANTQUIC_SLOW") == "1"


def require(condition: object, reason: str) -> None:
    """Skip the running test with ``reason`` unless ``condition`` is true; in CI a missing peer is a failure."""
    if condition:
        return
    if running_in_ci():
        pytest.fail(f"{reason} (a skip is a failure in CI)", pytrace=False)
    pytest.skip(reason)
