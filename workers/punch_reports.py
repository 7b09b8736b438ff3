"""Passes on to the hub what peers say about their hole punches; believes only who has proven who it is."""

from collections.abc import Callable
from typing import Final

from antquic_server.errors import CoordinationDecodeError
from antquic_server.ipc.messages import Message
from antquic_server.ipc.punch_messages import PunchReported
from antquic_server.protocol.limits import TokenBucket
from antquic_server.protocol.punch_report import decode_punch_report_untrusted
from antquic_server.stats.counters import CounterSet
from workers.connection import Connection

REPORTS_PER_S: Final = 5.0
REPORTS_BURST: Final = 50.0
"""Of one connection; beyond it they are not even read. A popular peer is introduced to others as often, at most."""


class PunchReports:
    """The reports that reach one worker; ``tell_hub`` sends a message, False if the queue is full."""

    def __init__(
        self, tell_hub: Callable[[Message], bool], monotonic_s: Callable[[], float], counters: CounterSet
    ) -> None:
        self._tell_hub = tell_hub
        self._monotonic_s = monotonic_s
        self._counters = counters

    def handle_message_untrusted(self, connection: Connection, data: bytes) -> None:
        """Pass on one report, or drop and count it; what is passed on is counted by the hub."""
        problem = self._handle_untrusted(connection, data)
        if problem:
            self._counters.add("punch_reports", 1, problem)

    def count_malformed(self) -> None:
        """Count a message that was too long to be one."""
        self._counters.add("punch_reports", 1, "malformed")

    def _handle_untrusted(self, connection: Connection, data: bytes) -> str:
        """Do so and return why not, or nothing."""
        if connection.peer_id is None:
            return "unauthenticated"
        if connection.punch_report_rate is None:
            connection.punch_report_rate = TokenBucket(REPORTS_PER_S, REPORTS_BURST)
        if not connection.punch_report_rate.take(self._monotonic_s()):
            return "rate_limited"
        try:
            report = decode_punch_report_untrusted(data)
        except CoordinationDecodeError:
            return "malformed"
        told = self._tell_hub(
            PunchReported(
                peer_id=connection.peer_id,
                other=report.other,
                succeeded=report.succeeded,
                nat_mapping=report.nat_mapping.value,
            )
        )
        return "" if told else "hub_busy"
