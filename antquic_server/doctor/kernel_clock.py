"""What the kernel thinks of its own clock: ``adjtimex`` (2), read only, which needs no right."""

import ctypes
import sys
from dataclasses import dataclass

from antquic_server.errors import CannotTellError

__all__ = ["KernelClock", "read_kernel_clock"]

_TIME_ERROR = 5
_STA_UNSYNC = 0x0040


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelClock:
    """Whether something disciplines the clock, and the largest error the kernel reckons with."""

    synchronised: bool
    max_error_s: float


class _Timex(ctypes.Structure):
    """``struct timex`` of <sys/timex.h>, as far as it is read here, and room for the rest."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_char * 256),
    )


def read_kernel_clock() -> KernelClock:
    """
    Ask the kernel.

    Raises:
        CannotTellError: This system has no ``adjtimex``, or forbids it.
    """
    function = getattr(ctypes.CDLL(None, use_errno=True), "adjtimex", None) if sys.platform == "linux" else None
    if function is None:
        raise CannotTellError("adjtimex", "not on this system")
    timex = _Timex()
    state = function(ctypes.byref(timex))
    if state < 0:
        raise CannotTellError("adjtimex", "the system forbids it")
    unsynchronised = state == _TIME_ERROR or timex.status & _STA_UNSYNC
    return KernelClock(synchronised=not unsynchronised, max_error_s=timex.maxerror / 1e6)
