"""Tests of ``protocol.relay_targets``: where a relay sends, and where it does not."""

from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest

from antquic_server.protocol import relay_targets
from antquic_server.protocol.address import SocketAddress
from antquic_server.protocol.relay_targets import TargetPolicy, TargetRules, TargetVerdict

OWN = ("198.51.100.1", "2001:db8::1", "192.168.1.10")
LISTEN_PORT, ADMIN_PORT = 10000, 50001
SESSION_PORTS = (49152, 65535)

Judge = Callable[[str], TargetVerdict]


def policy(**lists: tuple[str, ...]) -> TargetPolicy:
    """The rules of a node with the addresses ``OWN``."""
    own = {ip_address(text) for text in OWN}
    return TargetPolicy(rules(**lists), own.__contains__)


def rules(
    *, allowed: tuple[str, ...] = (), denied: tuple[str, ...] = (), session_hosts: tuple[str, ...] = ()
) -> TargetRules:
    """The rules of the configuration."""
    return TargetRules(
        allowed=allowed,
        denied=denied,
        own_ports=frozenset({LISTEN_PORT, ADMIN_PORT}),
        session_ports=SESSION_PORTS,
        session_hosts=frozenset(map(ip_address, session_hosts)),
    )


def judge(text: str, **lists: tuple[str, ...]) -> TargetVerdict:
    """Judge an address, with port 4433 if it has none."""
    target = text if text.count(":") == 1 or "]" in text else (f"[{text}]:4433" if ":" in text else f"{text}:4433")
    return policy(**lists).judge(SocketAddress.parse(target))


@pytest.mark.parametrize(
    "text",
    [
        "203.0.113.7",
        "198.18.0.11",
        "192.0.2.1",
        "1.1.1.1",
        "192.0.1.1",
        "2001:db8::7",
        "2001:2::11",
        "2a00:1450::1",
        # Beside special ones.
        "168.63.129.15",
        "168.63.129.17",
        "100:0:0:1::1",
        "2001:1::1",
        "5eff::1",
        "5f01::1",
    ],
)
def test_public_addresses_are_allowed(text: str) -> None:
    """Everything the world may reach, the networks of benchmarks and documentation included."""
    assert judge(text) is TargetVerdict.ALLOWED


@pytest.mark.parametrize(
    "text",
    [
        "0.1.2.3",
        "10.255.0.1",
        "100.64.0.1",
        "100.127.255.255",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.8",
        "192.168.0.1",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "fc00::1",
        "fd12::1",
        "fe80::1",
        "fec0::1",
        "ff02::1",
        "64:ff9b:1::7",
        "168.63.129.16",
        "::ffff:168.63.129.16",
        "::2",
        "::127.0.0.1",
        "::10.0.0.1",
        "::ffff:0:10.0.0.1",
        "::ffff:0:127.0.0.1",
        "100::1",
        "2001:0:a00:1::",
        "2001:0:ffff:ffff:ffff:ffff:ffff:ffff",
        "5f00::1",
        # What stands for an IPv4 address is judged as that one.
        "::ffff:10.0.0.1",
        "64:ff9b::a00:1",
        "2002:a00:1::1",
        "2002:a9fe:a9fe::",
    ],
)
def test_special_networks_are_refused_unless_allowed(text: str) -> None:
    """Private, local, reserved and multicast networks; the operator may allow each of them."""
    assert judge(text) is TargetVerdict.SPECIAL
    every = ("0.0.0.0/0", "::/0")
    assert judge(text, allowed=every) is TargetVerdict.ALLOWED
    assert judge(text, allowed=every, denied=every) is TargetVerdict.DENIED


def test_allowing_only_the_outer_form_is_not_enough() -> None:
    """NAT64 and 6to4 lead to an IPv4 address, which has to be allowed as well."""
    assert judge("64:ff9b::a00:1", allowed=("64:ff9b::/96",)) is TargetVerdict.SPECIAL
    assert judge("64:ff9b::a00:1", allowed=("10.0.0.0/8",)) is TargetVerdict.ALLOWED
    assert judge("2002:cb00:7107::1") is TargetVerdict.ALLOWED
    assert judge("2002:cb00:7107::1", denied=("203.0.113.0/24",)) is TargetVerdict.DENIED


LOCAL = [
    "127.0.0.1",
    "127.8.9.10",
    "::1",
    "::ffff:127.0.0.1",
    "64:ff9b::7f00:1",
    "2002:7f00:1::1",
    "192.168.1.10",
    "::ffff:192.168.1.10",
    "64:ff9b::c0a8:10a",
    "2002:c0a8:10a::1",
]
"""Of this machine, in every form, and not for the world to reach."""


