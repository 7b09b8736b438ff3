"""
What a set of nftables rules does with the first datagram of a stranger to a UDP port.

The rules are those of ``nft -j list ruleset`` (libnftables-json (5)). A match is true, false or not decidable: a rule
about the sender's address holds for some strangers and not for others. A rule of which anything is not decidable leaves
both outcomes open; so does what is not understood. The answer is then that it cannot be told, never a guess.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from antquic_server.errors import CannotTellError

__all__ = ["Decision", "Outcome", "Ruleset"]

MAX_JUMPS: Final = 16
"""As many nested ones as the kernel allows."""

Expression = Mapping[str, Any]

_IGNORED = frozenset(("counter", "log", "comment", "notrack", "mangle", "set", "meter", "ct helper", "quota"))
"""Statements that decide nothing."""


class Outcome(StrEnum):
    """What becomes of the datagram."""

    ACCEPTED = "accepted"
    DROPPED = "dropped"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The outcome, and where it is decided: ``inet filter input`` for a chain, with what decides it."""

    outcome: Outcome
    chain: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chain:
    family: str
    table: str
    name: str
    hook: str
    policy: str
    rules: list[Sequence[Expression]]

    @property
    def title(self) -> str:
        return f"{self.family} {self.table} {self.name}"


_ANOTHER_PROTOCOL: Final = "(another protocol)"
_SOME_INTERFACE: Final = "(the interface to the world)"
"""Whatever its name, it is not that of loopback."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Datagram:
    """A stranger's first datagram: over UDP, to a port, by an interface (empty: not known), not tracked yet."""

    port: int
    interface: str
    known: dict[str, set[Outcome | None]] = field(default_factory=dict)
    """What becomes of it in the chains that were followed already, by title: many may lead to one."""

    def value(self, left: object) -> str | int | None:
        """Return what an expression yields for it; None where that is not known, as for the sender's address."""
        if not isinstance(left, Mapping):
            return None
        payload, meta, tracking = left.get("payload"), left.get("meta"), left.get("ct")
        if isinstance(payload, Mapping):
            protocol, field = payload.get("protocol"), payload.get("field")
            if protocol in ("udp", "th") and field == "dport":
                return self.port
            if protocol in ("tcp", "icmp", "icmpv6", "sctp", "dccp"):
                return _ANOTHER_PROTOCOL
            return "udp" if field in ("protocol", "nexthdr") else None
        if isinstance(meta, Mapping):
            interface = self.interface or _SOME_INTERFACE
            return {"l4proto": "udp", "iifname": interface, "iif": interface}.get(str(meta.get("key")))
        if isinstance(tracking, Mapping):
            return {"state": "new", "status": "(none)"}.get(str(tracking.get("key")))
        return None


