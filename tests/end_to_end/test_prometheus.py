"""Debian's Prometheus scrapes real nodes, promtool accepts what we ship, and rules and dashboard name what there is."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from antquic_server.bench.load_client import ClientSettings
from antquic_server.protocol.codepoints import NamedGroup
from antquic_server.protocol.profiles import HandshakeProfile
from antquic_server.stats.counters import METRICS
from antquic_server.stats.prometheus import family_name
from support.load import HANDSHAKE_TIMEOUT_S, WatchedClient, client_pool, node_port, peers_of, run_clients, until
from support.node import REPOSITORY, Node, running_node
from support.prometheus import MONITORING, Prometheus, exposition, promtool, running_prometheus
from support.waiting import wait_until

pytestmark = pytest.mark.end_to_end

WORKERS = 2
PEERS = 3
SCRAPED_TIMEOUT_S = 30.0
RULES = MONITORING / "antquic-server.rules.yml"
RULE_TESTS = MONITORING / "antquic-server.rules.test.yml"
DASHBOARD = MONITORING / "grafana-dashboard.json"
GUIDE = REPOSITORY / "docs" / "monitoring.md"
OF_PROMETHEUS = {"up": {"job"}}
"""Metrics that Prometheus makes itself, and their labels beside ``instance``."""


@dataclass(frozen=True)
class Scene:
    """A node that has seen a few peers, and the Prometheus that scrapes it."""

    node: Node
    prometheus: Prometheus


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """One for all tests of this module; some peers come before Prometheus does, others while it looks."""
    # A worker whose loop lags asks for a Retry, and its canaries are what an alert is about.
    settings = ['limits.retry="off"', "relay.canary_interval_s=0.5"]
    with (
        running_node(tmp_path_factory.mktemp("node"), workers=WORKERS, settings=settings) as node,
        running_prometheus(tmp_path_factory.mktemp("prometheus"), [node]) as prometheus,
    ):
        run_clients(_visit(node), timeout_s=90)
        wait_until(
            lambda: prometheus.query(
                "sum(antquic_handshakes_total) >= 3 and sum(antquic_handshake_failures_total) >= 1"
            ),
            timeout_s=SCRAPED_TIMEOUT_S,
            what="scraped handshakes",
        )
        # A rate takes two samples of a series, the youngest of which belongs to the failure.
        seen = "count(count_over_time(antquic_handshake_failures_total[1m]) >= 3) >= 1"
        wait_until(lambda: prometheus.query(seen), timeout_s=SCRAPED_TIMEOUT_S, what="samples enough for a rate")
        yield Scene(node, prometheus)


async def _visit(node: Node) -> None:
    async with peers_of(node, PEERS) as peers:
        await peers[0].connection.wait_connected(HANDSHAKE_TIMEOUT_S)
        client = WatchedClient(workers=WORKERS)
        settings = ClientSettings(
            pqc=client_pool(), profile=HandshakeProfile.CLASSICAL, groups=(NamedGroup.X25519,), server_name="localhost"
        )
        refused = client.connect("127.0.0.1", node_port(node), settings)
        await until(refused.closed.is_set, timeout_s=HANDSHAKE_TIMEOUT_S, what="refusal")
        client.close()


def rules() -> list[dict[str, Any]]:
    """Return every alert rule."""
    document = yaml.safe_load(RULES.read_text())
    return [rule for group in document["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    """Return every panel of the dashboard but its headings."""
    document = json.loads(DASHBOARD.read_text())
    return [panel for panel in document["panels"] if panel["type"] != "row"]


def as_shown(expression: str) -> str:
    """Return an expression of the dashboard as Grafana asks for it, for all nodes."""
    return expression.replace("$instance", ".*").replace("$__rate_interval", "1m")


@cache
def dashboard_expressions() -> tuple[str, ...]:
    """Return every expression of the dashboard."""
    document = json.loads(DASHBOARD.read_text())
    shown = [target["expr"] for panel in panels() for target in panel["targets"]]
    noted = [note["expr"] for note in document["annotations"]["list"]]
    return tuple(map(as_shown, shown + noted))


def labels_by_metric() -> dict[str, set[str]]:
    """Return the labels of everything the node exports, by the names that expressions use."""
    found: dict[str, set[str]] = {name: labels | {"instance"} for name, labels in OF_PROMETHEUS.items()}
    for name, metric in METRICS.items():
        labels = {*metric.labels, "worker", "instance", "job"}
        if metric.kind == "histogram":
            found[f"{family_name(name)}_bucket"] = labels | {"le"}
            found |= {f"{family_name(name)}_{part}": labels for part in ("count", "sum")}
        else:
            found[family_name(name)] = labels
    return found


def check_expression(expression: str) -> set[str]:
    """Return the metrics an expression is about, having looked up every one, and every label, and every value."""
    exported = labels_by_metric()
    used = set(re.findall(r"\b(?:antquic_[a-z0-9_]+|up)\b", expression))
    assert used, expression
    assert used <= exported.keys(), used - exported.keys()
    for name, matchers in re.findall(r"\b([a-z][a-z0-9_]+)\{([^}]*)\}", expression):
        for label, operator, value in re.findall(r"(\w+)(=~|!=|!~|=)\"([^\"]*)\"", matchers):
            assert label in exported[name], (name, label)
            words = words_of(name, label)
            assert words is None or set(value.split("|")) <= words, (name, label, operator, value)
    together = set().union(*(exported[name] for name in used))
    for grouped in re.findall(r"\b(?:by|on|without|ignoring)\s*\(([^)]*)\)", expression):
        assert {label.strip() for label in grouped.split(",")} <= together, grouped
    return used


def words_of(name: str, label: str) -> set[str] | None:
    """Return what a label can be, None where that is no list of words."""
    for key, metric in METRICS.items():
        if name.startswith(family_name(key)) and label in metric.labels:
            return set(metric.values[metric.labels.index(label)])
    return None


# What promtool says.


def test_promtool_accepts_the_page(scene: Scene) -> None:
    """Not one complaint about names, units or help texts."""
    assert promtool("check", "metrics", given=exposition(scene.node)) == ""


def test_promtool_accepts_configuration_and_rules() -> None:
    """As they are shipped, beside each other."""
    assert "SUCCESS" in promtool("check", "config", "prometheus.yml")
    assert f"SUCCESS: {len(rules())} rules found" in promtool("check", "rules", RULES.name)


def test_unit_tests_of_the_rules_pass() -> None:
    """Each alert fires where it should, says what it should, and is silent where it should be."""
    assert "SUCCESS" in promtool("test", "rules", RULE_TESTS.name)


def test_every_alert_has_both_unit_tests() -> None:
    """One that fires and one that does not."""
    cases = yaml.safe_load(RULE_TESTS.read_text())["tests"]
    told = {(check["alertname"], bool(check["exp_alerts"])) for case in cases for check in case["alert_rule_test"]}
    assert told == {(rule["alert"], fires) for rule in rules() for fires in (True, False)}


def test_promtool_accepts_every_expression_of_the_dashboard(tmp_path: Path) -> None:
    """Each as a recording rule."""
    wrapped = [{"record": f"test:panel:{number}", "expr": text} for number, text in enumerate(dashboard_expressions())]
    assert len(wrapped) > 70
    path = tmp_path / "dashboard.rules.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": wrapped}]}))
    assert f"SUCCESS: {len(wrapped)} rules found" in promtool("check", "rules", path)


# What names what.


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: str(rule["alert"]))
def test_rule_is_about_what_is_exported(rule: dict[str, Any]) -> None:
    """Metrics, labels, and the words a label is compared with; texts use labels that the alert has."""
    check_expression(rule["expr"])
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    together = set().union(*labels_by_metric().values())
    for text in (rule["annotations"]["summary"], rule["annotations"]["description"]):
        assert set(re.findall(r"\$labels\.(\w+)", text)) <= together


def test_dashboard_is_about_what_is_exported() -> None:
    """Metrics, labels and words of every panel; legends use labels that the series has."""
    for expression in dashboard_expressions():
        check_expression(expression)
    for panel in panels():
        for target in panel["targets"]:
            legend = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            grouped = re.search(r"\bby \(([^)]*)\)", target["expr"])
            kept = {"instance", "worker"} if grouped is None else set(re.split(r",\s*", grouped[1]))
            assert legend <= kept, (panel["title"], legend - kept)


def test_dashboard_shows_everything_that_is_exported() -> None:
    """Every metric has its place in some panel."""
    used = set().union(*map(check_expression, dashboard_expressions()))
    plain = {re.sub(r"_(bucket|count|sum)$", "", name) if "_seconds_" in name else name for name in used}
    assert {family_name(name) for name in METRICS} - plain == set()


def test_dashboard_is_sound() -> None:
    """Ids and titles are given out once, nothing lies on anything else, and the data source is a choice."""
    document = json.loads(DASHBOARD.read_text())
    every = document["panels"]
    assert len({panel["id"] for panel in every}) == len(every)
    assert len({panel["title"] for panel in every}) == len(every)
    assert [variable["name"] for variable in document["templating"]["list"]] == ["datasource", "instance"]
    taken: set[tuple[int, int]] = set()
    for panel in every:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
        for target in panel.get("targets", []):
            assert target["datasource"]["uid"] == "${datasource}"
            assert 'instance=~"$instance"' in target["expr"], panel["title"]


# What the real Prometheus makes of the real node.


def test_prometheus_scrapes_the_node(scene: Scene) -> None:
    """The target is up, nothing was wrong with any scrape, and what it has is what the node says."""
    (target,) = scene.prometheus.targets()
    assert (target["health"], target["lastError"]) == ("up", "")
    assert target["labels"]["job"] == "antquic"
    (up,) = scene.prometheus.query("up")
    assert up["value"][1] == "1"
    (build,) = scene.prometheus.query("antquic_build_info")
    assert build["metric"]["pqc_provider"] == scene.node.status()["node"]["pqc_provider"]
    (handshakes,) = scene.prometheus.query('sum(antquic_handshakes_total{profile="ant_quic"})')
    assert float(handshakes["value"][1]) == PEERS
    (timed,) = scene.prometheus.query("sum(antquic_handshake_duration_seconds_count)")
    assert float(timed["value"][1]) == PEERS
    (median,) = scene.prometheus.query(
        "histogram_quantile(0.5, sum by (le) (antquic_handshake_duration_seconds_bucket))"
    )
    assert 0 < float(median["value"][1]) < HANDSHAKE_TIMEOUT_S


def test_every_family_is_scraped_with_its_kind_and_help(scene: Scene) -> None:
    """Prometheus has the metadata of everything that the page has."""
    (target,) = scene.prometheus.targets()
    metadata = scene.prometheus.ask("targets/metadata", match_target=f'{{instance="{target["labels"]["instance"]}"}}')
    told = {item["metric"].removesuffix("_total"): (item["type"], item["help"]) for item in metadata}
    families = list(text_string_to_metric_families(exposition(scene.node).decode()))
    assert len(families) > 60
    for family in families:
        assert told[family.name] == (family.type, family.documentation)


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: str(rule["alert"]))
def test_alert_has_series_to_look_at(scene: Scene, rule: dict[str, Any]) -> None:
    """What the rule compares is there on a healthy node: silence means health, and not that there is nothing."""
    # Compared all the same, but every series stays, with 0 or 1 for a value.
    compared = re.sub(
        r"(?<=[\w)\]}] )(>|<|== 0)(?= |$)", lambda match: _with_bool(match[1]), " ".join(rule["expr"].split())
    )
    assert "bool" in compared
    assert scene.prometheus.query(compared), compared


def _with_bool(operator: str) -> str:
    return "== bool 0" if operator == "== 0" else f"{operator} bool"


def test_prometheus_has_loaded_the_rules(scene: Scene) -> None:
    """All of them, and evaluates them without an error."""

    def evaluated() -> bool:
        groups = scene.prometheus.ask("rules")["groups"]
        return all(rule["health"] == "ok" for group in groups for rule in group["rules"])

    wait_until(evaluated, timeout_s=SCRAPED_TIMEOUT_S, what="evaluation of the rules")
    groups = scene.prometheus.ask("rules")["groups"]
    assert sum(len(group["rules"]) for group in groups) == len(rules())


def test_every_panel_can_be_drawn(scene: Scene) -> None:
    """No expression is refused, and those about what has happened here yield series."""
    empty = [expression for expression in dashboard_expressions() if not scene.prometheus.query(expression)]
    # A quota that is not set, no hole punch of anybody, no worker lost.
    allowed = ("antquic_relay_quota_bytes", "antquic_hole_punches_total", "changes(antquic_worker_restarts_total")
    assert [expression for expression in empty if not any(word in expression for word in allowed)] == []


# What the guide says.


def guide_table(heading: str) -> list[list[str]]:
    """Return the rows below a heading of the guide, as their cells; every table there is of one kind."""
    section = re.split(r"^## ", GUIDE.read_text().partition(f"\n## {heading}\n")[2], flags=re.MULTILINE)[0]
    lines = [line for line in section.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|"))] for line in lines]


def test_guide_has_every_metric_of_a_real_node_and_no_other(scene: Scene) -> None:
    """Name, type, labels and meaning, in a table; compared with the page of the node both ways."""
    told = {row[0].strip("`"): row[1:] for row in guide_table("Every metric")}
    exported: dict[str, tuple[str, set[str]]] = {}
    for family in text_string_to_metric_families(exposition(scene.node).decode()):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = {label for sample in family.samples for label in sample.labels}
        exported[name] = (family.type, labels - {"worker", "le"})
    # Seen only after somebody has left, and on a node that nobody has left it is declared all the same.
    declared = {family_name(name): (metric.kind, set(metric.labels)) for name, metric in METRICS.items()}
    assert exported.items() <= declared.items()
    assert told.keys() == declared.keys()
    assert declared.keys() - exported.keys() <= {"antquic_connections_closed_total"}
    for name, (kind, listed, meaning) in told.items():
        assert kind == declared[name][0], name
        assert set(re.findall(r"`(\w+)`", listed)) == declared[name][1], name
        assert len(meaning) > 10, name


def test_guide_explains_every_alert_and_no_other() -> None:
    """With its severity, what it means and what to do."""
    told = {row[0].strip("`"): row[1:] for row in guide_table("Alerts")}
    assert {name: row[0] for name, row in told.items()} == {
        rule["alert"]: rule["labels"]["severity"] for rule in rules()
    }
    assert all(len(row) == 3 and all(len(cell) > 3 for cell in row) for row in told.values())
