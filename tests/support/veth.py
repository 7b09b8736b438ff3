"""Two network namespaces joined by a veth pair, for tests that need a link with an MTU of its own (root only)."""

import ctypes
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

from support.require import require

__all__ = ["VethPair", "in_namespace", "veth_pair"]

Value = TypeVar("Value")
CLONE_NEWNET = 0x40000000
RUN_NETNS = Path("/run/netns")

_numbers = count()


@dataclass(frozen=True, slots=True, kw_only=True)
class VethPair:
    """Names of the namespaces, and the addresses of the near and the far end, IPv4 and IPv6."""

    near: str
    far: str
    near_hosts: tuple[str, str] = ("192.0.2.1", "2001:db8::1")
    far_hosts: tuple[str, str] = ("192.0.2.2", "2001:db8::2")


@contextmanager
def veth_pair(mtu: int) -> Iterator[VethPair]:
    """Make the two namespaces and the link between them, and remove them again; skips where that is not allowed."""
    require(os.geteuid() == 0 and shutil.which("ip"), "needs root and iproute2 to make network namespaces")
    stem = f"antquic-mtu-{os.getpid()}-{next(_numbers)}"
    pair = VethPair(near=f"{stem}-a", far=f"{stem}-b")
    ends = ((pair.near, "veth-a", pair.near_hosts), (pair.far, "veth-b", pair.far_hosts))
    try:
        for name, _, _ in ends:
            _ip("netns", "add", name)
        _ip("-n", pair.near, "link", "add", "veth-a", "type", "veth", "peer", "name", "veth-b", "netns", pair.far)
        for name, link, (ipv4, ipv6) in ends:
            _ip("-n", name, "link", "set", "lo", "up")
            _ip("-n", name, "link", "set", link, "mtu", str(mtu), "up")
            _ip("-n", name, "address", "add", f"{ipv4}/24", "dev", link)
            _ip("-n", name, "address", "add", f"{ipv6}/64", "dev", link, "nodad")
        yield pair
    finally:
        for name, _, _ in ends:
            if (RUN_NETNS / name).exists():
                _ip("netns", "delete", name)


def in_namespace(name: str, act: Callable[[], Value]) -> Value:
    """Call ``act`` in a thread that lives in the namespace: sockets it opens and processes it starts stay there."""
    outcome: dict[str, Any] = {}

    def run() -> None:
        try:
            _enter(name)
            outcome["value"] = act()
        except BaseException as error:  # noqa: BLE001
            outcome["error"] = error  # raised again where somebody can see it

    thread = threading.Thread(target=run, name=f"in {name}")
    thread.start()
    thread.join()
    if "error" in outcome:
        raise outcome["error"]
    value: Value = outcome["value"]
    return value


def _enter(name: str) -> None:
    """Move the calling thread, and only it, into the namespace."""
    with (RUN_NETNS / name).open("rb") as namespace:
        if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"setns to {name}")


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)
