"""Tests of the lists of label values: they hold every word of the program, and nothing a peer could choose."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from aioquic.quic.events import ConnectionTerminated

from antquic_server.protocol import frames
from antquic_server.stats.counters import METRICS, SEPARATOR
from antquic_server.stats.labels import CONNECTION_ENDS, EXTENSION_FRAMES, OTHER, VALUES
from antquic_server.supervisor.hub import DIRECT, RELAYED
from antquic_server.supervisor.process import EndReason
from antquic_server.supervisor.target_limits import Limit
from workers.coordination import OUTCOMES
from workers.outcome import outcome_label

REPOSITORY = Path(__file__).resolve().parents[3]
COUNTING = ("add", "declare", "set", "histogram")
MAX_SERIES = 900
"""Of one process, if every combination were seen: what Prometheus may at worst be given for each."""
BY_HELPER = {
    ("workers/channel_table.py", "drop"): ("relay_drops", 1),
    ("workers/relay_session.py", "dropped"): ("relay_drops", 1),
    ("workers/admission.py", "_dropped"): ("drops", 0),
    ("workers/admission.py", "_refuse"): ("handshake_failures", 0),
    ("workers/endpoint.py", "_discard"): ("drops", 0),
    ("workers/channel_control.py", "_count"): ("channel_messages", 0),
    ("antquic_server/supervisor/punches.py", "_count"): ("", 0),
}
"""Methods that count what they are told: the metric, and which of its labels; no metric is the first argument."""


def sources() -> Iterator[tuple[str, ast.AST]]:
    """Every module that counts, by its path."""
    for package in ("workers", "antquic_server/supervisor"):
        for path in sorted((REPOSITORY / package).glob("*.py")):
            yield str(path.relative_to(REPOSITORY)), ast.parse(path.read_text())


def literals(node: ast.expr) -> list[str]:
    """Return the words that an expression can be, as far as they stand there."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    if isinstance(node, ast.IfExp):
        return literals(node.body) + literals(node.orelse)
    return []


def counted_words() -> Iterator[tuple[str, str, int, str]]:
    """Return place, metric, label and word of everything that the program counts by a literal word."""
    for path, tree in sources():
        for call in ast.walk(tree):
            if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
                continue
            place = f"{path}:{call.lineno}"
            helper = BY_HELPER.get((path, call.func.attr))
            first = literals(call.args[0])[:1] if call.args else []
            if call.func.attr in COUNTING and first and first[0] in METRICS:
                skipped = 1 if call.func.attr in ("declare", "histogram") else 2
                for index, argument in enumerate(call.args[skipped:]):
                    yield from ((place, first[0], index, word) for word in literals(argument))
            elif helper is not None and not helper[0]:
                for index, argument in enumerate(call.args[1:]):
                    yield from ((place, first[0], index, word) for word in literals(argument))
            elif helper is not None:
                for argument in call.args:
                    yield from ((place, *helper, word) for word in literals(argument))


def test_every_word_in_the_source_is_listed() -> None:
    """Or it would be counted as ``other``, and no operator would ever read it."""
    found = list(counted_words())
    assert len(found) > 60
    missing = [item for item in found if item[3] not in METRICS[item[1]].values[item[2]]]
    assert missing == []


def test_words_that_come_from_elsewhere_are_listed() -> None:
    """Enumerations and tables of modules that this one cannot import."""
    assert VALUES["introductions_limited"][0] == {*Limit, OTHER}
    assert VALUES["introductions"][0] == {DIRECT, RELAYED, OTHER}
    assert VALUES["worker_restarts"][0] == {*EndReason, OTHER}
    assert set(OUTCOMES.values()) <= VALUES["coordinations"][0]
    assert set(EXTENSION_FRAMES) == set(get_args(frames.ExtensionFrame))


def test_every_end_of_a_connection_is_listed() -> None:
    """Whatever code and reason a peer chooses."""
    for frame_type in (None, 0, 6):
        for code in [*range(0x300), *range(0x4E5AF0, 0x4E5B20), 1 << 40]:
            event = ConnectionTerminated(error_code=code, frame_type=frame_type, reason_phrase=f"{code}")
            assert outcome_label(event) in CONNECTION_ENDS


@pytest.mark.parametrize("name", sorted(METRICS))
def test_every_label_has_a_short_list_of_words(name: str) -> None:
    """One list for each label; words are words, not addresses, ids or numbers that grow."""
    metric = METRICS[name]
    assert len(metric.values) == len(metric.labels)
    assert all(re.fullmatch(r"[a-z][a-z_]*", label) for label in metric.labels)
    assert "worker" not in metric.labels
    assert "le" not in metric.labels
    for words in metric.values:
        assert 0 < len(words) <= 90
        assert not any(SEPARATOR in word for word in words)
        if name != "build_info":
            assert all(re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{1,40}", word) for word in words)


def test_the_number_of_series_is_bounded() -> None:
    """Also for a process that has seen everything there is."""
    series = 0
    for metric in METRICS.values():
        combinations = 1
        for words in metric.values:
            combinations *= len(words)
        series += combinations * (len(metric.bounds) + 2 if metric.kind == "histogram" else 1)
    assert series < MAX_SERIES


def test_lists_belong_to_metrics() -> None:
    """None is left over from one that is gone."""
    assert set(VALUES) == {name for name, metric in METRICS.items() if metric.labels}
