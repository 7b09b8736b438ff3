"""However many peers come, Prometheus has the same series: none names a peer, an address or a word of theirs."""

import asyncio
import logging
import re
from collections.abc import Iterator

import pytest
import structlog
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from antquic_server.stats.counters import METRICS
from antquic_server.stats.prometheus import SUPERVISOR, metric_name
from support.crowd import Crowd, crowd

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow]

FIRST = 500
"""Peers after which everything has happened that ever will."""
PEERS = 10_000
TIMEOUT_S = 300.0
"""It takes ten seconds of a core that has nothing else to do."""
BY_NAME = {metric_name(name): metric for name, metric in METRICS.items()}


def families(page: str) -> Iterator[Metric]:
    """Return every family of a page."""
    return iter(text_string_to_metric_families(page))


def series(page: str) -> set[tuple[str, ...]]:
    """Return every series: its name and all labels."""
    return {
        (sample.name, *(f"{label}={value}" for label, value in sorted(sample.labels.items())))
        for family in families(page)
        for sample in family.samples
    }


def value(page: str, name: str) -> float:
    """Return a metric, added up."""
    return sum(sample.value for family in families(page) for sample in family.samples if sample.name == name)


def check_labels(page: str, here: Crowd) -> None:
    """Walk every label of every series: its values are those that are declared."""
    for family in families(page):
        metric = BY_NAME[family.name]
        allowed = dict(zip(metric.labels, metric.values, strict=True))
        for sample in family.samples:
            labels = dict(sample.labels)
            assert labels.pop("worker") in (SUPERVISOR, "0")
            if metric.kind == "histogram":
                assert labels.pop("le", metric.bounds[0]) in metric.bounds
            assert labels.keys() == allowed.keys(), sample
            assert all(labels[label] in allowed[label] for label in labels), sample
    assert not re.search(r'="[^"]*[0-9a-f]{16}', page)
    assert not [host for host in here.hosts if f'"{host}' in page or f"={host}" in page]


@pytest.fixture
def only_errors_are_logged() -> Iterator[None]:
    """A line for everything that ten thousand peers do would be most of the work."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    yield
    structlog.configure(**before)


def test_series_stay_the_same_over_ten_thousand_peers(
    only_errors_are_logged: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ten thousand ids and addresses go through worker, channel, hub and directory, and say what peers can say."""

    async def story() -> None:
        async with crowd() as here:
            await here.come(FIRST)
            early = here.status.metrics().decode()
            await here.come(PEERS - FIRST)
            late = here.status.metrics().decode()
            assert len(set(here.peer_ids)) == len(set(here.hosts)) == PEERS

        assert value(early, "antquic_handshakes_total") == FIRST
        assert value(late, "antquic_handshakes_total") == PEERS
        assert value(late, "antquic_handshake_duration_seconds_count") == PEERS
        assert value(late, "antquic_introductions_total") > PEERS / 2
        assert value(late, "antquic_punch_reports_total") > 0.9 * PEERS
        assert value(late, "antquic_connections_closed_total") > PEERS / 2
        assert value(late, "antquic_relay_refusals_total") > PEERS / 2
        assert series(late) - series(early) == set()
        assert series(early) == series(late)
        check_labels(late, here)

    asyncio.run(asyncio.wait_for(story(), TIMEOUT_S))
    assert "fault of ours" not in capsys.readouterr().out
