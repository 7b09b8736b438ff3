"""The front door: life, dialling, reuse."""

import asyncio
import socket
from contextlib import ExitStack

import pytest

from antquic_server.errors import AddressDecodeError, PeerError, PeerUnreachableError
from antquic_server.identity import identity_from_seed
from antquic_server.peer.connection import PeerConnection
from antquic_server.peer.endpoint import Endpoint
from antquic_server.peer.factory import QuicFactory
from antquic_server.peer.punching import Failure
from antquic_server.peer.settings import PeerSettings
from support.peers import Couple, eventually, loopback, run, with_couple

SEED = b"seed".ljust(32, b".")


def test_an_endpoint_has_the_identity_it_was_given() -> None:
    """Before it is even opened."""
    assert Endpoint(loopback(identity_seed=SEED)).peer_id == identity_from_seed(SEED).peer_id


def test_known_peers_are_connected_at_the_start() -> None:
    """And tell us our address; one that is not there is no reason to fail as long as another is."""

    async def story() -> None:
        async with Endpoint(loopback()) as node:
            known = ("127.0.0.1:9", str(node.addresses[0]))
            async with Endpoint(loopback(known_peers=known, dial_timeout_s=0.5)) as peer:
                assert [item.peer_id for item in peer.connections] == [node.peer_id]
                assert await peer.external_address() == peer.addresses[0]
                assert peer.stats().connected_nodes == 1
                assert peer.stats().failed_connections == 1

    run(story())


def test_known_peers_that_are_away_cost_no_more_than_a_moment() -> None:
    """However many there are, and whether before or after the one that answers; they are looked for later."""

    async def story() -> None:
        async with Endpoint(loopback()) as node:
            with ExitStack() as stack:
                silent = [stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(4)]
                for each in silent:
                    each.bind(("127.0.0.1", 0))
                away = [f"127.0.0.1:{each.getsockname()[1]}" for each in silent]
                known = (*away[:2], str(node.addresses[0]), *away[2:])
                began_s = asyncio.get_running_loop().time()
                async with Endpoint(loopback(known_peers=known, dial_timeout_s=30)) as peer:
                    assert asyncio.get_running_loop().time() - began_s < 10
                    assert [item.peer_id for item in peer.connections] == [node.peer_id]
                    assert peer.stats().connected_nodes == 1
                    silent[0].close()
                    late = Endpoint(PeerSettings(listen=(away[0],)))
                    async with late:
                        await eventually(lambda: peer.stats().connected_nodes == 2, what="the one that was late")

    run(story())


def test_no_known_peer_at_all_is_an_error() -> None:
    """It names the first."""

    async def story() -> None:
        with pytest.raises(PeerUnreachableError) as caught:
            async with Endpoint(loopback(known_peers=("127.0.0.1:9", "127.0.0.1:11"), dial_timeout_s=0.3)):
                pass
        assert (caught.value.target, caught.value.reason) == ("127.0.0.1:9", Failure.DIAL_TIMEOUT)

    run(story())


def test_our_address_may_stay_unknown() -> None:
    """The wait for it ends in time."""

    async def story() -> None:
        async with Endpoint(loopback()) as endpoint:
            with pytest.raises(PeerUnreachableError, match="not_observed"):
                await endpoint.external_address(timeout_s=0.05)

    run(story())


def test_an_address_that_is_none_and_a_family_without_a_socket_are_refused() -> None:
    """At once."""

    async def story() -> None:
        async with Endpoint(loopback()) as endpoint:
            with pytest.raises(AddressDecodeError):
                await endpoint.connect("localhost:1")
            with pytest.raises(PeerUnreachableError, match="no_socket"):
                await endpoint.connect("[::1]:1")

    run(story())


def test_without_a_node_nobody_can_be_found() -> None:
    """The reason says so; nor can one find oneself."""

    async def story() -> None:
        async with Endpoint(loopback()) as endpoint:
            with pytest.raises(PeerUnreachableError) as caught:
                await endpoint.connect_peer(bytes(32))
            assert caught.value.reason == Failure.NO_COORDINATOR
            with pytest.raises(PeerUnreachableError) as caught:
                await endpoint.connect_peer(endpoint.peer_id)
            assert caught.value.reason == Failure.SELF_TARGET

    run(story())


def test_connect_peer_returns_the_connection_there_is() -> None:
    """Whoever has dialled it."""

    async def story(couple: Couple) -> None:
        assert await couple.one.connect_peer(couple.other.peer_id) is couple.here
        assert await couple.other.connect_peer(couple.one.peer_id) is couple.there

    with_couple(story)


