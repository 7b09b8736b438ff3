"""What ``bench relay`` measures: options in words, and the cells that follow from them."""

from collections.abc import Mapping
from dataclasses import dataclass

from antquic_server.bench.report import listed, whole, whole_list
from antquic_server.errors import UsageError
from antquic_server.net.trains import MAX_TRAIN_BYTES, MAX_TRAIN_DATAGRAMS

__all__ = ["MODES", "OPTIONS", "QUICK", "Cell", "Plan"]

OPTIONS: Mapping[str, str] = {
    "rounds": "3",
    "ms": "300",
    "sizes": "200,1200,1452",
    "trains": "1,16",
    "sessions": "1,50",
    "modes": "channel,stream",
    "place": "auto",
}

QUICK: Mapping[str, str] = {"rounds": "1", "ms": "100", "sizes": "1200", "sessions": "1,4"}
"""To see whether it works at all."""

MODES = ("channel", "stream")

MAX_PAYLOAD_BYTES = 1456
"""What fits 1500 bytes of an IPv4 packet behind the longest header, which has 16 bytes less than this leaves."""

MAX_SESSIONS = 100
"""Three relays with two sockets for each stay below the 1024 descriptors that a process usually may have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One combination of the channel relay; ``cut``: trains that the relay sends are cut at its cost."""

    train: int
    cut: bool
    payload_bytes: int
    sessions: int

    @property
    def form(self) -> str:
        """How datagrams travel, in words."""
        return ("single" if self.train == 1 else f"train of {self.train}") + (", cut" if self.cut else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that is measured, ``rounds`` times for ``seconds`` each."""

    rounds: int
    seconds: float
    sizes: tuple[int, ...]
    trains: tuple[int, ...]
    sessions: tuple[int, ...]
    modes: tuple[str, ...]
    place: str

    @classmethod
    def parse(cls, options: Mapping[str, str]) -> "Plan":
        """
        Read the options.

        Raises:
            UsageError: One of them makes no sense.
        """
        plan = cls(
            rounds=whole(options, "rounds", 1),
            seconds=whole(options, "ms", 1) / 1000,
            sizes=whole_list(options, "sizes", 1),
            trains=whole_list(options, "trains", 1),
            sessions=whole_list(options, "sessions", 1),
            modes=listed(options, "modes", MODES),
            place=options["place"],
        )
        for key, greatest, limit in (
            ("sizes", max(plan.sizes), MAX_PAYLOAD_BYTES),
            ("trains", max(plan.trains), min(MAX_TRAIN_DATAGRAMS, MAX_TRAIN_BYTES // (max(plan.sizes) + 16))),
            ("sessions", max(plan.sessions), MAX_SESSIONS),
        ):
            if greatest > limit:
                raise UsageError(f"bench: {key} = {options[key]!r}: at most {limit}, with these other options")
        return plan

    def cells(self, *, cutting: bool) -> list[Cell]:
        """Return the cells of the channel relay; ``cutting``: trains can be had cut as well, whoever made them."""
        forms = [(train, cut) for train in self.trains for cut in ((False, True) if cutting else (False,))]
        return [
            Cell(train=train, cut=cut, payload_bytes=size, sessions=count)
            for train, cut in forms
            for size in self.sizes
            for count in self.sessions
        ]
