"""Planted: rules that keep strangers out, rules that cannot be read."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from antquic_server.config.model import EndpointSettings, Settings
from antquic_server.doctor.finding import Verdict
from support.planted_machine import findings, healthy_case, not_ok, planted

TABLE = {"family": "inet", "table": "filter"}


def _nft(*rules: list[dict[str, Any]], policy: str = "drop") -> str:
    items: list[dict[str, Any]] = [{"chain": {**TABLE, "name": "input", "hook": "input", "policy": policy}}]
    items += [{"rule": {**TABLE, "chain": "input", "expr": rule}} for rule in rules]
    return json.dumps({"nftables": items})


def _accept(ports: object) -> list[dict[str, Any]]:
    left = {"payload": {"protocol": "udp", "field": "dport"}}
    return [{"match": {"op": "==", "left": left, "right": ports}}, {"accept": None}]


def test_a_closed_firewall_is_found(tmp_path: Path) -> None:
    """Both ports and range, with the line that opens each."""
    case = healthy_case(tmp_path)
    planted(case).commands["nft"] = _nft()

    assert not_ok(case) == {"firewall-listen": Verdict.FAULT, "firewall-relay": Verdict.FAULT}
    found = findings(case)
    assert "policy drop of chain inet filter input" in found["firewall-listen"].found
    assert found["firewall-listen"].fixes[0] == "nft insert rule inet filter input udp dport 10000 accept"
    assert found["firewall-relay"].fixes[0] == "nft insert rule inet filter input udp dport 49152-65535 accept"


def test_a_firewall_that_forgets_the_relay_is_found(tmp_path: Path) -> None:
    """Or lets in only a part of its range."""
    case = healthy_case(tmp_path)
    planted(case).commands["nft"] = _nft(_accept(10_000), _accept({"range": [49_152, 50_000]}))

    assert not_ok(case) == {"firewall-relay": Verdict.FAULT}


def test_an_open_firewall_is_left_in_peace(tmp_path: Path) -> None:
    """Whether by rule or by policy."""
    case = healthy_case(tmp_path)
    planted(case).commands["nft"] = _nft(_accept({"set": [10_000, {"range": [49_152, 65_535]}]}))
    assert not_ok(case) == {}
    planted(case).commands["nft"] = _nft(policy="accept")
    assert not_ok(case) == {}


def test_a_firewall_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    """With the way to find out from outside; never taken for open."""
    case = healthy_case(tmp_path)
    del planted(case).commands["nft"]

    finding = findings(case)["firewall-listen"]
    assert not finding.known
    assert "nft: not installed" in finding.found
    assert "antquic-server doctor --reach HOST:10000" in finding.fixes[1]


def test_rules_that_depend_on_the_sender_are_told(tmp_path: Path) -> None:
    """They may be meant so."""
    case = healthy_case(tmp_path)
    sender = {"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "saddr"}}, "right": "192.0.2.1"}}
    planted(case).commands["nft"] = _nft([sender, {"drop": None}], policy="accept")

    assert not findings(case)["firewall-listen"].known
    assert "may be closed" in findings(case)["firewall-listen"].found


def test_old_iptables_are_told(tmp_path: Path) -> None:
    """Their rules do not show in nft."""
    case = healthy_case(tmp_path)
    planted(case).plant("/proc/net/ip_tables_names", "filter\nnat\n")

    assert "iptables-legacy has rules (filter, nat)" in findings(case)["firewall-listen"].found


def test_a_port_that_is_not_chosen_yet_cannot_be_told(tmp_path: Path) -> None:
    """Port 0 takes a free one."""
    settings = Settings(endpoint=EndpointSettings(listen=("0.0.0.0:0",)))

    assert not findings(replace(healthy_case(tmp_path), settings=settings))["firewall-listen"].known
