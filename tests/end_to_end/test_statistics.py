"""What a node says of itself over its life: hole punches of real peers, histograms over a lost worker, log lines."""

import json
import os
import signal
from typing import Any

import pytest

from antquic_server.peer.endpoint import Endpoint
from antquic_server.protocol.address_discovery import Mapping
from antquic_server.protocol.punch_report import PunchReport, encode_punch_report
from support.load import UNLIMITED_RATES, ask, peers_of, run_clients, wait_healthy
from support.node import Node, StartNode
from support.peers import loopback, run
from support.waiting import wait_for_value, wait_until

pytestmark = pytest.mark.end_to_end

SETTLE_TIMEOUT_S = 20.0
MET = 'antquic_hole_punches_total{initiator_nat="unknown",result="successful",target_nat="unknown"}'
DURATIONS = 'antquic_handshake_duration_seconds_bucket{le="+Inf",profile="ant_quic"}'
PEERS = 4


def lines(node: Node) -> list[dict[str, Any]]:
    """Return the statistics lines of the log so far."""
    whole = (json.loads(line) for line in node.log().splitlines() if line.startswith("{"))
    return [line for line in whole if line["event"] == "statistics"]


def cumulative(node: Node) -> dict[str, float]:
    """Return every series of the page that must never fall, worker by worker."""
    page = node.get("/metrics")[1].decode()
    rows = (row.rpartition(" ") for row in page.splitlines() if not row.startswith("#"))
    kinds = ("_total{", "_bucket{", "_count{", "_sum{")
    return {name: float(value) for name, _, value in rows if any(kind in name for kind in kinds)}


def test_hole_punch_of_two_peers_is_counted_once(start_node: StartNode) -> None:
    """Both report it; page, status and the last line of the log agree, and the line of each interval has the rates."""
    node = start_node(workers=2, settings=[*UNLIMITED_RATES, "log.stats_interval_s=0.5"])

    async def story() -> None:
        async with (
            Endpoint(loopback(known_peers=(node.address,))) as one,
            Endpoint(loopback(known_peers=(node.address,))) as other,
        ):
            await ask(wait_until, lambda: node.peer(other.peer_id.hex()), timeout_s=10.0, what="directory entry")
            connection = await one.connect_peer(other.peer_id)
            assert connection.path == "punched"
            await ask(wait_for_value, lambda: node.metrics()[MET], 1.0, timeout_s=SETTLE_TIMEOUT_S, what="hole punches")
            reports = 'antquic_punch_reports_total{outcome="counted"}'
            await ask(wait_for_value, lambda: node.metrics()[reports], 2.0, timeout_s=SETTLE_TIMEOUT_S, what="reports")
            assert (await ask(node.status))["punches"] == {
                "successful": 1,
                "failed": 0,
                "unknown": 0,
                "by_nat_pair": [{"initiator": "unknown", "target": "unknown", "successful": 1, "failed": 0}],
            }
            said = await ask(
                wait_until,
                lambda: [line for line in lines(node) if line["successful_hole_punches"] and line["handshakes"] >= 2],
                timeout_s=SETTLE_TIMEOUT_S,
                what="statistics line",
            )
            assert said[0]["active_connections"] >= 2
            assert said[0]["failed_hole_punches"] == 0
            assert 0 < said[0]["interval_s"] < SETTLE_TIMEOUT_S

    run(story())
    assert any(line["bytes_received_per_s"] > 0 and line["handshakes_per_s"] > 0 for line in lines(node))
    assert not any(line["final"] for line in lines(node))
    assert node.stop() == 0
    last = lines(node)[-1]
    assert last["final"]
    assert last["successful_hole_punches"] == 1
    assert last["bytes_received"] > 0
    assert [line["final"] for line in lines(node)].count(True) == 1


def test_what_a_peer_makes_up_is_not_counted_as_a_hole_punch(start_node: StartNode) -> None:
    """It was introduced to nobody, or says nonsense: both are counted as what they are."""
    node = start_node(settings=[*UNLIMITED_RATES])

    async def story() -> None:
        async with peers_of(node, 2, relay_channels=True) as (liar, other):
            report = PunchReport(other=bytes.fromhex(other.peer_id), succeeded=True, nat_mapping=Mapping.UNKNOWN)
            said = encode_punch_report(report)
            for data in (said, said, said[:-1], said + bytes(100)):
                liar.connection.quic.send_message(data)
                liar.client.flush([liar.connection])
            expected = {"not_introduced": 2.0, "malformed": 2.0}
            await ask(
                wait_for_value,
                lambda: {word: node.metrics()[f'antquic_punch_reports_total{{outcome="{word}"}}'] for word in expected},
                expected,
                timeout_s=SETTLE_TIMEOUT_S,
                what="reports",
            )
            assert (await ask(node.status))["punches"]["successful"] == 0

    run_clients(story(), timeout_s=60)


def test_nothing_falls_when_a_worker_is_lost(start_node: StartNode) -> None:
    """Counters, histograms and CPU time of each slot go on where the dead worker has left them."""
    node = start_node(workers=2, settings=[*UNLIMITED_RATES, "log.stats_interval_s=0"])

    async def visit() -> None:
        async with peers_of(node, PEERS):
            pass

    def handshakes(expected: int) -> None:
        wait_for_value(
            lambda: node.metrics().get(DURATIONS),
            expected,
            timeout_s=SETTLE_TIMEOUT_S,
            what="handshakes in the histogram",
        )

    run_clients(visit(), timeout_s=60)
    handshakes(PEERS)
    before = cumulative(node)
    killed = node.worker_pids
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    wait_healthy(node, besides=killed)

    after = cumulative(node)
    assert {name: (value, after.get(name)) for name, value in before.items() if after.get(name, -1.0) < value} == {}
    run_clients(visit(), timeout_s=60)
    handshakes(2 * PEERS)
    delays = [name for name in after if name.startswith("antquic_loop_delay_seconds_count")]
    assert len(delays) == 2
    assert all(cumulative(node)[name] > before[name] > 0 for name in delays)
    assert lines(node) == []