class Ruleset:
    """Parsed rules; raises CannotTellError for text that is not what nft prints."""

    def __init__(self, text: str) -> None:
        try:
            items = json.loads(text)["nftables"]
            self._chains = _chains(items)
            self._sets = {
                (item["set"]["family"], item["set"]["table"], item["set"]["name"]): item["set"].get("elem", [])
                for item in items
                if "set" in item
            }
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise CannotTellError("nft", "its answer is not understood") from None

    def first_datagram(self, port: int, interface: str = "") -> list[Decision]:
        """
        Return what each base chain on the way in does with it, the worst first; an empty list where there is none.

        Chains of the hooks ``prerouting`` and ``input`` of the families ip, ip6 and inet are asked, all of which must
        let a datagram pass. ``interface`` is the one it comes in by; empty if that is not known.
        """
        datagram = _Datagram(port=port, interface=interface)
        decisions = [
            self._of_chain(chain, datagram)
            for chain in self._chains.values()
            if chain.hook in ("prerouting", "input") and chain.family in ("ip", "ip6", "inet")
        ]
        order = [Outcome.DROPPED, Outcome.UNDECIDED, Outcome.ACCEPTED]
        return sorted(decisions, key=lambda decision: order.index(decision.outcome))

    def _of_chain(self, chain: _Chain, datagram: _Datagram) -> Decision:
        policy = Outcome.DROPPED if chain.policy == "drop" else Outcome.ACCEPTED
        by_rules = self._possible(chain, datagram, 0)
        possible = {policy if outcome is None else outcome for outcome in by_rules}
        if len(possible) > 1:
            reason = "rules that depend on the sender, or are not understood"
            return Decision(outcome=Outcome.UNDECIDED, chain=chain.title, reason=reason)
        reason = f"policy {chain.policy}" if by_rules == {None} else "a rule"
        return Decision(outcome=possible.pop(), chain=chain.title, reason=reason)

    def _possible(self, chain: _Chain, datagram: _Datagram, depth: int) -> set[Outcome | None]:
        """Return everything that may become of the datagram in a chain; None stands for reaching its end."""
        possible: set[Outcome | None] = set()
        for rule in chain.rules:
            certain, verdict = self._match(chain, rule, datagram)
            if verdict is None:
                continue
            outcomes, ends = self._outcomes(chain, verdict, datagram, depth)
            possible |= outcomes
            if certain and ends:
                return possible
        return possible | {None}

    def _outcomes(
        self, chain: _Chain, verdict: Expression, datagram: _Datagram, depth: int
    ) -> tuple[set[Outcome | None], bool]:
        """Outcomes of a verdict, and whether the chain ends with it."""
        ((kind, body),) = verdict.items()
        if kind == "accept":
            return {Outcome.ACCEPTED}, True
        if kind in ("drop", "reject"):
            return {Outcome.DROPPED}, True
        if kind == "return":
            return {None}, True
        if kind == "continue":
            return set(), False
        target = self._chains.get((chain.family, chain.table, str(body.get("target")) if body else ""))
        if kind not in ("jump", "goto") or target is None or depth >= MAX_JUMPS:
            return {Outcome.UNDECIDED}, True
        if target.title not in datagram.known:
            datagram.known[target.title] = self._possible(target, datagram, depth + 1)
        below = datagram.known[target.title]
        if kind == "goto" or None not in below:
            return below, True
        return below - {None}, False

    def _match(self, chain: _Chain, rule: Sequence[Expression], datagram: _Datagram) -> tuple[bool, Expression | None]:
        """Whether a rule certainly applies, and its verdict; the verdict is None if it does not apply or has none."""
        certain = True
        for expression in rule:
            ((kind, body),) = expression.items() if len(expression) == 1 else (("?", {}),)
            if kind == "match":
                held = self._holds(chain, body, datagram)
                if held is False:
                    return True, None
                certain = certain and held is True
            elif kind == "vmap":
                found = _look_up(body, datagram)
                if found is None:
                    return True, None
                return (certain, found) if found else (False, {"?": None})
            elif kind in ("accept", "drop", "reject", "return", "jump", "goto", "queue"):
                return certain, expression
            elif kind not in _IGNORED:
                certain = False
        return certain, None

    def _holds(self, chain: _Chain, match: Expression, datagram: _Datagram) -> bool | None:
        """Whether a match is true of the datagram, None if that is not decidable."""
        value = datagram.value(match.get("left"))
        if value is None:
            return None
        members = self._members(chain, match.get("right"))
        found = None if members is None else _contains(members, value)
        if found is None:
            return None
        return not found if match.get("op") == "!=" else found if match.get("op") in ("==", "in") else None

    def _members(self, chain: _Chain, right: object) -> list[object] | None:
        if isinstance(right, str) and right.startswith("@"):
            return self._sets.get((chain.family, chain.table, right[1:]))
        if isinstance(right, Mapping) and "set" in right:
            right = right["set"]
        return list(right) if isinstance(right, list) else [right]


def _chains(items: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str, str], _Chain]:
    chains = {}
    for item in items:
        if "chain" in item:
            body = item["chain"]
            chains[body["family"], body["table"], body["name"]] = _Chain(
                family=body["family"],
                table=body["table"],
                name=body["name"],
                hook=body.get("hook", ""),
                policy=body.get("policy", "accept"),
                rules=[],
            )
    for item in items:
        if "rule" in item:
            body = item["rule"]
            chains[body["family"], body["table"], body["chain"]].rules.append(body.get("expr", []))
    return chains


def _look_up(vmap: Expression, datagram: _Datagram) -> Expression | None:
    """The verdict that a map has for the datagram, None if it has none, an empty one if not decidable."""
    value, data = datagram.value(vmap.get("key")), vmap.get("data")
    if value is None or not isinstance(data, Mapping):
        return {}
    for key, verdict in data.get("set", []):
        found = _contains([key], value)
        if found is None:
            return {}
        if found:
            return dict(verdict)
    return None


def _contains(members: Sequence[object], value: str | int) -> bool | None:
    """Whether one of the members is, or has, the value; None if a member is not understood."""
    unknown = False
    for member in members:
        if isinstance(member, Mapping) and "range" in member and isinstance(value, int):
            first, last = member["range"]
            if first <= value <= last:
                return True
        elif isinstance(member, str | int):
            if member == value or (value == "udp" and member == 17):
                return True
            unknown = unknown or (value == _SOME_INTERFACE and member != "lo")
            if isinstance(member, str) and member.endswith("*") and str(value).startswith(member[:-1]):
                return True
        else:
            unknown = True
    return None if unknown else False