def test_a_second_dial_ends_in_the_same_connection_object() -> None:
    """The newer QUIC connection takes over; what was open on the older one goes on."""

    async def story(couple: Couple) -> None:
        stream = await couple.here.open_stream()
        await stream.write(b"before ")
        accepted = await couple.there.accept_stream()
        number = couple.here.link_number
        assert await couple.one.connect(couple.other.addresses[0]) is couple.here
        assert couple.here.link_number != number
        await stream.write(b"after")
        assert await accepted.read_exactly(12) == b"before after"
        await couple.here.send_message(b"on the new one")
        assert await couple.there.recv_message() == b"on the new one"
        assert couple.one.stats().active_connections == 1

    with_couple(story)


def test_opposite_dials_leave_one_connection() -> None:
    """Both dial at once; both agree, and after the drain there is one."""

    async def story() -> None:
        async with Endpoint(loopback()) as one, Endpoint(loopback()) as other:
            here, there = await asyncio.gather(one.connect(other.addresses[0]), other.connect(one.addresses[0]))
            assert here.peer_id == other.peer_id
            assert there.peer_id == one.peer_id
            await eventually(lambda: len(one._core.links) == len(other._core.links) == 1, timeout_s=15, what="drain")
            assert here.dialled_by_us != there.dialled_by_us
            assert not here.is_closed
            await here.send_message(b"still here")
            assert await there.recv_message() == b"still here"

    run(story())


def test_a_closed_connection_is_made_anew() -> None:
    """As another object; the old one stays closed."""

    async def story(couple: Couple) -> None:
        await couple.here.close()
        again = await couple.one.connect(couple.other.addresses[0])
        assert again is not couple.here
        assert couple.here.is_closed
        await eventually(couple.there.closed.is_set, what="close at the other end")
        assert (await couple.other.accept()).peer_id == couple.one.peer_id

    with_couple(story)


def test_closing_the_endpoint_ends_everything() -> None:
    """Its own connections, the other side's, and what is waited for."""

    async def story() -> None:
        async with Endpoint(loopback()) as other:
            one = Endpoint(loopback(dial_timeout_s=30))
            async with one:
                here = await one.connect(other.addresses[0])
                there = await other.accept()
                waiting = asyncio.create_task(one.connect("127.0.0.1:9"))
                await asyncio.sleep(0)
            with pytest.raises(PeerUnreachableError):
                await waiting
            assert here.closed.is_set()
            await asyncio.wait_for(there.closed.wait(), 5)
            assert there.close_reason == "PeerShutdown"
            with pytest.raises(PeerUnreachableError):
                await one.connect(other.addresses[0])
            with pytest.raises(PeerUnreachableError):
                await one.connect_peer(other.peer_id)
            await one.close()

    run(story())


def test_incoming_yields_those_who_come() -> None:
    """In order."""

    async def story() -> None:
        async with Endpoint(loopback()) as host, Endpoint(loopback()) as guest:
            await guest.connect(host.addresses[0])
            async for connection in host.incoming():
                assert connection.peer_id == guest.peer_id
                break

    run(story())


def test_a_flood_of_first_packets_does_not_keep_others_out() -> None:
    """Of more addresses than there are places, each of them too little to go on with."""

    async def story() -> None:
        factory = QuicFactory(loopback())
        async with Endpoint(loopback(dial_timeout_s=10)) as host, Endpoint(loopback(dial_timeout_s=5)) as guest:
            target = ("127.0.0.1", host.addresses[0].port)
            for number in range(1, 101):
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as flooder:
                    flooder.bind((f"127.0.1.{number}", 0))
                    client = factory.client("peer")
                    client.connect(target, 0.0)
                    flooder.sendto(client.datagrams_to_send(0.0)[0][0], target)
            await eventually(lambda: host.stats().datagrams_received >= 100, what="flood")
            connection = await guest.connect(host.addresses[0])
            assert (await host.accept()).peer_id == guest.peer_id
            assert await connection.ping() > 0
            assert len(host._core.links) < 20
            assert host.stats().drops["address_not_proven"] > 80
        factory.close()

    run(story())


def test_whoever_waits_for_others_hears_of_the_end() -> None:
    """Of our own endpoint, now or later."""

    async def story() -> None:
        endpoint = Endpoint(loopback())

        async def everybody() -> list[PeerConnection]:
            return [connection async for connection in endpoint.incoming()]

        async with endpoint:
            waiting = [asyncio.create_task(endpoint.accept()) for _ in range(2)]
            others = asyncio.create_task(everybody())
            await asyncio.sleep(0)
        for each in waiting:
            with pytest.raises(PeerError, match="the endpoint was closed"):
                await each
        assert await others == []
        with pytest.raises(PeerError, match="the endpoint was closed"):
            await endpoint.accept()

    run(story())


