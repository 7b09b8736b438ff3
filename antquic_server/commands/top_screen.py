"""
The screen of ``antquic-server top``: answers and keys in, frames out.

A second thread asks the node, so that keys are obeyed while it takes its time. A node that goes away is said to be
away, its last figures stay, and it is asked again until it is back.
"""

import queue
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from rich.console import Console, RenderableType
from rich.live import Live

from antquic_server.commands.status import fetch_status
from antquic_server.commands.status_figures import Answer, Figures
from antquic_server.commands.terminal_keys import Keys, Terminal
from antquic_server.commands.top_view import TALKER_ORDERS, WORKER_ORDERS, History, View, render
from antquic_server.errors import AdminUnreachableError

__all__ = ["Screen", "show"]

Fetch = Callable[[], Mapping[str, object]]


def show(host: str, port: int, *, interval_s: float, once: bool) -> None:
    """
    Show frames until somebody presses q, or one with ``once`` and where the output is no terminal.

    Raises:
        AdminUnreachableError: The node is not there from the beginning: a mistake in the address, most likely.
    """
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    console = Console(markup=False, highlight=False, emoji=False)
    unicode = (console.encoding or "").lower().startswith("utf")
    screen = Screen(View(width=console.width, url=url, interval_s=interval_s, unicode=unicode))

    def fetch() -> Mapping[str, object]:
        return fetch_status(host, port)

    screen.take(Answer(document=fetch(), at_s=time.monotonic()))
    if once or not console.is_terminal:
        time.sleep(interval_s)
        screen.take(Answer(document=fetch(), at_s=time.monotonic()))
        console.print(screen.frame(console.width, None))
        return
    with Terminal(sys.stdin.fileno()) as terminal:
        screen.keys = terminal.has_keys
        _watch(console, terminal, screen, fetch, interval_s)


class Screen:
    """What is shown at the moment: the last answers, and what the keys have set."""

    def __init__(self, view: View) -> None:
        self.paused = False
        self.keys = False
        self._view = view
        self._history = History()
        self._last: Answer | None = None
        self._figures: Figures | None = None
        self._trouble = ""
        self._talker_order = next(iter(TALKER_ORDERS))
        self._worker_order = next(iter(WORKER_ORDERS))

    def take(self, answer: Answer | str) -> None:
        """Take in an answer of the node, or why there is none."""
        if isinstance(answer, str):
            self._trouble = answer
            return
        self._trouble = ""
        figures = Figures(answer, self._last)
        self._last = answer
        self._history.add(figures)
        if not self.paused:
            self._figures = figures

    def press(self, key: str) -> bool:
        """React to a key; False for the one that ends it all."""
        if key in ("p", " "):
            self.paused = not self.paused
        elif key in ("t", "right"):
            self._talker_order = _next(TALKER_ORDERS, self._talker_order)
        elif key == "left":
            self._talker_order = _next(reversed(list(TALKER_ORDERS)), self._talker_order)
        elif key in ("w", "down"):
            self._worker_order = _next(WORKER_ORDERS, self._worker_order)
        elif key == "up":
            self._worker_order = _next(reversed(list(WORKER_ORDERS)), self._worker_order)
        return key != "q"

    def frame(self, width: int, height: int | None) -> RenderableType:
        """Return what is to be seen now, in a terminal of that size."""
        if self._figures is None:
            return ""
        view = replace(
            self._view,
            width=width,
            height=height,
            paused=self.paused,
            trouble=self._trouble,
            talker_order=self._talker_order,
            worker_order=self._worker_order,
            keys=self.keys,
        )
        return render(self._figures, self._history, view)


def _next(orders: Iterable[str], present: str) -> str:
    """Return the order after the present one, the first after the last."""
    names = list(orders)
    return names[(names.index(present) + 1) % len(names)]


def _watch(console: Console, terminal: Terminal, screen: Screen, fetch: Fetch, interval_s: float) -> None:
    answers: queue.SimpleQueue[Answer | str] = queue.SimpleQueue()
    stopped = threading.Event()

    def ask() -> None:
        while not stopped.wait(interval_s):
            try:
                document = fetch()
            except AdminUnreachableError as error:
                answers.put(str(error))
            else:
                answers.put(Answer(at_s=time.monotonic(), document=document))
            terminal.wake()

    # A daemon: whoever presses q does not wait for a node that takes its time.
    threading.Thread(target=ask, daemon=True).start()
    try:
        with Live(console=console, screen=True, auto_refresh=False) as live:
            going_on = True
            while going_on:
                while not answers.empty():
                    screen.take(answers.get())
                live.update(screen.frame(console.width, console.height), refresh=True)
                going_on = _obey(screen, terminal.wait(interval_s))
    finally:
        stopped.set()


def _obey(screen: Screen, keys: Keys) -> bool:
    """React to keys, up to one that ends it: False then."""
    return all(map(screen.press, keys))
