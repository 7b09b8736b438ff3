"""Tests of how often one peer may be bothered; that introductions obey them is tested with the hub."""

from antquic_server.config.model import NatSettings
from antquic_server.protocol.address import SocketAddress
from antquic_server.supervisor.target_limits import Limit, TargetLimits
from support.coordination import ALICE, BOB

NAT = NatSettings(introductions_per_target_per_s=2.0, introductions_per_target_burst=8)


def at(text: str) -> SocketAddress:
    """An address to ask from."""
    return SocketAddress.parse(f"{text}:1")


def test_one_address_can_use_up_only_its_part() -> None:
    """Others still get through, until the target has had enough altogether; then time heals."""
    limits = TargetLimits(NAT)
    by_one = [limits.exceeded(BOB, at("192.0.2.1"), 10.0) for _ in range(5)]
    assert by_one == [None] * 4 + [Limit.TARGET_SHARE]

    by_others = [limits.exceeded(BOB, at(f"192.0.2.{number}"), 10.0) for number in range(2, 8)]
    assert by_others == [None] * 4 + [Limit.TARGET] * 2
    assert limits.exceeded(ALICE, at("192.0.2.9"), 10.0) is None
    assert limits.exceeded(BOB, at("192.0.2.9"), 10.5) is None
    assert limits.exceeded(BOB, at("192.0.2.10"), 10.5) is Limit.TARGET


def test_prefix_of_an_ipv6_site_is_one_place() -> None:
    """Its /48 is what one customer gets."""
    limits = TargetLimits(NAT)
    heard = [limits.exceeded(BOB, at(f"[2001:470:1:{number}::1]"), 10.0) for number in range(5)]

    assert heard == [None] * 4 + [Limit.TARGET_SHARE]
