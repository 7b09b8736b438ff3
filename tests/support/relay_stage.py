"""A relay desk before pretended workers, for tests of the desk and of the channels it brokers."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, TypeVar

from antquic_server.config.model import NatSettings, RelaySettings
from antquic_server.ipc.messages import Message
from antquic_server.ipc.relay_messages import (
    ChannelAnswerIn,
    ChannelAsk,
    ChannelCreate,
    ChannelCreated,
    ChannelOfferOut,
    ChannelOpenedOut,
    RelayReserve,
    RelayReserved,
)
from antquic_server.supervisor.directory import Directory, PeerConnection
from antquic_server.supervisor.relay_desk import RelayDesk, RelayPlan
from support.coordination import ALICE, BOB

Kind = TypeVar("Kind", bound=Message)

SECRET = bytes(range(50, 82))
ALICE_AT = (0, 3)
BOB_AT = (1, 5)
"""Slot and connection."""


class RelayStage:
    """
    Three slots with a ready worker each; messages to ``deaf`` slots are lost.

    ``told`` has what workers were told since it was looked at last; only slots in ``owners`` are offered channels.
    """

    def __init__(self, nat: NatSettings | None = None, **settings: Any) -> None:
        self.now_s = 1000.0
        self.directory = Directory(1000)
        self.deaf: set[int] = set()
        self.ready = {0: 10, 1: 10, 2: 10}
        self.owners = {0, 1, 2}
        self._told: list[tuple[int, Message]] = []
        self._randomness = self._draw()
        plan = RelayPlan(
            settings=RelaySettings(**settings),
            nat=nat or NatSettings(),
            slots=3,
            secret=SECRET,
            random_bytes=self._random_bytes,
        )
        self.desk = RelayDesk(plan, self.directory, self.tell_slot, self.ready_slots, clock=lambda: self.now_s)
        self.up(ALICE, ALICE_AT, "192.0.2.1")
        self.up(BOB, BOB_AT, "198.51.100.1")

    @staticmethod
    def _draw() -> Iterator[int]:
        number = 1
        while True:
            number = number * 75 % 65_537
            yield number % 256

    def _random_bytes(self, count: int) -> bytes:
        return bytes(next(self._randomness) for _ in range(count))

    def ready_slots(self) -> dict[int, int]:
        """Connections of the slots that may own channels."""
        return {slot: count for slot, count in self.ready.items() if slot in self.owners}

    def tell_slot(self, slot: int, message: Message) -> bool:
        """Note what a worker is told."""
        if slot in self.deaf or slot not in self.ready:
            return False
        self._told.append((slot, message))
        return True

    def up(self, peer_id: bytes, at: tuple[int, int], host: str = "192.0.2.9", **facts: Any) -> None:
        """List a connection of a peer that knows channels."""
        facts = {"channels": True, **facts}
        listed = PeerConnection(slot=at[0], connection=at[1], host=host, port=1, **facts)
        assert self.directory.peer_up(peer_id, listed)

    def down(self, peer_id: bytes, at: tuple[int, int]) -> None:
        """End a connection."""
        self.directory.peer_down(*at)
        self.desk.peer_down(peer_id)

    def die(self, slot: int) -> None:
        """End the worker of a slot, as the fleet tells of it."""
        del self.ready[slot]
        self.directory.slot_down(slot)
        self.desk.slot_down(slot)

    def told(self) -> list[tuple[int, Message]]:
        """Return what workers were told, and forget it."""
        told, self._told = self._told, []
        return told

    def told_one(self, kind: type[Kind], *, slot: int | None = None) -> Kind:
        """Return the one message that a worker was told since the last look."""
        ((to, message),) = self.told()
        assert isinstance(message, kind), message
        assert slot in (None, to)
        return message

    def wait(self, seconds: float, *, tick_s: float = 0.25) -> None:
        """Let time pass."""
        end_s = self.now_s + seconds
        while self.now_s < end_s - 1e-9:
            self.now_s += tick_s
            self.desk.tick()

    def reserve(self, session: int, peer_id: bytes = ALICE, *, slot: int = 0, host: str = "192.0.2.1") -> RelayReserved:
        """Have a worker ask for a stream session; returns the answer."""
        self.told()
        self.desk.heard(slot, RelayReserve(session=session, peer_id=peer_id, host=host))
        return self._pick(RelayReserved)[1]

    def ask(self, request_id: int = 7, **facts: Any) -> None:
        """Have Alice's worker ask for a channel to Bob."""
        asked = ChannelAsk(connection=ALICE_AT[1], peer_id=ALICE, host="192.0.2.1", request_id=request_id, target=BOB)
        self.told()
        self.desk.heard(facts.pop("slot", ALICE_AT[0]), replace(asked, **facts))

    def create(self, **facts: Any) -> tuple[int, ChannelCreate]:
        """Ask; returns the owner and what it was told to create."""
        self.ask(**facts)
        return self._pick(ChannelCreate)

    def _pick(self, kind: type[Kind]) -> tuple[int, Kind]:
        """Return the one message of a kind, and leave what other sessions of the peer were told of their rates."""
        ((slot, message),) = [(slot, item) for slot, item in self._told if isinstance(item, kind)]
        self._told.remove((slot, message))
        return slot, message

    def offer(self, **facts: Any) -> tuple[int, ChannelOfferOut]:
        """Ask and create; returns the owner and what the target is offered."""
        owner, create = self.create(**facts)
        self.told()
        self.desk.heard(owner, ChannelCreated(channel_id=create.channel_id, refusal=""))
        return owner, self.told_one(ChannelOfferOut)

    def open(self, **facts: Any) -> tuple[int, ChannelOpenedOut]:
        """Bring a channel about; returns the owner and what the initiator was told."""
        owner, offer = self.offer(**facts)
        self.desk.heard(BOB_AT[0], ChannelAnswerIn(peer_id=offer.target, channel_id=offer.channel_id, accepted=True))
        return owner, self.told_one(ChannelOpenedOut)
