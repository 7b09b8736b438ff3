"""
What both ends of one connection have told each other about their addresses.

Three small state machines without IO:

* :class:`ObservedAddressReporter`: we tell the peer which address its packets come from, once the handshake is
  complete and again, with the next sequence number, after each change (draft-seemann-quic-address-discovery).
  Only the newest report is worth repeating when a packet is lost.
* :class:`ObservedAddressReceiver`: what the peer tells us; older sequence numbers are ignored.
* :class:`RemoteCandidates`: addresses the peer advertises for itself (draft-seemann-quic-nat-traversal), bounded.
"""

from collections.abc import Iterator
from enum import StrEnum

from antquic_server.protocol.address import SocketAddress
from antquic_server.protocol.frames import AddAddress, ObservedAddress


class Mapping(StrEnum):
    """How a NAT maps, as far as observed (RFC 4787, section 4.1)."""

    UNKNOWN = "unknown"
    """Fewer than two observations."""
    ENDPOINT_INDEPENDENT = "endpoint_independent"
    """The same address for everybody, or no NAT at all."""
    DEPENDENT = "dependent"
    """Another one for each destination: symmetric."""


class ObservedAddressReporter:
    """Decides which OBSERVED_ADDRESS frame is due."""

    def __init__(self) -> None:
        self._next_sequence_number = 0
        self._reported: SocketAddress | None = None
        self.due: ObservedAddress | None = None
        """The frame to send next, None if the peer knows everything."""

    def observe(self, address: SocketAddress) -> bool:
        """Note the address the peer's packets come from now; returns whether a report became due."""
        address = address.normalised()
        if address == self._reported:
            return False
        self._reported = address
        self.due = ObservedAddress(sequence_number=self._next_sequence_number, address=address)
        self._next_sequence_number += 1
        return True

    def take_due(self) -> ObservedAddress | None:
        """Return the frame to write and consider it sent."""
        frame, self.due = self.due, None
        return frame

    def on_lost(self, frame: ObservedAddress) -> None:
        """Send a lost report again unless a newer one has replaced it."""
        if frame.sequence_number == self._next_sequence_number - 1:
            self.due = frame


class ObservedAddressReceiver:
    """Keeps the newest address the peer has observed for us."""

    def __init__(self) -> None:
        self.address: SocketAddress | None = None
        self._sequence_number = -1

    def receive(self, frame: ObservedAddress) -> bool:
        """Take in a report; returns False for one that is not newer than what we have."""
        if frame.sequence_number <= self._sequence_number:
            return False
        self._sequence_number = frame.sequence_number
        self.address = frame.address.normalised()
        return True


class RemoteCandidates:
    """
    Addresses a peer advertises, by sequence number.

    At most ``maximum`` are kept; further ones are refused rather than evicting older ones, so that a peer cannot
    push out what it said before by repeating itself.
    """

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self._by_sequence_number: dict[int, SocketAddress] = {}

    def __len__(self) -> int:
        return len(self._by_sequence_number)

    def __iter__(self) -> Iterator[SocketAddress]:
        return iter(self._by_sequence_number.values())

    def add(self, frame: AddAddress) -> bool:
        """Take in an advertised address; returns False when there is no room."""
        known = self._by_sequence_number
        if frame.sequence_number not in known and len(known) >= self._maximum:
            return False
        known[frame.sequence_number] = frame.address.normalised()
        return True

    def remove(self, sequence_number: int) -> None:
        """Forget an address; an unknown sequence number is ignored, as REMOVE_ADDRESS is idempotent."""
        self._by_sequence_number.pop(sequence_number, None)