def test_dial_that_nobody_waits_for_is_ended() -> None:
    """It cannot become a connection that nobody knows of."""

    async def story() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as late:
            late.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{late.getsockname()[1]}"
            async with Endpoint(loopback(dial_timeout_s=30)) as guest:
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(guest.connect(address), 0.05)
                await eventually(lambda: not len(guest._core.links), what="end of the dial")
                late.close()
                async with Endpoint(PeerSettings(listen=(address,))):
                    connection = await guest.connect(address)
                    assert guest.connections == [connection]

    run(story())


# Known peers are kept.


def node_at(address: str) -> Endpoint:
    """A node that has the same key each time it is started."""
    return Endpoint(PeerSettings(listen=(address,), identity_seed=SEED))


def test_known_peer_that_is_restarted_is_connected_again() -> None:
    """By itself and more than once; what is asked for meanwhile waits for it."""

    async def story() -> None:
        node = node_at("127.0.0.1:0")
        await node.__aenter__()
        address = str(node.addresses[0])
        async with Endpoint(loopback(known_peers=(address,))) as peer:
            for _ in range(2):
                before = peer.connections[0]
                await node.close()
                await eventually(before.closed.is_set, what="end of the connection")
                search = asyncio.create_task(peer.connect_peer(node.peer_id))
                await asyncio.sleep(0)
                node = node_at(address)
                await node.__aenter__()
                assert await search is peer.connections[0] is not before
                assert peer.stats().connected_nodes == 1
                await peer.connections[0].send_message(b"back")
                assert await (await node.accept()).recv_message() == b"back"
            # Nobody has come to us: the connections are our own.
            assert not len(peer._connections.incoming)
        await node.close()

    run(story())


def test_known_peer_that_was_away_at_the_start_is_found_later() -> None:
    """As long as another one was there."""

    async def story() -> None:
        async with Endpoint(loopback()) as there:
            late = node_at("127.0.0.1:0")
            async with late:
                address = str(late.addresses[0])
            known = (address, str(there.addresses[0]))
            async with Endpoint(loopback(known_peers=known, dial_timeout_s=0.3)) as peer:
                assert peer.stats().connected_nodes == 1
                async with node_at(address):
                    await eventually(lambda: peer.stats().connected_nodes == 2, what="second node")

    run(story())


def test_known_peer_that_we_close_ourselves_stays_closed() -> None:
    """Until it is dialled again."""

    async def story() -> None:
        async with Endpoint(loopback()) as node, Endpoint(loopback(known_peers=(str(node.addresses[0]),))) as peer:
            await peer.connections[0].close()
            assert peer._keeper.next_deadline_s() is None
            with pytest.raises(PeerUnreachableError, match=Failure.NO_COORDINATOR):
                await peer.connect_peer(bytes(32))
            await peer.connect(node.addresses[0])
            assert peer._keeper.knows(node.peer_id)

    run(story())


def test_search_ends_in_time_when_no_node_comes_back() -> None:
    """With the reason that no node is connected."""

    async def story() -> None:
        async with Endpoint(loopback()) as node:
            settings = loopback(known_peers=(str(node.addresses[0]),), discovery_timeout_s=0.5, dial_timeout_s=0.2)
            async with Endpoint(settings) as peer:
                await node.close()
                await eventually(lambda: not peer.connections, what="end of the connection")
                began_s = asyncio.get_running_loop().time()
                with pytest.raises(PeerUnreachableError, match=Failure.NO_COORDINATOR):
                    await peer.connect_peer(bytes(32))
                assert 0.4 < asyncio.get_running_loop().time() - began_s < 3

    run(story())


def test_known_peer_that_dials_us_is_the_node_it_was() -> None:
    """Two peers that know each other do not dial each other for ever."""

    async def story() -> None:
        async with Endpoint(loopback()) as node, Endpoint(loopback(known_peers=(str(node.addresses[0]),))) as peer:
            for connection in node.connections:
                await connection.close()
            await node.connect(peer.addresses[0])
            await eventually(lambda: peer.stats().connected_nodes == 1, what="node")
            assert peer.connections[0].peer_id == node.peer_id
            assert peer._keeper.knows(node.peer_id)

    run(story())


def test_known_peer_without_a_socket_of_its_family_is_left_alone() -> None:
    """It could never be dialled."""

    async def story() -> None:
        async with Endpoint(loopback()) as node:
            known = ("[::1]:9", str(node.addresses[0]))
            async with Endpoint(loopback(known_peers=known)) as peer:
                assert peer._keeper.next_deadline_s() is None
                assert peer.stats().connected_nodes == 1

    run(story())
