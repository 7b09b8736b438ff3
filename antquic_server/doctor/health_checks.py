"""How does the node do that is running here?"""

from collections.abc import Mapping

from antquic_server.doctor.case import Case, Check, Topic
from antquic_server.doctor.finding import Finding, cannot_tell, fault, note, ok, warning
from antquic_server.doctor.remedies import setting

__all__ = ["CHECKS"]

LAG_S = 0.05
"""A tenth of this is usual under load; twice this is noticed by people."""

MANY_CANARIES_LOST = 0.01

LOG = "journalctl -u antquic-server -p warning   # why"


def node_health(case: Case) -> Finding:
    """Ask the node whether every slot is served."""
    if (missing := _no_node(case)) is not None:
        return missing
    assert case.status is not None
    node = _table(case.status, "node")
    if node.get("draining") is True:
        return note("it is draining: serves its connections and takes no others")
    workers = case.status.get("workers")
    rows = [row for row in workers if isinstance(row, dict)] if isinstance(workers, list) else []
    idle = [str(row.get("slot")) for row in rows if row.get("state") != "ready"]
    if node.get("healthy") is not True:
        return fault(f"slots without a worker: {', '.join(idle) or 'not said'}", LOG)
    if node.get("steered") is False and len(rows) > 1:
        return warning(
            "it has no packet filter: workers hand datagrams to each other", "antquic-server doctor steering"
        )
    return ok(f"every slot is served, for {_number(node.get('uptime_s')):,.0f} s")


def node_restarts(case: Case) -> Finding:
    """Ask the node how often workers had to be replaced."""
    if (missing := _no_node(case)) is not None:
        return missing
    assert case.status is not None
    totals, uptime_s = _table(case.status, "totals"), _number(_table(case.status, "node").get("uptime_s"))
    reasons = {
        key.partition("|")[2]: int(_number(value))
        for key, value in totals.items()
        if key.startswith("worker_restarts|") and _number(value) > 0
    }
    if not reasons:
        return ok("no worker had to be replaced")
    listed = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
    return warning(f"workers replaced in {uptime_s / 3600:,.1f} hours: {listed}", LOG)


def node_lag(case: Case) -> Finding:
    """Ask the node how late its event loops are."""
    if (missing := _no_node(case)) is not None:
        return missing
    assert case.status is not None
    workers = case.status.get("workers")
    rows = [row for row in workers if isinstance(row, dict)] if isinstance(workers, list) else []
    lags = [_number(row.get("loop_lag_s")) for row in rows] + [_number(_table(case.status, "totals").get("loop_lag_s"))]
    worst = max(lags)
    found = f"the event loops are up to {worst * 1000:.1f} ms late"
    if worst > LAG_S:
        return warning(
            found, "antquic-server status   # which worker, and what it does", setting("endpoint.workers", 0)
        )
    return ok(found)


def relay_canary(case: Case) -> Finding:
    """Ask the node whether the bytes it sends itself through its relay come back."""
    if (missing := _no_node(case)) is not None:
        return missing
    assert case.status is not None
    relay = _table(case.status, "relay")
    if relay.get("enabled") is not True:
        return ok("the relay is off")
    lost: dict[str, int] = {}
    total = 0
    for mode, results in _table(relay, "canary").items():
        for result, count in results.items() if isinstance(results, dict) else ():
            if result == "latency_s":
                continue
            total += int(_number(count))
            if result != "ok" and _number(count) > 0:
                lost[f"{mode} {result}"] = int(_number(count))
    if not total:
        return note("no canary has come back yet, or relay.canary_interval_s is 0")
    listed = ", ".join(f"{count} {what}" for what, count in sorted(lost.items()))
    found = f"{sum(lost.values()):,} of {total:,} canaries were lost{f': {listed}' if listed else ''}"
    if sum(lost.values()) > MANY_CANARIES_LOST * total:
        return fault(found, LOG, "antquic-server doctor firewall-relay relay-ports file-descriptors")
    return ok(found)


def _no_node(case: Case) -> Finding | None:
    """What to say where no node answers; None where one does."""
    if case.status is not None:
        return None
    if case.admin_given or case.node_pid is not None:
        fix = "antquic-server status   # --admin with the URL that the node's ready line names"
        return fault(case.status_error, fix) if case.admin_given else note(case.status_error, fix)
    return cannot_tell("no node is running here")


def _table(document: Mapping[str, object], name: str) -> dict[str, object]:
    value = document.get(name)
    return value if isinstance(value, dict) else {}


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


CHECKS = (
    Check(
        name="node-health",
        topic=Topic.NODE,
        looks_at="/status of the running node: whether every slot is served",
        why="the kernel goes on steering datagrams to a slot without a worker; its peers wait",
        examine=node_health,
    ),
    Check(
        name="node-restarts",
        topic=Topic.NODE,
        looks_at="/status of the running node: workers that were replaced, by reason",
        why="a worker that ends takes its connections along; its peers reconnect",
        effect="a killed worker's clients are served again within 0.5 to 1.5 s (tests/end_to_end/test_crash.py)",
        examine=node_restarts,
    ),
    Check(
        name="node-lag",
        topic=Topic.NODE,
        looks_at="/status of the running node: how late its event loops are",
        why="every datagram waits that long; a loop that is heartbeat_timeout_s late is replaced",
        examine=node_lag,
    ),
    Check(
        name="relay-canary",
        topic=Topic.NODE,
        looks_at="/status of the running node: test traffic that its relay did not deliver",
        why="sessions can be open and forward nothing; only bytes that come back prove that it works",
        examine=relay_canary,
    ),
)
"""In the order in which they are shown."""
