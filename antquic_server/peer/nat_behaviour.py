"""
What a peer learns about its own NAT, and which ports it tries at somebody else's.

Two nodes, or two ports of one, each tell a peer the address they see it at (RFC 5780, section 4.3 asks the same of two
addresses of a STUN server). Equal addresses mean that the NAT keeps one mapping for all destinations; different ones
that it makes another for each, which is called symmetric, and the difference of the ports is how it gives them out.

**Prediction.** A coordinator tells a peer where it sees the other, so for a symmetric NAT the port of the mapping
*towards the coordinator*, ``p``. Towards us that NAT makes a new mapping, and one that counts upwards takes ``p + 1``
for it, which is the source of the packets it sends us. Two cases meet in :func:`dial_plan`:

* Ours keeps one mapping: any of our packets to ``p + 1`` opens our filter for it, and the order is of no matter.
* Ours is symmetric and counts as well, from ``q``. Both have sent to the exact address first, which took ``p + 1`` and
  ``q + 1``. From there the packet to ``p + 2`` leaves from ``q + 2`` and meets the other's from ``p + 2`` to
  ``q + 2``: both filters know each other. Had either sent to ``p + 1`` in between, no pair would ever match; so the
  plan has the exact address, then ``p + 2``, ``p + 3``, … in that order, and ``p + 1`` only at the end.

Steps other than 1 need no word between the two, only that each side knows its own (:class:`PortGrowth`). Ours is
``s``: the packets after the first leave from ``q + 2s``, ``q + 3s``, …, so they go to ``p + 2s``, ``p + 3s``, …. In
short, what goes to ``p + x`` leaves from ``q + x``. The other side does the same with its own step ``t``, so every
``x`` that is a multiple of both matches. A node that saw us before others did has an older ``q``; the difference is
added to each ``x``.
"""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from antquic_server.protocol.address import MAX_PORT, SocketAddress
from antquic_server.protocol.address_discovery import Mapping

__all__ = ["Mapping", "NatObserver", "PortGrowth", "dial_plan"]

