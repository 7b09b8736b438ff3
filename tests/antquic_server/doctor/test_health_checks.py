"""Planted in the answer of a running node: idle slots, restarts, lag, canaries that do not come back."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from antquic_server.doctor.finding import Verdict
from support.planted_machine import HEALTHY_STATUS, findings, healthy_case, not_ok

Change = Callable[[dict[str, Any]], None]


def _unhealthy(status: dict[str, Any]) -> None:
    status["node"]["healthy"] = False
    status["workers"][1]["state"] = "vacant"


def _draining(status: dict[str, Any]) -> None:
    status["node"]["draining"] = True


def _unsteered(status: dict[str, Any]) -> None:
    status["node"]["steered"] = False


def _restarts(status: dict[str, Any]) -> None:
    status["totals"] |= {"worker_restarts|crashed": 2, "worker_restarts|frozen": 1}


def _lag(status: dict[str, Any]) -> None:
    status["workers"][0]["loop_lag_s"] = 0.25


def _lost(status: dict[str, Any]) -> None:
    status["relay"]["canary"]["stream"]["failed"] = 900


def _no_canary(status: dict[str, Any]) -> None:
    status["relay"]["canary"] = {}


@pytest.mark.parametrize(
    ("change", "check", "verdict", "words"),
    [
        (_unhealthy, "node-health", Verdict.FAULT, "slots without a worker: 1"),
        (_draining, "node-health", Verdict.NOTE, "draining"),
        (_unsteered, "node-health", Verdict.WARNING, "no packet filter"),
        (_restarts, "node-restarts", Verdict.WARNING, "24.0 hours: 2 crashed, 1 frozen"),
        (_lag, "node-lag", Verdict.WARNING, "up to 250.0 ms late"),
        (_lost, "relay-canary", Verdict.FAULT, "900 of 34,900 canaries were lost: 900 stream failed"),
        (_no_canary, "relay-canary", Verdict.NOTE, "no canary has come back yet"),
    ],
)
def test_a_sick_node_is_found(tmp_path: Path, change: Change, check: str, verdict: Verdict, words: str) -> None:
    """By the one check that is about it."""
    status = copy.deepcopy(HEALTHY_STATUS)
    change(status)
    case = replace(healthy_case(tmp_path), status=status)

    assert not_ok(case) == {check: verdict}
    assert words in findings(case)[check].found


def test_a_single_lost_canary_is_no_fault(tmp_path: Path) -> None:
    """One in a hundred may be: a worker that died took some along."""
    status = copy.deepcopy(HEALTHY_STATUS)
    status["relay"]["canary"]["stream"]["failed"] = 3

    assert not_ok(replace(healthy_case(tmp_path), status=status)) == {}


def test_a_node_without_relay_has_no_canaries(tmp_path: Path) -> None:
    """And needs none."""
    status = copy.deepcopy(HEALTHY_STATUS)
    status["relay"] = {"enabled": False}

    assert findings(replace(healthy_case(tmp_path), status=status))["relay-canary"].found == "the relay is off"


def test_a_node_that_does_not_answer_where_it_was_asked_is_a_fault(tmp_path: Path) -> None:
    """Where the user has named the address; else it is told if a node has the port."""
    case = replace(healthy_case(tmp_path), status=None, status_error="no node answers at http://127.0.0.1:1: refused")
    assert findings(case)["node-health"].verdict is Verdict.NOTE
    assert findings(replace(case, admin_given=True))["node-health"].verdict is Verdict.FAULT
    assert not findings(replace(case, node_pid=None))["node-health"].known


@pytest.mark.parametrize("status", [{}, {"node": 3, "workers": 4, "totals": [], "relay": "x"}])
def test_an_answer_of_another_version_is_survived(tmp_path: Path, status: dict[str, Any]) -> None:
    """What is missing is taken for zero, and a node that does not say that it is healthy for one that is not."""
    found = findings(replace(healthy_case(tmp_path), status=status))

    assert found["node-health"].verdict is Verdict.FAULT
    assert found["node-restarts"].verdict is Verdict.OK