@pytest.mark.parametrize("port", [53, 49152, 55555, 65535])
@pytest.mark.parametrize("text", LOCAL)
def test_local_addresses_are_refused_on_every_port(text: str, port: int) -> None:
    """No session is advertised there, and what listens on its loopback or in its private network does not expect us."""
    host = f"[{text}]" if ":" in text else text
    assert judge(f"{host}:{port}") is TargetVerdict.OWN
    # Named is another address, or the port is none of a session's.
    assert judge(f"{host}:{port}", session_hosts=("198.51.100.1", "127.0.0.2", "10.0.0.1")) is TargetVerdict.OWN
    if port < SESSION_PORTS[0]:
        assert judge(f"{host}:{port}", session_hosts=("127.0.0.1", "::1", "192.168.1.10")) is TargetVerdict.OWN


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("::1", "::1"),
        ("::ffff:127.0.0.1", "127.0.0.1"),
        ("192.168.1.10", "192.168.1.10"),
        *[(text, "198.51.100.1") for text in ("198.51.100.1", "2001:db8::1", "64:ff9b::c633:6401")],
    ],
)
def test_addresses_of_sessions(text: str, named: str) -> None:
    """Those that are named, and those of ours that are public; never the node's own ports."""
    host = f"[{text}]" if ":" in text else text
    hosts = (named,)
    assert judge(f"{host}:53", session_hosts=hosts) is TargetVerdict.OWN
    assert judge(f"{host}:49152", session_hosts=hosts) is TargetVerdict.ALLOWED
    assert judge(f"{host}:65535", session_hosts=hosts) is TargetVerdict.ALLOWED
    assert judge(f"{host}:{ADMIN_PORT}", session_hosts=hosts) is TargetVerdict.OWN
    assert judge(f"{host}:49152", session_hosts=hosts, denied=("0.0.0.0/0", "::/0")) is TargetVerdict.DENIED


@pytest.mark.parametrize("text", ["198.51.100.1", "2001:db8::1"])
def test_public_addresses_of_ours_have_sessions_wherever_the_node_listens(text: str) -> None:
    """Which is at all of them where none is named."""
    assert judge(f"[{text}]:50000" if ":" in text else f"{text}:50000") is TargetVerdict.ALLOWED


@pytest.mark.parametrize("text", ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1", *OWN])
def test_own_addresses(text: str) -> None:
    """Refused unless the operator allows them; never the node's own ports."""
    host = f"[{text}]" if ":" in text else text
    assert judge(f"{host}:53") is TargetVerdict.OWN
    every = ("0.0.0.0/0", "::/0")
    assert judge(f"{host}:53", allowed=every) is TargetVerdict.ALLOWED
    assert judge(f"{host}:{LISTEN_PORT}", allowed=every) is TargetVerdict.OWN
    assert judge(f"{host}:{ADMIN_PORT}", allowed=every) is TargetVerdict.OWN
    assert judge(f"{host}:49152", denied=every) is TargetVerdict.DENIED


def test_denied_networks_are_refused() -> None:
    """Also where they are public, or allowed."""
    assert judge("203.0.113.7", denied=("203.0.113.0/24",)) is TargetVerdict.DENIED
    assert judge("203.0.113.7", denied=("203.0.113.7/32",), allowed=("203.0.113.0/24",)) is TargetVerdict.DENIED
    assert judge("203.0.114.7", denied=("203.0.113.0/24",)) is TargetVerdict.ALLOWED
    assert judge("::ffff:203.0.113.7", denied=("203.0.113.0/24",)) is TargetVerdict.DENIED


def test_port_zero_is_no_target() -> None:
    """Nobody receives there."""
    assert judge("203.0.113.7:0") is TargetVerdict.PORT


def test_verdicts_are_kept_and_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """A target is judged once, the cache is bounded, and other rules begin with an empty one."""
    asked: list[IPv4Address | IPv6Address] = []

    def is_own(host: IPv4Address | IPv6Address) -> bool:
        asked.append(host)
        return False

    monkeypatch.setattr(relay_targets, "MAX_CACHED_VERDICTS", 2)
    watched = TargetPolicy(rules(), is_own)
    targets = [SocketAddress.parse(f"203.0.113.{number}:1") for number in range(3)]
    for _ in range(3):
        assert watched.judge(targets[0]) is TargetVerdict.ALLOWED
    assert len(asked) == 1
    watched.judge(targets[1])
    watched.judge(targets[2])
    assert len(watched._cache) == 1
    assert watched.generation == 0
    watched.change(rules(denied=("203.0.113.2/32",)))
    assert watched.generation == 1
    assert watched.judge(targets[2]) is TargetVerdict.DENIED
    watched.change(rules())
    assert watched.judge(targets[2]) is TargetVerdict.ALLOWED
