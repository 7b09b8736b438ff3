"""Rules of nftables, read for a stranger's first datagram to a UDP port."""

import json
import os
import shutil
import subprocess
from typing import Any

import pytest

from antquic_server.doctor.nft_rules import Outcome, Ruleset
from antquic_server.errors import CannotTellError
from support.require import require

TABLE = {"family": "inet", "table": "filter"}
PORT = 10_000


def _match(left: dict[str, Any], right: object, op: str = "==") -> dict[str, Any]:
    return {"match": {"op": op, "left": left, "right": right}}


def _dport(right: object, op: str = "==", protocol: str = "udp") -> dict[str, Any]:
    return _match({"payload": {"protocol": protocol, "field": "dport"}}, right, op)


def _interface(right: object, op: str = "==") -> dict[str, Any]:
    return _match({"meta": {"key": "iifname"}}, right, op)


ACCEPT, DROP, RETURN = {"accept": None}, {"drop": None}, {"return": None}
SENDER = _match({"payload": {"protocol": "ip", "field": "saddr"}}, "198.51.100.1")
NEW = _match({"ct": {"key": "state"}}, "new", "in")
ESTABLISHED = _match({"ct": {"key": "state"}}, ["established", "related"], "in")
BY_STATE = {
    "vmap": {"key": {"ct": {"key": "state"}}, "data": {"set": [["established", ACCEPT], ["invalid", DROP]]}},
}
BY_PORT = {"vmap": {"key": {"payload": {"protocol": "udp", "field": "dport"}}, "data": {"set": [[PORT, DROP]]}}}
LIMIT = {"limit": {"rate": 10, "per": "second"}}
RANGE = {"set": [53, {"range": [9_000, 11_000]}]}


def _rules(*rules: list[Any], policy: str = "drop", others: dict[str, list[list[Any]]] | None = None) -> Ruleset:
    """A chain on the way in with these rules, and chains to jump to."""
    base = {**TABLE, "name": "input", "type": "filter", "hook": "input", "prio": 0, "policy": policy}
    items: list[dict[str, Any]] = [
        {"metainfo": {"json_schema_version": 1}},
        {"chain": base},
        {"set": {**TABLE, "name": "ports", "elem": [7, {"range": [9_999, 10_001]}]}},
    ]
    chains = {"input": list(rules), **(others or {})}
    for name, content in chains.items():
        if name != "input":
            items.append({"chain": {**TABLE, "name": name}})
        items += [{"rule": {**TABLE, "chain": name, "expr": rule}} for rule in content]
    return Ruleset(json.dumps({"nftables": items}))


A, D, U = Outcome.ACCEPTED, Outcome.DROPPED, Outcome.UNDECIDED


@pytest.mark.parametrize(
    ("rules", "outcome"),
    [
        ([], D),
        ([[_dport(PORT), ACCEPT]], A),
        ([[_dport(PORT), {"counter": {"packets": 0}}, {"log": None}, ACCEPT]], A),
        ([[_dport(PORT + 1), ACCEPT]], D),
        ([[_dport(RANGE), ACCEPT]], A),
        ([[_dport("@ports"), ACCEPT]], A),
        ([[_dport("@unknown"), ACCEPT]], U),
        ([[_dport(PORT, protocol="th"), ACCEPT]], A),
        ([[_dport(PORT, protocol="tcp"), ACCEPT]], D),
        ([[_dport(PORT, "!="), DROP], [ACCEPT]], A),
        ([[_dport(PORT, "<"), ACCEPT]], U),
        ([[_match({"meta": {"key": "l4proto"}}, {"set": ["tcp", "udp"]}), ACCEPT]], A),
        ([[_match({"payload": {"protocol": "ip", "field": "protocol"}}, "udp"), ACCEPT]], A),
        ([[_match({"payload": {"protocol": "ip", "field": "protocol"}}, 17), ACCEPT]], A),
        ([[_match({"meta": {"key": "l4proto"}}, "icmp"), ACCEPT]], D),
        ([[ESTABLISHED, ACCEPT], [NEW, _dport(PORT), ACCEPT]], A),
        ([[ESTABLISHED, ACCEPT]], D),
        ([[_match({"ct": {"key": "status"}}, "dnat", "in"), ACCEPT]], D),
        ([[BY_STATE], [_dport(PORT), ACCEPT]], A),
        ([[BY_PORT], [ACCEPT]], D),
        ([[{"vmap": {"key": {"meta": {"key": "mark"}}, "data": {"set": [[1, ACCEPT]]}}}]], U),
        ([[_interface("lo"), ACCEPT]], D),
        ([[_interface("eth0"), ACCEPT]], A),
        ([[_interface("eth*"), ACCEPT]], A),
        ([[_interface("lo", "!="), DROP], [ACCEPT]], D),
        ([[SENDER, DROP], [_dport(PORT), ACCEPT]], U),
        ([[SENDER, DROP]], D),
        ([[SENDER, ACCEPT], [_dport(PORT), ACCEPT]], A),
        ([[LIMIT, ACCEPT]], U),
        ([[{"queue": {"num": 0}}]], U),
        ([[{"reject": {"type": "icmpx"}}], [_dport(PORT), ACCEPT]], D),
        ([[{"xt": {"type": "match", "name": "recent"}}, DROP], [ACCEPT]], U),
        ([[RETURN], [ACCEPT]], D),
        ([[{"continue": None}], [ACCEPT]], A),
    ],
)
def test_rules_are_followed(rules: list[list[Any]], outcome: Outcome) -> None:
    """In a chain that drops what no rule lets in."""
    (decision,) = _rules(*rules).first_datagram(PORT, "eth0")

    assert decision.outcome is outcome
    assert decision.chain == "inet filter input"


