"""Conditions beside mapping and filtering: rebinding, lifetime, loss, blocked UDP, IPv6."""

import socket
import threading
import time

import pytest

from antquic_server.natlab.lab import Lab
from antquic_server.natlab.model import KINDS, Filtering, Mapping, Nat, Ports

pytestmark = pytest.mark.end_to_end

TIMEOUT_S = 2.0
REBINDINGS = 5
GRACE_S = 0.05
"""For packets that must not come; those that come take microseconds."""


def outside(client: socket.socket, server: socket.socket) -> tuple[str, int]:
    """Send from ``client`` and return the address ``server`` sees."""
    server.settimeout(TIMEOUT_S)
    client.sendto(b"hello", server.getsockname())
    host, port = server.recvfrom(64)[1][:2]
    return host, port


def arrives(sender: socket.socket, address: tuple[str, int], receiver: socket.socket) -> bool:
    """Whether a packet to ``address`` comes out at ``receiver``."""
    sender.sendto(b"probe", address)
    receiver.settimeout(GRACE_S)
    try:
        while receiver.recv(64) != b"probe":
            pass
    except TimeoutError:
        return False
    return True


@pytest.mark.parametrize("filtering", list(Filtering))
@pytest.mark.parametrize("mapping", list(Mapping))
def test_rebinding_gives_a_new_port_and_closes_the_old_one(lab: Lab, mapping: Mapping, filtering: Filtering) -> None:
    """In the middle of a flow the outside port changes, both ways work from then on, and the old port is dead."""
    lab.nat("A", Nat(mapping=mapping, filtering=filtering))
    server, client = lab.udp_socket("node", ("198.18.0.1", 0)), lab.udp_socket("a")
    before = outside(client, server)
    assert outside(client, server) == before

    lab.rebind("A")

    assert not arrives(server, before, client)
    after = outside(client, server)
    assert after[0] == before[0]
    assert after[1] != before[1]
    assert arrives(server, after, client)


def test_rebinding_gives_a_new_port_under_traffic_as_well(lab: Lab) -> None:
    """Packets that pass while the router forgets do not teach it the old ports again."""
    lab.nat("A", KINDS["port-restricted"].nat)
    server, client = lab.udp_socket("node", ("198.18.0.1", 0)), lab.udp_socket("a")
    at_rest = threading.Event()

    def chatter() -> None:
        while not at_rest.is_set():
            client.sendto(b"chatter", server.getsockname())

    before = outside(client, server)
    talking = threading.Thread(target=chatter)
    talking.start()
    try:
        for _ in range(REBINDINGS):
            lab.rebind("A")
    finally:
        at_rest.set()
        talking.join()
    while _drain(server):
        pass
    seen = {before, outside(client, server)}
    assert len(seen) == 2
    assert not arrives(server, before, client)


def test_rebinding_behind_a_carrier(lab: Lab) -> None:
    """Behind a carrier it is the carrier that forgets."""
    lab.kind("A", KINDS["cgnat"])
    server, client = lab.udp_socket("node", ("198.18.0.1", 0)), lab.udp_socket("a")
    before = outside(client, server)

    lab.rebind("A")

    assert outside(client, server)[1] != before[1]


@pytest.mark.parametrize("mapping", [Mapping.ENDPOINT_INDEPENDENT, Mapping.ADDRESS_AND_PORT_DEPENDENT])
def test_a_mapping_dies_of_silence_and_lives_by_use(lab: Lab, mapping: Mapping) -> None:
    """Packets within the lifetime keep a mapping far beyond it; a pause longer than the lifetime ends it."""
    lab.nat("A", Nat(mapping=mapping, lifetime_s=1))
    server, client = lab.udp_socket("node", ("198.18.0.1", 0)), lab.udp_socket("a")
    first = outside(client, server)
    kept_until_s = time.monotonic() + 2.0
    while time.monotonic() < kept_until_s:
        assert outside(client, server) == first
        assert not arrives(client, ("198.18.0.1", 9), server)  # also spends the time between two packets

    # Silence is what is tested here: nothing can be observed without ending it.
    time.sleep(1.5)

    assert not arrives(server, first, client)
    assert outside(client, server) != first


def test_answers_keep_a_mapping_that_a_stranger_uses(lab: Lab) -> None:
    """A host that only answers others keeps its outside address for everybody."""
    lab.nat("A", Nat(filtering=Filtering.ENDPOINT_INDEPENDENT, lifetime_s=1))
    server, client = lab.udp_socket("node", ("198.18.0.1", 0)), lab.udp_socket("a")
    stranger = lab.udp_socket("node", ("198.18.0.2", 0))
    address = outside(client, server)
    kept_until_s = time.monotonic() + 2.0
    while time.monotonic() < kept_until_s:
        assert arrives(stranger, address, client)
        assert outside(client, stranger) == address
        assert not arrives(client, ("198.18.0.1", 9), stranger)

    assert arrives(lab.udp_socket("node", ("198.18.0.2", 0)), address, client)


def test_loss_is_in_both_directions_and_can_be_ended(lab: Lab) -> None:
    """Half of a thousand packets are lost within wide bounds, all of them at 1000, none after that."""
    server, client = lab.udp_socket("node", ("198.18.0.1", 0)), lab.udp_socket("a")
    address = outside(client, server)
    lab.loss("A", per_mille=500)
    for sender, to, receiver in ((client, server.getsockname(), server), (server, address, client)):
        receiver.settimeout(GRACE_S)
        received = 0
        for _ in range(10):
            for _ in range(40):
                sender.sendto(b"x", to)
            received += _drain(receiver)
        # Sixteen standard deviations around 200.
        assert 40 < received < 360

    lab.loss("A", per_mille=1000)
    assert not arrives(server, address, client)
    lab.loss("A", per_mille=0)
    assert arrives(server, address, client)


