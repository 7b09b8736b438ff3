"""Heaviest functions of a profile, in each form that py-spy writes."""

import json

import pytest

from antquic_server.errors import ProfileError
from antquic_server.profiling.frames import (
    HeavyFrame,
    heaviest,
    stacks_of_flamegraph,
    stacks_of_raw,
    stacks_of_speedscope,
)

MAIN, WORK, SEND, READ = "main (a.py:1)", "work (a.py:2)", "send (b.py:3)", "read&amp;&lt;x&gt; (b.py:4)"


def box(title: str, y: int, x: int, width: int) -> str:
    """One box of a flame graph, as py-spy writes it."""
    return (
        f'<g><title>{title} ({width:,} samples, 1.00%)</title><rect x="0.1%" y="{y}" width="9.9%" height="15" '
        f'fill="rgb(1,2,3)" fg:x="{x}" fg:w="{width}"/><text x="0.3%" y="9">…</text></g>'
    )


# main 1000 of 1000, work 600 (send 250 in it), read 300 beside it; another root of 24.
SVG = "".join(
    [
        '<rect x="0" y="0" width="100%" height="362" fill="url(#background)"/>',
        box("all", 52, 0, 1024),
        box(MAIN, 68, 0, 1000),
        box("thread (c.py:9)", 68, 1000, 24),
        box(READ, 84, 0, 300),
        box(WORK, 84, 300, 600),
        box(SEND, 100, 650, 250),
    ]
)


def test_stacks_are_read_out_of_a_flame_graph() -> None:
    """What of a box has nothing below it is its own; escaped characters are what they were."""
    read = "read&<x> (b.py:4)"
    assert sorted(stacks_of_flamegraph(SVG)) == [
        ([MAIN], 100.0),
        ([MAIN, read], 300.0),
        ([MAIN, WORK], 350.0),
        ([MAIN, WORK, SEND], 250.0),
        (["thread (c.py:9)"], 24.0),
    ]


def test_page_without_boxes_has_no_stacks() -> None:
    """Whatever it is."""
    assert stacks_of_flamegraph("<svg></svg>") == []


def test_stacks_are_read_from_folded_ones() -> None:
    """Lines of another form are passed over."""
    assert stacks_of_raw(f"{MAIN};{WORK} 12\nnonsense\n{MAIN} 3\n") == [([MAIN, WORK], 12.0), ([MAIN], 3.0)]


def test_stacks_are_read_from_speedscope() -> None:
    """Every sample is one."""
    frames = [{"name": "main", "file": "a.py", "line": 1}, {"name": "work", "file": "a.py", "line": 2}]
    document = {"shared": {"frames": frames}, "profiles": [{"samples": [[0, 1], [0]]}]}
    assert stacks_of_speedscope(json.dumps(document)) == [([MAIN, WORK], 1.0), ([MAIN], 1.0)]


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"shared": {"frames": [1]}, "profiles": []}'])
def test_what_is_no_speedscope_file_is_refused(text: str) -> None:
    """As one error of ours."""
    with pytest.raises(ProfileError, match="no speedscope file"):
        stacks_of_speedscope(text)


def test_lines_of_a_function_are_added_up() -> None:
    """Sorted by what it did itself, or by what it and its callees did; a recursive one counts once."""
    stacks = [
        (["main (a.py:1)", "work (a.py:2)"], 6.0),
        (["main (a.py:3)", "work (a.py:5)", "work (a.py:5)"], 2.0),
        (["main (a.py:3)"], 2.0),
        ([], 5.0),
    ]
    main = HeavyFrame(name="main (a.py)", self_share=0.2, total_share=1.0)
    work = HeavyFrame(name="work (a.py)", self_share=0.8, total_share=0.8)
    assert heaviest(stacks, 5) == [work, main]
    assert heaviest(stacks, 5, total=True) == [main, work]
    assert heaviest(stacks, 1) == [work]
    assert heaviest([], 5) == []