@pytest.mark.parametrize(
    ("verb", "below", "outcome"),
    [
        ("jump", [[_dport(PORT), ACCEPT]], A),
        ("jump", [], D),
        ("jump", [[RETURN], [ACCEPT]], D),
        ("jump", [[DROP]], D),
        ("jump", [[SENDER, ACCEPT]], U),
        ("goto", [], D),
        ("goto", [[_dport(PORT), ACCEPT]], A),
    ],
)
def test_other_chains_are_followed(verb: str, below: list[list[Any]], outcome: Outcome) -> None:
    """Into them and back."""
    (decision,) = _rules([{verb: {"target": "mine"}}], others={"mine": below}).first_datagram(PORT)

    assert decision.outcome is outcome


def test_chains_that_lead_to_each_other_end_somewhere() -> None:
    """The kernel refuses them; a file of somebody else's may have them."""
    loop = {"a": [[{"jump": {"target": "b"}}]], "b": [[{"jump": {"target": "a"}}]]}
    (decision,) = _rules([{"jump": {"target": "a"}}], others=loop).first_datagram(PORT)

    assert decision.outcome is U


def test_chains_to_which_many_lead_are_followed_once() -> None:
    """Fifteen levels with eight ways from each to the next are 8^15 ways."""
    levels = {f"l{level}": [[{"jump": {"target": f"l{level + 1}"}}]] * 8 for level in range(14)}
    ways = _rules([{"jump": {"target": "l0"}}], others={**levels, "l14": [[_dport(PORT), ACCEPT]]})

    assert ways.first_datagram(PORT)[0].outcome is A
    assert ways.first_datagram(PORT + 1)[0].outcome is D


def test_an_unknown_interface_leaves_it_open() -> None:
    """It may be the one that is let in; but it is not loopback."""
    (decision,) = _rules([_interface("eth0"), ACCEPT]).first_datagram(PORT, "")
    assert decision.outcome is U

    (decision,) = _rules([_interface("lo"), ACCEPT]).first_datagram(PORT, "")
    assert decision.outcome is D
    (decision,) = _rules([_interface("lo", "!="), DROP], [ACCEPT]).first_datagram(PORT, "")
    assert decision.outcome is D


def test_every_chain_on_the_way_in_has_its_say() -> None:
    """The worst comes first; chains of other hooks and families do not count."""
    chains = [
        {**TABLE, "name": "open", "hook": "input", "policy": "accept"},
        {**TABLE, "name": "closed", "hook": "input", "policy": "drop"},
        {**TABLE, "name": "early", "hook": "prerouting", "policy": "accept"},
        {**TABLE, "name": "through", "hook": "forward", "policy": "drop"},
        {**TABLE, "family": "bridge", "name": "bridged", "hook": "input", "policy": "drop"},
    ]
    rules = Ruleset(json.dumps({"nftables": [{"chain": chain} for chain in chains]}))

    assert [decision.chain.split()[-1] for decision in rules.first_datagram(PORT)] == ["closed", "open", "early"]


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"nftables": 3}', '{"nftables": [{"rule": {}}]}', "[" * 5000])
def test_an_answer_that_is_not_understood_cannot_be_told(text: str) -> None:
    """Rather than taken for no rules."""
    with pytest.raises(CannotTellError, match="not understood"):
        Ruleset(text)


REAL_RULES = """
table inet filter {
    set ports { type inet_service; flags interval; elements = { 1000-2000, 7 } }
    chain mine { udp dport 5555 counter accept; }
    chain input {
        type filter hook input priority 0; policy drop;
        ct state vmap { established : accept, related : accept, invalid : drop };
        iifname "lo" accept
        udp dport { 443, 49152-65535 } accept
        udp dport @ports accept
        ct state new udp dport 77 accept
        ip saddr 10.0.0.0/8 udp dport 53 accept
        jump mine
        reject
    }
}
"""


@pytest.mark.parametrize(
    ("port", "outcome"), [(443, A), (50_000, A), (1500, A), (77, A), (5555, A), (53, U), (10_000, D)]
)
def test_what_nft_prints_is_understood(port: int, outcome: Outcome) -> None:
    """Rules that the kernel has taken, in a network namespace that ends with the process."""
    require(os.geteuid() == 0 and shutil.which("nft") and shutil.which("unshare"), "needs root, nft and unshare")
    command = ["unshare", "--net", "sh", "-c", "nft -f - && nft -j list ruleset"]
    printed = subprocess.run(command, input=REAL_RULES, capture_output=True, text=True, check=True).stdout

    (decision,) = Ruleset(printed).first_datagram(port, "eth0")
    assert decision.outcome is outcome
