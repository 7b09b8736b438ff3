"""Planted: development switches here and in the running node, a debug build, no uvloop."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from antquic_server.doctor.finding import Verdict
from support.planted_machine import NODE_PID, findings, healthy_case, not_ok, planted


@pytest.mark.parametrize(
    ("facts", "check"),
    [
        ({"uvloop": None}, "uvloop"),
        ({"debug_build": True}, "python-build"),
        ({"asyncio_debug": True}, "asyncio-debug"),
        ({"tracing_memory": True}, "tracemalloc"),
        # Development mode is told once, and not again for what it switches on.
        ({"dev_mode": True, "asyncio_debug": True}, "python-dev-mode"),
    ],
)
def test_a_slow_interpreter_is_found(tmp_path: Path, facts: dict[str, Any], check: str) -> None:
    """By the one check that is about it."""
    case = healthy_case(tmp_path)
    planted(case).python = replace(planted(case).python, **facts)

    assert not_ok(case) == {check: Verdict.WARNING}
    assert findings(case)[check].fixes


@pytest.mark.parametrize(
    ("variable", "check"),
    [
        ("PYTHONDEVMODE=1", "python-dev-mode"),
        ("PYTHONASYNCIODEBUG=1", "asyncio-debug"),
        ("PYTHONMALLOC=debug", "python-malloc"),
        ("PYTHONMALLOC=malloc_debug", "python-malloc"),
        ("PYTHONTRACEMALLOC=25", "tracemalloc"),
    ],
)
def test_a_switch_of_the_running_node_is_found(tmp_path: Path, variable: str, check: str) -> None:
    """Even though this command was started without it."""
    case = healthy_case(tmp_path)
    planted(case).plant(f"/proc/{NODE_PID}/environ", f"PATH=/usr/bin\0{variable}\0")

    assert not_ok(case) == {check: Verdict.WARNING}
    assert f"in the running node (process {NODE_PID})" in findings(case)[check].found


def test_a_switch_of_this_environment_is_found(tmp_path: Path) -> None:
    """A node that is started from here would have it."""
    case = healthy_case(tmp_path, running=False)
    planted(case).environment = {"PYTHONMALLOC": "debug"}

    assert findings(case)["python-malloc"].found == "PYTHONMALLOC=debug in this environment"


def test_variables_that_switch_nothing_are_left_in_peace(tmp_path: Path) -> None:
    """Empty, zero, or the usual allocator by name."""
    case = healthy_case(tmp_path)
    environment = "PYTHONASYNCIODEBUG=\0PYTHONTRACEMALLOC=0\0PYTHONMALLOC=pymalloc\0"
    planted(case).plant(f"/proc/{NODE_PID}/environ", environment)

    assert not_ok(case) == {}


def test_an_unreadable_environment_is_left_out(tmp_path: Path) -> None:
    """As for a node of another account."""
    case = healthy_case(tmp_path)
    planted(case).remove(f"/proc/{NODE_PID}/environ")

    assert not_ok(case) == {}


def test_missing_assertions_are_mentioned(tmp_path: Path) -> None:
    """They do no harm."""
    case = healthy_case(tmp_path)
    planted(case).python = replace(planted(case).python, optimize=1)

    assert not_ok(case) == {}
    assert "-O" in findings(case)["python-build"].found