MAX_OBSERVATIONS = 64
"""Of different nodes; the oldest is forgotten."""
MAX_PREDICTABLE_DELTA = 16
"""Ports further apart than this were not given out one after the other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Observation:
    observer: SocketAddress
    own: SocketAddress
    order: int
    era: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PortGrowth:
    """
    How the ports of our own NAT go on, seen from one coordinator: without observations as most NATs that count do.

    ``step`` is the distance of ports given out one after the other, ``ahead`` how far our NAT had got beyond the port
    that the coordinator knows when we last heard of one.
    """

    step: int = 1
    ahead: int = 0


class NatObserver:
    """
    Collects what nodes say about our address, newest last; families are kept apart.

    When a node sees us move, the NAT has forgotten its mappings: a new era begins, and only observations of one era are
    compared, lest a rebinding pass for a symmetric NAT.
    """

    def __init__(self) -> None:
        self._observations: dict[SocketAddress, _Observation] = {}
        self._eras = {True: 0, False: 0}
        """Of IPv4 and of IPv6."""

    def observe(self, observer: SocketAddress, own: SocketAddress, *, order: int = 0) -> bool:
        """
        Note that the node at ``observer`` sees us at ``own``; returns whether this is new.

        ``order`` is that in which we began to send to the nodes, and so that of the ports a NAT has given out; what
        they tell may arrive in another.
        """
        earlier = self._observations.pop(observer, None)
        if earlier is not None and earlier.own != own and earlier.era == self._eras[own.is_ipv4]:
            self._eras[own.is_ipv4] += 1
        self._observations[observer] = _Observation(
            observer=observer, own=own, order=order, era=self._eras[own.is_ipv4]
        )
        if len(self._observations) > MAX_OBSERVATIONS:
            del self._observations[next(iter(self._observations))]
        return earlier is None or earlier.own != own

    def __len__(self) -> int:
        """How many nodes, or ports of nodes, have told us an address."""
        return len(self._observations)

    @property
    def addresses(self) -> list[SocketAddress]:
        """Our addresses as others see them, the most recently observed first, each once."""
        newest_first = reversed(self._observations.values())
        return list(dict.fromkeys(item.own for item in newest_first))

    def seen_by(self, observer: SocketAddress) -> SocketAddress | None:
        """Return our address as one node sees it."""
        item = self._observations.get(observer)
        return None if item is None else item.own

    def mapping(self, *, ipv4: bool = True) -> Mapping:
        """Return how the NAT maps; only observations of one family can be compared."""
        own = self._comparable(ipv4=ipv4)
        if len(own) < 2:
            return Mapping.UNKNOWN
        return Mapping.ENDPOINT_INDEPENDENT if len(set(own)) == 1 else Mapping.DEPENDENT

    def port_deltas(self, *, ipv4: bool = True) -> list[int]:
        """Return the differences of the ports, in the order they were given out; a repeated port leaves none."""
        ports = list(dict.fromkeys(own.port for own in self._comparable(ipv4=ipv4)))
        return [later - earlier for earlier, later in itertools.pairwise(ports)]

    def port_step(self, *, ipv4: bool = True) -> int | None:
        """
        Return the distance of ports that a symmetric NAT gives out one after the other, None if none can be told.

        Other hosts behind it take ports too, so what is observed are multiples: the step is what they have in common.
        """
        deltas = self.port_deltas(ipv4=ipv4)
        return math.gcd(*deltas) if deltas and all(0 < delta <= MAX_PREDICTABLE_DELTA for delta in deltas) else None

    def port_growth(self, coordinator: SocketAddress) -> PortGrowth:
        """Return how our ports go on from the one that a coordinator sees us at."""
        known = self.seen_by(coordinator)
        step = None if known is None else self.port_step(ipv4=known.is_ipv4)
        if known is None or step is None:
            return PortGrowth()
        newest = self._comparable(ipv4=known.is_ipv4)[-1]
        return PortGrowth(step=step, ahead=max(0, newest.port - known.port))

    def candidates(self, coordinator: SocketAddress, maximum: int, *, predict: bool) -> list[SocketAddress]:
        """
        Return what to tell a coordinator about ourselves, best first.

        That is the address it sees us at, or else the newest one, and for a predictable NAT the ports it is likely to
        give out next. Not what others see: an ant-quic peer dials one after the other, 30 s each.
        """
        found = [own] if (own := self.seen_by(coordinator)) is not None else self.addresses[:1]
        step = self.port_step(ipv4=found[0].is_ipv4) if found and predict else None
        if step is not None:
            newest = self._comparable(ipv4=found[0].is_ipv4)[-1]
            found += _at_offsets(newest, [step * count for count in range(1, maximum + 1)])
        return list(dict.fromkeys(found))[:maximum]

    def _comparable(self, *, ipv4: bool) -> list[SocketAddress]:
        """Our addresses of one family and the present era, in the order the NAT has given them out."""
        era = self._eras[ipv4]
        items = [item for item in self._observations.values() if item.own.is_ipv4 == ipv4 and item.era == era]
        return [item.own for item in sorted(items, key=lambda item: item.order)]


def dial_plan(
    addresses: Sequence[SocketAddress],
    *,
    round_number: int,
    max_candidates: int,
    predict: bool,
    guessed: int = 0,
    growth: PortGrowth = PortGrowth(),
) -> list[SocketAddress]:
    """
    Return which addresses to dial in one round (from 1), in this order, at most ``max_candidates``.

    The first round has the given addresses alone: dialling more would make our own NAT, if it counts, give out ports
    that the other side cannot know of. Every further round tries the next window of ports above the first address,
    after the ``guessed`` ports that this attempt has dialled already; the module text says why in this order, and what
    the ``growth`` of our own ports has to do with it.
    """
    exact = list(dict.fromkeys(addresses))[:max_candidates]
    width = max_candidates - len(exact)
    if round_number < 2 or not predict or not exact or width < 1:
        return exact
    # The first of a window comes last: the exact address has taken the port it would have to leave from.
    turns = [*range(guessed + 2, guessed + width + 1), guessed + 1]
    offsets = [growth.ahead + turn * growth.step for turn in turns]
    return list(dict.fromkeys([*exact, *_at_offsets(exact[0], offsets)]))


def _at_offsets(address: SocketAddress, offsets: Iterable[int]) -> list[SocketAddress]:
    ports = (address.port + offset for offset in offsets)
    return [SocketAddress(host=address.host, port=port) for port in ports if 0 < port <= MAX_PORT]
