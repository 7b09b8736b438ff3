"""
Which functions a profile names as the heaviest.

A flame graph says it in pictures; a terminal, and a test, want a list. Both numbers of a function are shares of all
samples: ``self_share`` of those it was itself at work in, ``total_share`` of those it or anything it called was.
"""

import html
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from antquic_server.errors import ProfileError

__all__ = ["HeavyFrame", "Stack", "heaviest", "stacks_of_flamegraph", "stacks_of_raw", "stacks_of_speedscope"]

Stack = tuple[list[str], float]
"""Function names, the outermost first, and how many samples, or bytes, it stands for."""

_BOX = re.compile(
    r"<title>(?P<title>[^<]*)</title><rect [^>]*y=\"(?P<y>\d+)\"[^>]*fg:x=\"(?P<x>\d+)\" fg:w=\"(?P<width>\d+)\""
)
_SAMPLES = re.compile(r" \([\d,]+ samples, [\d.]+%\)$")
_ROOT = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class HeavyFrame:
    """One function, as ``name (file:line)`` or without the line, and its shares, 0 to 1."""

    name: str
    self_share: float
    total_share: float


def heaviest(stacks: Iterable[Stack], count: int, *, total: bool = False) -> list[HeavyFrame]:
    """
    Return the functions that were at work themselves most often, lines of one function added up.

    With ``total``: those that were at work, or anything they called; the widest boxes of a flame graph.
    """
    own: dict[str, float] = {}
    with_called: dict[str, float] = {}
    whole = 0.0
    for frames, weight in stacks:
        names = [_without_line(frame) for frame in frames]
        if not names:
            continue
        whole += weight
        own[names[-1]] = own.get(names[-1], 0.0) + weight
        for name in set(names):
            with_called[name] = with_called.get(name, 0.0) + weight
    shares = with_called if total else own
    return [
        HeavyFrame(name=name, self_share=own.get(name, 0.0) / whole, total_share=with_called[name] / whole)
        for name in sorted(shares, key=lambda name: (-shares[name], name))[:count]
    ]


def stacks_of_raw(text: str) -> list[Stack]:
    """Read folded stacks: frames separated by semicolons, a blank, a number."""
    stacks = []
    for line in text.splitlines():
        frames, _, samples = line.rpartition(" ")
        if frames and samples.isdigit():
            stacks.append((frames.split(";"), float(samples)))
    return stacks


def stacks_of_speedscope(text: str) -> list[Stack]:
    """Read a speedscope file of sampled profiles (ProfileError if it is none)."""
    try:
        document: Any = json.loads(text)
        frames = document["shared"]["frames"]
        names = [f"{frame['name']} ({frame.get('file', '')}:{frame.get('line', 0)})" for frame in frames]
        return [
            ([names[index] for index in sample], 1.0)
            for profile in document["profiles"]
            for sample in profile["samples"]
        ]
    except (ValueError, KeyError, IndexError, TypeError):
        raise ProfileError(None, "the profile is no speedscope file") from None


def stacks_of_flamegraph(svg: str) -> list[Stack]:
    """
    Read the stacks back out of a flame graph of py-spy, whose boxes carry where they begin and how wide they are.

    A box lies below the one that called it. What of its width nothing lies below is the time it was at work itself.
    """
    rows: dict[int, list[tuple[int, int, str]]] = {}
    for match in _BOX.finditer(svg):
        box = int(match["x"]), int(match["width"]), _SAMPLES.sub("", html.unescape(match["title"]))
        rows.setdefault(int(match["y"]), []).append(box)
    stacks: list[tuple[list[str], int]] = []
    callers: list[tuple[int, int, int]] = []
    """Of the row above: first and last sample, and number of the stack."""
    for _, row in sorted(rows.items()):
        called: list[tuple[int, int, int]] = []
        for x, width, name in row:
            caller = next((number for first, end, number in callers if first <= x and x + width <= end), None)
            frames: list[str] = []
            if caller is not None:
                above, rest = stacks[caller]
                stacks[caller] = above, rest - width
                frames = above
            called.append((x, x + width, len(stacks)))
            stacks.append(([*frames, name] if name != _ROOT else [], width))
        callers = called
    return [(frames, float(rest)) for frames, rest in stacks if frames and rest > 0]


def _without_line(frame: str) -> str:
    return re.sub(r":\d+\)$", ")", frame)
