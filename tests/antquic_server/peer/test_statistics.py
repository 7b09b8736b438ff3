"""Figures of an endpoint."""

import json

from antquic_server.peer.statistics import Tallies
from support.virtual_network import VirtualNetwork


def test_tallies_start_at_nothing() -> None:
    """And no two endpoints share a counter."""
    one, other = Tallies(), Tallies()
    one.drops["x"] += 1

    assert other.drops == {}
    assert one.bytes_sent == 0


def test_a_snapshot_is_fit_for_json() -> None:
    """With the names the issue and ant-quic use."""
    network = VirtualNetwork()
    network.add_node()
    plain = network.add_host().core.statistics().as_dict()

    assert json.loads(json.dumps(plain)) == plain
    assert {
        "active_connections",
        "bytes_sent",
        "bytes_received",
        "successful_hole_punches",
        "failed_hole_punches",
        "coordination_rejections",
        "average_coordination_s",
        "nat_mapping",
        "nat_port_step",
        "path_mtu_bytes",
    } <= plain.keys()
