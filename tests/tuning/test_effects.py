"""The effects that the settings files state, measured again: what sockets keep, and what they take off a worker."""

import shutil
import socket
import subprocess

import pytest

from antquic_server.tuning.effects import DATAGRAM_BYTES, GUIDE_BYTES, NODE_BYTES, STOCK_BYTES
from support.require import require
from support.tuned_system import catalogue, settings_of
from support.veth import in_namespace, veth_pair

SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33
BURST = 20_000
EFFECTS = {key: setting.effect for key, setting in settings_of(catalogue()).items()}

# A socket that asks gets twice what it asks for, one that asks for nothing gets the default as it is: so half of the
# default, asked for, is what the default would give.
ASKED = {"max, stock": STOCK_BYTES, "max": NODE_BYTES, "default, stock": STOCK_BYTES // 2, "default": GUIDE_BYTES // 2}


@pytest.fixture(scope="module")
def accepted() -> dict[str, int]:
    """
    How many datagrams of a burst a socket takes before it must wait, on a link that carries 1 Mbit/s.

    The sizes are forced, as root may: the settings are the machine's and are not touched.
    """
    require(shutil.which("tc"), "tc is missing (package iproute2)")
    with veth_pair(1500) as pair:
        shape = ["tc", "-n", pair.near, "qdisc", "add", "dev", "veth-a", "root", "tbf"]
        subprocess.run([*shape, "rate", "1mbit", "burst", "16kb", "limit", "200mb"], check=True)
        return {
            name: in_namespace(pair.near, lambda size=size: _accepted(size, pair.far_hosts[0]))  # type: ignore[misc]
            for name, size in ASKED.items()
        }


def _accepted(size_bytes: int, host: str) -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, size_bytes)
        for count in range(BURST):
            try:
                sock.sendto(bytes(DATAGRAM_BYTES), (host, 9))
            except BlockingIOError:
                return count
        return BURST


@pytest.fixture(scope="module")
def kept() -> dict[str, int]:
    """How many datagrams of a burst over loopback a socket keeps that nobody reads."""
    require(shutil.which("ip"), "ip is missing (package iproute2)")
    with veth_pair(1500) as pair:
        return {
            name: in_namespace(pair.near, lambda size=size: _kept(size))  # type: ignore[misc]
            for name, size in ASKED.items()
        }


def _kept(size_bytes: int) -> int:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        receiver.setblocking(False)
        receiver.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, size_bytes)
        receiver.bind(("127.0.0.1", 0))
        for _ in range(BURST):
            sender.sendto(bytes(DATAGRAM_BYTES), receiver.getsockname())
        count = 0
        try:
            while receiver.recv(DATAGRAM_BYTES):
                count += 1
        except BlockingIOError:
            pass
        return count


@pytest.mark.parametrize("name", ["max, stock", "max", "default, stock", "default"])
def test_what_is_kept_is_what_the_settings_file_says(root: None, kept: dict[str, int], name: str) -> None:
    """Within a tenth: kernels differ in their bookkeeping."""
    assert kept[name] == pytest.approx(
        stated(f"net.core.rmem_{name.partition(',')[0]}", stock="stock" in name), rel=0.1
    )


@pytest.mark.parametrize("name", ["max, stock", "max", "default, stock", "default"])
def test_what_is_accepted_is_what_the_settings_file_says(root: None, accepted: dict[str, int], name: str) -> None:
    """Within a tenth, and what the link has carried away in between."""
    stating = stated(f"net.core.wmem_{name.partition(',')[0]}", stock="stock" in name)
    assert accepted[name] == pytest.approx(stating, rel=0.1, abs=20)


def stated(key: str, *, stock: bool) -> int:
    """Return the figure of the effect: the first after "keeps" or "takes" for the stock value, the last for ours."""
    words = EFFECTS[key].partition(" keeps ")[2] or EFFECTS[key].partition(" takes ")[2]
    numbers = [int(word.strip(",")) for word in words.split() if word.strip(",").isdigit()]
    return numbers[0] if stock else numbers[-1]
