"""
Which addresses a relay sends to for its peers.

A relay stands where its peers do not: beside the machines of its own network, on its own loopback, near the metadata
service of its cloud. So what is not public is refused, unless the operator allows it. In this order:

======================================================================  =======
``relay.denied_targets``                                                refused
the node's own listen and admin ports, on an address of its own         refused
an address at which it has sessions and a port of                       allowed
``relay.port_range``: another peer may be there
``relay.allowed_targets``                                               allowed
the node's own addresses                                                refused
networks that are private, local, reserved or of many hosts             refused
everything else                                                         allowed
======================================================================  =======

Sessions are at ``relay.public_address``, at the addresses that the node is told to listen at, and where it listens at
all of them, at those of its own that are public. Its loopback and private addresses are not among those unless they are
named: what listens there counts on being out of reach.

An IPv6 address that stands for an IPv4 one (mapped, NAT64, 6to4) has to pass as that one too.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Final

from antquic_server.protocol.address import SocketAddress

__all__ = ["TargetPolicy", "TargetRules", "TargetVerdict"]

MAX_CACHED_VERDICTS: Final = 4096
"""About 1 MB. Emptied when full: a peer that tries many targets costs a few microseconds for each."""

_SPECIAL: Final = tuple(
    ip_network(text)
    for text in (
        # IANA's special-purpose registries and RFC 6890: this network, private, shared, loopback, link-local (with the
        # metadata services of clouds), private, protocol assignments, private, multicast, reserved with broadcast.
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        # Azure's own: public by number, answered by the host below every guest.
        "168.63.129.16/32",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.168.0.0/16",
        "224.0.0.0/4",
        "240.0.0.0/4",
        # IPv4-compatible (RFC 4291) with unspecified and loopback, and IPv4-translated (RFC 2765): IPv4 addresses in
        # forms of which only old stacks know where they lead. Discard-only (RFC 6666), Teredo (RFC 4380), which goes to
        # the IPv4 address of a server and a client, segment routing (RFC 9602).
        "::/96",
        "::ffff:0:0:0/96",
        "100::/64",
        "2001::/32",
        "5f00::/16",
        # Unique local, link-local, site-local (RFC 3879), multicast, NAT64 of a local prefix (RFC 8215).
        "fc00::/7",
        "fe80::/10",
        "fec0::/10",
        "ff00::/8",
        "64:ff9b:1::/48",
    )
)
_NAT64: Final = IPv6Network("64:ff9b::/96")

_Host = IPv4Address | IPv6Address
_Network = IPv4Network | IPv6Network


class TargetVerdict(StrEnum):
    """What a target is; all but ALLOWED are refused, and are the reasons in the metrics."""

    ALLOWED = "allowed"
    DENIED = "target_denied"
    OWN = "target_own"
    PORT = "target_port"
    SPECIAL = "target_special"


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetRules:
    """
    What the operator says about targets; networks are text in prefix notation.

    ``own_ports`` are the UDP and TCP ports that the node itself listens on, ``session_ports`` first and last of
    ``relay.port_range``, ``session_hosts`` the addresses that are named as those of sessions.
    """

    allowed: Sequence[str]
    denied: Sequence[str]
    own_ports: frozenset[int]
    session_ports: tuple[int, int]
    session_hosts: frozenset[_Host] = frozenset()


class TargetPolicy:
    """Judges targets; ``is_own`` tells whether an address is one of this machine's."""

    def __init__(self, rules: TargetRules, is_own: Callable[[_Host], bool]) -> None:
        self._is_own = is_own
        self.generation = 0
        """Rises when the rules change: whoever has kept a verdict asks again."""
        self._apply(rules)

    def change(self, rules: TargetRules) -> None:
        """Judge by other rules from now on."""
        self.generation += 1
        self._apply(rules)

    def judge(self, target: SocketAddress) -> TargetVerdict:
        """Tell whether a relay may send there."""
        verdict = self._cache.get(target)
        if verdict is None:
            verdict = self._judge(target)
            if len(self._cache) >= MAX_CACHED_VERDICTS:
                self._cache.clear()
            self._cache[target] = verdict
        return verdict

    def _apply(self, rules: TargetRules) -> None:
        self._rules = rules
        self._allowed = [ip_network(text) for text in rules.allowed]
        self._denied = [ip_network(text) for text in rules.denied]
        self._cache: dict[SocketAddress, TargetVerdict] = {}

    def _judge(self, target: SocketAddress) -> TargetVerdict:
        if not target.port:
            return TargetVerdict.PORT
        for host in _forms(target.normalised().host):
            verdict = self._judge_form(host, target.port)
            if verdict is not TargetVerdict.ALLOWED:
                return verdict
        return TargetVerdict.ALLOWED

    def _judge_form(self, host: _Host, port: int) -> TargetVerdict:
        if _is_in(host, self._denied):
            return TargetVerdict.DENIED
        is_own = host.is_loopback or self._is_own(host)
        if is_own:
            if port in self._rules.own_ports:
                return TargetVerdict.OWN
            first, last = self._rules.session_ports
            if first <= port <= last and self._has_sessions(host):
                return TargetVerdict.ALLOWED
        if _is_in(host, self._allowed):
            return TargetVerdict.ALLOWED
        if is_own:
            return TargetVerdict.OWN
        return TargetVerdict.SPECIAL if _is_in(host, _SPECIAL) else TargetVerdict.ALLOWED

    def _has_sessions(self, own: _Host) -> bool:
        return own in self._rules.session_hosts or not _is_in(own, _SPECIAL)


def _is_in(host: _Host, networks: Sequence[_Network]) -> bool:
    return any(host in network for network in networks)


def _forms(host: _Host) -> list[_Host]:
    """Return the address and the IPv4 address that it leads to, if there is one in it."""
    forms: list[_Host] = [host]
    if isinstance(host, IPv6Address):
        if host in _NAT64:
            forms.append(IPv4Address(int(host) & 0xFFFF_FFFF))
        elif host.sixtofour is not None:
            forms.append(host.sixtofour)
    return forms
