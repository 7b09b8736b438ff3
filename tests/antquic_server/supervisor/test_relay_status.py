"""Tests of what the node says about its relay."""

import json
from dataclasses import fields

from antquic_server.config.model import RelaySettings
from antquic_server.protocol.relay_limits import RelayMode
from antquic_server.supervisor.relay_quotas import RelayQuotas, RelaySession
from antquic_server.supervisor.relay_status import relay_document
from support.coordination import ALICE, BOB


def test_relay_that_has_done_nothing_says_so() -> None:
    """Every part is there, and all of it fits JSON."""
    document = relay_document(RelayQuotas(RelaySettings(), 100.0), {}, 100.0)

    limits = document.pop("limits")
    assert isinstance(limits, dict)
    assert list(limits) == [item.name for item in fields(RelaySettings)]
    assert limits["port_range"] == [49152, 65535]
    assert document == {
        "enabled": True,
        "draining": False,
        "sessions": {"channel": 0, "stream": 0, "peers": 0},
        "delivered": {"channel": {"bytes": 0, "datagrams": 0}, "stream": {"bytes": 0, "datagrams": 0}},
        "introductions": {},
        "refusals": {"channel": {}, "stream": {}},
        "canary": {"channel": {"latency_s": None}, "stream": {"latency_s": None}},
        "quota": {"used_bytes": 0, "peers": 0, "ends_in_s": 86400.0},
    }
    json.dumps(document | {"limits": limits})


def test_figures_come_from_the_sessions_and_the_counters() -> None:
    """What workers deliver is in the totals of the node; sessions and quotas are the hub's."""
    quotas = RelayQuotas(RelaySettings(quota_period_s=50.0), 100.0)
    for number, (mode, peer_id) in enumerate(((RelayMode.CHANNEL, ALICE), (RelayMode.STREAM, BOB))):
        session = quotas.reserve(0, number, mode, peer_id=peer_id, host="192.0.2.1", now_s=100.0)
        assert isinstance(session, RelaySession)
        quotas.use(session, 40, 100.0)
    totals = {
        "relay_bytes|channel": 1000,
        "relay_datagrams|channel": 3,
        "relay_bytes|stream": 7,
        "introductions|direct": 5,
        "introductions|relayed": 2,
        "introductions_limited|target": 9,
        "relay_refusals|stream|no_free_port": 4,
        "relay_refusals|channel|target_silent": 1,
        "relay_canaries|stream|ok": 6,
        "relay_canary_latency_s|stream": 0.002,
    }
    document = relay_document(quotas, totals, 110.0)

    assert document["sessions"] == {"channel": 1, "stream": 1, "peers": 2}
    assert document["delivered"] == {
        "channel": {"bytes": 1000, "datagrams": 3},
        "stream": {"bytes": 7, "datagrams": 0},
    }
    assert document["introductions"] == {"direct": 5, "relayed": 2}
    assert document["refusals"] == {"channel": {"target_silent": 1}, "stream": {"no_free_port": 4}}
    assert document["canary"] == {"channel": {"latency_s": None}, "stream": {"ok": 6, "latency_s": 0.002}}
    assert document["quota"] == {"used_bytes": 80, "peers": 2, "ends_in_s": 40.0}
