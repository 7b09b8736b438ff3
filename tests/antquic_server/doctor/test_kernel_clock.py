"""Asking the kernel what it thinks of its clock."""

import sys

import pytest

from antquic_server.doctor.kernel_clock import read_kernel_clock
from antquic_server.errors import CannotTellError


@pytest.mark.skipif(sys.platform != "linux", reason="adjtimex is of Linux")
def test_the_kernel_answers() -> None:
    """Without any right; the error it reckons with is at most the 16 s at which it stops counting."""
    clock = read_kernel_clock()

    assert isinstance(clock.synchronised, bool)
    assert 0 <= clock.max_error_s <= 100


def test_another_system_cannot_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no such call."""
    monkeypatch.setattr("sys.platform", "darwin")

    with pytest.raises(CannotTellError, match="not on this system"):
        read_kernel_clock()
