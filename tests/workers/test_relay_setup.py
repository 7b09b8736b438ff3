"""Tests of ``workers.relay_setup``: what the stream relay is built from."""

from typing import Any

from antquic_server.net.udp import PathAddress
from antquic_server.protocol.address import SocketAddress
from antquic_server.protocol.relay_targets import TargetVerdict
from support.in_process import run, running_worker, settings_with
from workers.relay_setup import relay_share, target_policy


def judge(text: str, listen: str = "0.0.0.0", **relay: Any) -> TargetVerdict:
    """Judge a target by the rules of a node on port 4433."""
    settings = settings_with(relay=relay, admin={"listen": "127.0.0.1:50001"})
    return target_policy(settings, [(listen, 4433)]).judge(SocketAddress.parse(text))


def test_share_of_a_worker_is_its_part_of_the_node() -> None:
    """Until the hub says otherwise."""
    settings = settings_with(relay={"bandwidth_bytes_per_s": 1000, "burst_s": 2.0}).relay
    share = relay_share(settings, 4)
    assert share.take(0.0, 500.0)
    assert not share.take(0.0, 1.0)
    assert share.take(1.0, 250.0)
    assert not share.take(1.0, 1.0)


def test_rules_come_from_the_settings() -> None:
    """Listen and admin port are the node's own; its public address is one of its own."""
    assert judge("127.0.0.1:50001", listen="127.0.0.1") is TargetVerdict.OWN
    assert judge("127.0.0.1:50002", listen="127.0.0.1") is TargetVerdict.ALLOWED
    assert judge("127.0.0.1:50002", listen="127.0.0.1", port_range=(60_000, 61_000)) is TargetVerdict.OWN
    assert judge("203.0.113.7:4433") is TargetVerdict.ALLOWED
    assert judge("203.0.113.7:4433", public_address="203.0.113.7") is TargetVerdict.OWN
    assert judge("203.0.113.7:50002", public_address="203.0.113.7") is TargetVerdict.ALLOWED
    assert judge("203.0.113.7:4433", denied_targets=("203.0.113.0/24",)) is TargetVerdict.DENIED
    assert judge("10.0.0.1:4433") is TargetVerdict.SPECIAL
    assert judge("10.0.0.1:4433", allowed_targets=("10.0.0.0/8",)) is TargetVerdict.ALLOWED


def test_loopback_has_sessions_only_where_the_node_listens_there() -> None:
    """A node that listens at all addresses, or at another one, sends nothing to what listens on its loopback."""
    for listen in ("0.0.0.0", "::", "198.18.0.1", "127.0.0.2"):
        assert judge("127.0.0.1:55555", listen=listen) is TargetVerdict.OWN
        assert judge("[::1]:55555", listen=listen) is TargetVerdict.OWN
    assert judge("[::1]:55555", listen="::1") is TargetVerdict.ALLOWED
    assert judge("127.0.0.1:55555", listen="::ffff:127.0.0.1") is TargetVerdict.ALLOWED
    assert judge("127.0.0.1:55555", allowed_targets=("127.0.0.0/8",)) is TargetVerdict.ALLOWED


def test_address_that_a_peer_has_reached() -> None:
    """The one in the path, else the one the socket is bound to; none for a socket that is not ours."""

    async def story() -> None:
        async with running_worker() as bench:
            local_host = bench.worker.relay_streams._desk._around.local_host
            control = bytes(4) + bytes((198, 18, 0, 1)) + bytes(4)
            assert local_host(PathAddress("198.18.0.5", 1, 0, 0, control, 0)) == "198.18.0.1"
            assert local_host(PathAddress("198.18.0.5", 1, 0, 0, b"", 0)) == "127.0.0.1"
            assert local_host(PathAddress("198.18.0.5", 1, 0, 0, b"", 1)) == ""

    run(story())
