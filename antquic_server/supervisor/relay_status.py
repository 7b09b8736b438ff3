"""
What the relay is doing, for those who ask the admin endpoint.

The part ``relay`` of ``/status``; what has a mode is given for each, ``channel`` and ``stream``::

    enabled, draining        whether sessions are given out
    sessions                 by mode, those included that are about to begin or to end; peers that have any
    delivered                by mode: bytes, datagrams
    introductions            pairs of peers that were given addresses: direct, or relayed
    refusals                 by mode and reason
    canary                   by mode: round trips of test traffic by result, and latency_s of the last one
    quota                    bytes of this quota period, peers that have used any, seconds until the next begins
    limits                   the settings of ``[relay]`` that are in force
"""

from collections.abc import Mapping
from dataclasses import fields

from antquic_server.protocol.relay_limits import RelayMode
from antquic_server.stats.counters import SEPARATOR
from antquic_server.supervisor.relay_quotas import RelayQuotas

__all__ = ["relay_document"]


def relay_document(quotas: RelayQuotas, totals: Mapping[str, float], now_s: float) -> dict[str, object]:
    """Return the document; ``totals`` are the counters of the whole node."""
    limits = quotas.settings
    # First, since a period that is over ends only when somebody looks.
    ends_in_s = quotas.bytes.ends_in_s(now_s)
    values = {item.name: getattr(limits, item.name) for item in fields(limits)}
    return {
        "enabled": limits.enabled,
        "draining": quotas.draining,
        "sessions": {str(mode): quotas.count(mode) for mode in RelayMode} | {"peers": quotas.peers},
        "delivered": {
            str(mode): {
                "bytes": totals.get(f"relay_bytes|{mode}", 0),
                "datagrams": totals.get(f"relay_datagrams|{mode}", 0),
            }
            for mode in RelayMode
        },
        "introductions": _below(totals, "introductions"),
        "refusals": {str(mode): _below(totals, "relay_refusals", mode) for mode in RelayMode},
        "canary": {
            str(mode): _below(totals, "relay_canaries", mode)
            | {"latency_s": totals.get(f"relay_canary_latency_s|{mode}")}
            for mode in RelayMode
        },
        "quota": {
            "used_bytes": quotas.bytes.node_bytes,
            "peers": quotas.bytes.peers,
            "ends_in_s": round(ends_in_s, 3),
        },
        "limits": {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()},
    }


def _below(totals: Mapping[str, float], *labels: str) -> dict[str, float | None]:
    """The series of a metric by their last label, the others given."""
    start = SEPARATOR.join((*labels, ""))
    return {key.removeprefix(start): value for key, value in totals.items() if key.startswith(start)}