def test_udp_can_be_blocked_and_let_through(lab: Lab) -> None:
    """Blocked UDP passes in neither direction; afterwards the flow goes on."""
    server, client = lab.udp_socket("node", ("198.18.0.1", 0)), lab.udp_socket("a")
    address = outside(client, server)

    lab.block_udp("A")

    assert not arrives(client, server.getsockname(), server)
    assert not arrives(server, address, client)
    lab.unblock_udp("A")
    assert arrives(client, server.getsockname(), server)
    assert arrives(server, address, client)


def test_udp_can_be_blocked_towards_one_address(lab: Lab) -> None:
    """Two sites that cannot reach each other still reach the node: what a relay is for."""
    for router in ("A", "B"):
        lab.nat(router, KINDS["full-cone"].nat)
    server, one, other = lab.udp_socket("node", ("198.18.0.1", 0)), lab.udp_socket("a"), lab.udp_socket("b")
    address = outside(other, server)
    assert arrives(one, address, other)

    lab.block_udp("A", remote=lab.addresses.routers["B"])

    assert not arrives(one, address, other)
    assert outside(one, server)[0] == lab.addresses.routers["A"]


def test_contacts_tell_who_was_sent_to(lab: Lab) -> None:
    """What a site sent to is remembered, also when nothing came back; what only came in is not."""
    server, a, b = lab.udp_socket("node", ("198.18.0.1", 0)), lab.udp_socket("a"), lab.udp_socket("b")
    address_a = outside(a, server)
    assert not arrives(b, address_a, a)

    assert lab.contacts("A") == {"198.18.0.1"}
    assert lab.contacts("B") == {lab.addresses.routers["A"]}


@pytest.mark.parametrize(
    ("name_a", "name_b", "direct"),
    [
        ("port-restricted", "port-restricted", True),
        ("address-restricted", "symmetric", True),
        ("port-restricted", "symmetric", False),
        ("symmetric", "symmetric", False),
        ("cgnat", "port-restricted", True),
    ],
)
def test_punching_by_hand(lab: Lab, name_a: str, name_b: str, direct: bool) -> None:
    """Two sockets that send to the addresses the node sees meet as theory says, without any QUIC."""
    lab.kind("A", KINDS[name_a])
    lab.kind("B", KINDS[name_b])
    server, a, b = lab.udp_socket("node", ("198.18.0.1", 0)), lab.udp_socket("a"), lab.udp_socket("b")
    address_a, address_b = outside(a, server), outside(b, server)
    got_through = False
    for _ in range(3):
        got_through |= arrives(a, address_b, b)
        got_through |= arrives(b, address_a, a)

    assert got_through is direct


def test_punching_by_hand_with_predicted_ports(lab: Lab) -> None:
    """Two symmetric NATs with sequential ports meet when each side tries the other's next ports in order."""
    for router in ("A", "B"):
        lab.nat(router, Nat(mapping=Mapping.ADDRESS_AND_PORT_DEPENDENT, ports=Ports.SEQUENTIAL))
    server, a, b = lab.udp_socket("node", ("198.18.0.1", 0)), lab.udp_socket("a"), lab.udp_socket("b")
    (host_a, port_a), (host_b, port_b) = outside(a, server), outside(b, server)
    for step in (1, 2):
        a.sendto(b"probe", (host_b, port_b + step))
        b.sendto(b"probe", (host_a, port_a + step))
    a.settimeout(TIMEOUT_S)

    assert a.recvfrom(64) == (b"probe", (host_b, port_b + 1))


def test_ipv6_firewall_lets_in_what_was_asked_for(lab_v6: Lab) -> None:
    """Hosts have public IPv6 addresses; strangers are dropped until both sides have sent, or the firewall is off."""
    lab = lab_v6
    server = lab.udp_socket("node", ("2001:2::1", 0))
    a = lab.udp_socket("a", (lab.addresses.hosts_v6["a"], 0))
    b = lab.udp_socket("b", (lab.addresses.hosts_v6["b"], 0))
    address_a, address_b = a.getsockname()[:2], b.getsockname()[:2]
    assert outside(a, server) == address_a
    assert arrives(server, address_a, a)
    assert not arrives(b, address_a, a)

    assert arrives(a, address_b, b)  # b has sent to a: its firewall knows the flow
    assert arrives(b, address_a, a)

    lab.firewall_v6("A", enabled=False)
    assert arrives(lab.udp_socket("b", (lab.addresses.hosts_v6["b"], 0)), address_a, a)


def test_a_changed_nat_keeps_the_ipv6_firewall(lab_v6: Lab) -> None:
    """The IPv6 firewall does not depend on the IPv4 NAT."""
    lab_v6.nat("A", KINDS["full-cone"].nat)
    a = lab_v6.udp_socket("a", (lab_v6.addresses.hosts_v6["a"], 0))
    stranger = lab_v6.udp_socket("node", ("2001:2::2", 0))

    assert not arrives(stranger, a.getsockname()[:2], a)


def _drain(receiver: socket.socket) -> int:
    received = 0
    try:
        while receiver.recv(64):
            received += 1
    except TimeoutError:
        return received
    return received
