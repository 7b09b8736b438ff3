"""Tests of ``net.local_address``: which addresses this machine has."""

from ipaddress import ip_address

import pytest

from antquic_server.net.local_address import is_local_address
from support.veth import in_namespace, veth_pair


def test_loopback_is_local() -> None:
    """The one address every machine has."""
    assert is_local_address(ip_address("127.0.0.1"))


@pytest.mark.parametrize("text", ["203.0.113.7", "2001:db8:ffff::7", "255.255.255.255", "0.0.0.0"])
def test_what_is_elsewhere_is_not(text: str) -> None:
    """Other machines, addresses without a route, and those nobody can have."""
    assert not is_local_address(ip_address(text))


@pytest.mark.end_to_end
def test_addresses_of_a_link() -> None:
    """Both families; the neighbour's are not ours."""
    with veth_pair(1500) as pair:
        near = [ip_address(text) for text in pair.near_hosts]
        far = [ip_address(text) for text in pair.far_hosts]
        assert in_namespace(pair.near, lambda: [is_local_address(host) for host in near]) == [True, True]
        assert in_namespace(pair.near, lambda: [is_local_address(host) for host in far]) == [False, False]
