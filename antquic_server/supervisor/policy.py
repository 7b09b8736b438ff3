"""
When a worker is replaced, when we wait, and when the node gives up.

Pure decisions: time is an argument, and what is decided here others carry out.

Theory of operation. A process starts without a slot, as a spare, and is assigned one later, so there are two
kinds of failure and two back-offs. *A slot's worker ended*: the slot goes to a spare at once if the worker
had served for ``YOUNG_S``, or was the first to die young; the next young deaths in a row make the slot wait
longer and longer, as something about the slot's traffic or the program kills workers and restarting fast
would only burn the CPU. *A process ended before it got that far*: new processes wait, likewise.

What ended, and what follows:

==================  ============================  =================================================
the process         node has never been ready     node has been ready
==================  ============================  =================================================
could not boot      stop with the reason          back off; stop once nobody serves and
                                                  ``GIVE_UP_AFTER`` in a row could not boot
died before Ready   back off; stop after          back off
                    ``GIVE_UP_AFTER`` in a row
died after Ready    replace, back off if young    replace, back off if young
==================  ============================  =================================================

"Could not boot" is exit code 3 or a BootFailed message. It stops the node only before the first Ready of any
worker: later the cause is likely to pass (memory, a package being upgraded), and the other slots are worth
keeping.
"""

from dataclasses import dataclass
from typing import Final

from antquic_server.errors import ExitCode

YOUNG_S: Final = 10.0
"""A worker that served less than this died young."""

BACK_OFF_MIN_S: Final = 0.1
BACK_OFF_MAX_S: Final = 10.0
"""First and longest wait; each is double the one before."""

GIVE_UP_AFTER: Final = 5
"""Failed boots in a row after which a node without any serving worker stops."""

HELLO_DEADLINE_S: Final = 60.0
"""From process start to Hello. Imports take half a second of CPU, and 64 workers may start on two cores."""

READY_DEADLINE_S: Final = 30.0
"""From Assign to Ready, likewise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerEnd:
    """
    How a worker process ended.

    ``slot`` is None for a spare. ``ready_for_s`` says how long it served, None if it was never Ready.
    ``exit_code`` is negative for a signal. ``boot_failure`` is the reason it gave with BootFailed.
    """

    slot: int | None
    ready_for_s: float | None
    exit_code: int
    boot_failure: str | None = None

    @property
    def could_not_boot(self) -> bool:
        """It said so, or left with the exit code that says so."""
        return self.boot_failure is not None or (self.ready_for_s is None and self.exit_code == ExitCode.CANNOT_BOOT)

    def describe(self) -> str:
        """Return one line for the operator."""
        if self.boot_failure is not None:
            return " ".join(self.boot_failure.split())
        how = f"killed by signal {-self.exit_code}" if self.exit_code < 0 else f"exit code {self.exit_code}"
        when = "before it was ready" if self.ready_for_s is None else f"after {self.ready_for_s:.1f} s"
        return f"worker ended {when} ({how})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Replace:
    """The slot may be assigned again from ``slot_at_s`` on, new processes start from ``start_at_s`` on."""

    slot_at_s: float
    start_at_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StopNode:
    """The node cannot go on; ``reason`` is one line for the operator."""

    reason: str


class RestartPolicy:
    """The memory that the decisions need: who died young how often in a row."""

    def __init__(self) -> None:
        self.ever_ready = False
        self._young_deaths: dict[int, int] = {}
        self._failed_starts = 0
        self._failed_boots = 0

    def worker_ready(self) -> None:
        """Some worker became Ready: starting works."""
        self.ever_ready = True
        self._failed_starts = 0
        self._failed_boots = 0

    def worker_ended(self, end: WorkerEnd, *, now_s: float, ready_workers: int) -> Replace | StopNode:
        """Decide what follows when a process has ended; ``ready_workers`` counts those still serving."""
        if end.ready_for_s is not None:
            return Replace(slot_at_s=now_s + self._slot_delay_s(end), start_at_s=now_s)
        self._failed_starts += 1
        if end.could_not_boot:
            self._failed_boots += 1
        if self._hopeless(end, ready_workers):
            return StopNode(reason=end.describe())
        # The slot itself is not to blame: any spare that works may take it at once.
        return Replace(slot_at_s=now_s, start_at_s=now_s + _back_off_s(self._failed_starts))

    def _hopeless(self, end: WorkerEnd, ready_workers: int) -> bool:
        if not self.ever_ready:
            return end.could_not_boot or self._failed_starts >= GIVE_UP_AFTER
        return end.could_not_boot and ready_workers == 0 and self._failed_boots >= GIVE_UP_AFTER

    def _slot_delay_s(self, end: WorkerEnd) -> float:
        if end.slot is None or end.ready_for_s is None:
            return 0.0
        if end.ready_for_s >= YOUNG_S:
            self._young_deaths.pop(end.slot, None)
            return 0.0
        deaths = self._young_deaths.get(end.slot, 0) + 1
        self._young_deaths[end.slot] = deaths
        return _back_off_s(deaths - 1)


def _back_off_s(failures: int) -> float:
    """Return the wait after so many failures in a row: 0, 0.1, 0.2, 0.4 … 10 s."""
    if failures <= 0:
        return 0.0
    # The exponent is bounded before the power is taken: a node may fail for weeks.
    return min(BACK_OFF_MAX_S, BACK_OFF_MIN_S * 2.0 ** min(failures - 1, 16))


class HeartbeatWatch:
    """
    Tells a frozen worker from a supervisor that was not looking.

    ``tick`` is called every ``interval_s``. If it comes late by more than half the timeout, the supervisor
    itself was stalled: signs of life may wait unread in the sockets, so the workers get one more interval
    before any is judged.
    """

    def __init__(self, *, interval_s: float, timeout_s: float, now_s: float) -> None:
        self.lag_s = 0.0
        self._interval_s = interval_s
        self._timeout_s = timeout_s
        self._expected_s = now_s + interval_s
        self._judge_from_s = now_s

    def tick(self, now_s: float) -> None:
        """Note that the supervisor's loop is alive."""
        self.lag_s = max(0.0, now_s - self._expected_s)
        self._expected_s = now_s + self._interval_s
        if self.lag_s > self._timeout_s / 2:
            self._judge_from_s = now_s + self._interval_s

    def overdue(self, last_heartbeat_s: float, now_s: float, at_least_s: float = 0.0) -> bool:
        """Whether a worker must be taken for frozen; ``at_least_s`` raises a shorter timeout for this one."""
        if now_s < self._judge_from_s:
            return False
        return now_s - last_heartbeat_s > max(self._timeout_s, at_least_s)
