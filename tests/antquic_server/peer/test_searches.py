"""What callers of ``connect_peer`` wait for, with a core and nodes that do as the test says."""

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from antquic_server.errors import PeerUnreachableError
from antquic_server.peer.events import PunchEnded
from antquic_server.peer.keeper import Keeper
from antquic_server.peer.punching import Failure
from antquic_server.peer.searches import Searches, unreachable
from antquic_server.peer.settings import PeerSettings
from antquic_server.protocol.address import SocketAddress
from support.peers import run

NODE_AT = SocketAddress.parse("198.18.0.1:10000")
OWN, NODE, OTHER, TARGET = b"s" * 32, b"n" * 32, b"o" * 32, b"t" * 32


class FakeCore:
    """Notes what is asked of whom."""

    def __init__(self) -> None:
        self.settings = PeerSettings(discovery_timeout_s=10.0)
        self.own_peer_id = OWN
        self.node_links: list[Any] = []
        self.asked: list[tuple[bytes, list[bytes], float, float | None]] = []

    def connect_peer(
        self, target: bytes, coordinators: list[Any], now_s: float, deadline_s: float | None = None
    ) -> None:
        """Note it."""
        self.asked.append((target, [link.peer_id for link in coordinators], now_s, deadline_s))


class Stage:
    """Searches over a fake core; one known node, connected from the start."""

    def __init__(self) -> None:
        self.core = FakeCore()
        self.keeper = Keeper((NODE_AT,), jitter=lambda: 0.0)
        core: Any = self.core
        self.searches = Searches(core, self.keeper)
        self.node_up(0.0)

    def node_up(self, now_s: float) -> None:
        """The node is connected."""
        self.core.node_links = [SimpleNamespace(peer_id=NODE)]
        self.keeper.connected(NODE_AT, NODE, now_s)
        self.searches.node_ready(NODE, now_s)

    def node_gone(self, now_s: float) -> None:
        """The connection to the node has ended."""
        self.core.node_links = []
        self.keeper.peer_gone(NODE, now_s)

    def ended(self, failure: Failure | None, now_s: float, *, invited: bool = False, target: bytes = TARGET) -> None:
        """The core reports the end of an attempt."""
        self.searches.ended(PunchEnded(target=target, failure=failure, invited=invited), now_s)


def on_stage(story: Callable[[Stage], Awaitable[None]]) -> None:
    """Run ``story`` with a stage of its own."""

    async def main() -> None:
        await story(Stage())

    run(main())


def reason_of(future: asyncio.Future[Any]) -> str | None:
    """Why a search has failed, None if it has not ended."""
    if not future.done():
        return None
    error = future.exception()
    assert isinstance(error, PeerUnreachableError)
    return error.reason


def test_all_callers_get_the_same_future() -> None:
    """The node is asked once, and told how long there is."""

    async def story(stage: Stage) -> None:
        first = stage.searches.future(TARGET, None, 100.0)
        assert stage.searches.future(TARGET, [OTHER], 103.0) is first
        assert stage.core.asked == [(TARGET, [NODE], 100.0, 110.0)]
        assert TARGET in stage.searches
        connection: Any = SimpleNamespace(peer_id=TARGET)
        stage.searches.connected(connection)
        stage.searches.connected(connection)
        assert first.result() is connection
        assert TARGET not in stage.searches

    on_stage(story)


def test_connection_that_comes_after_its_caller_has_gone_does_no_harm() -> None:
    """Nor does a failure."""

    async def story(stage: Stage) -> None:
        for target in (TARGET, OTHER):
            stage.searches.future(target, None, 0.0).cancel()
        connection: Any = SimpleNamespace(peer_id=TARGET)
        stage.searches.connected(connection)
        stage.ended(Failure.NO_PATH, 1.0, target=OTHER)
        assert TARGET not in stage.searches
        assert OTHER not in stage.searches

    on_stage(story)


def test_search_waits_for_a_node_that_is_being_reconnected() -> None:
    """And has the time that is left of its own."""

    async def story(stage: Stage) -> None:
        stage.node_gone(100.0)
        future = stage.searches.future(TARGET, None, 100.5)
        assert stage.core.asked == []
        stage.node_up(104.0)
        assert stage.core.asked == [(TARGET, [NODE], 104.0, 110.5)]
        assert not future.done()

    on_stage(story)


@pytest.mark.parametrize("nodes", [None, [NODE]])
def test_search_goes_on_when_the_node_is_lost_while_it_is_asked(nodes: list[bytes] | None) -> None:
    """As a worker that dies: the request is gone with it, the caller does not notice."""

    async def story(stage: Stage) -> None:
        future = stage.searches.future(TARGET, nodes, 100.0)
        stage.node_gone(101.0)
        stage.ended(Failure.COORDINATOR_LOST, 101.0)
        assert not future.done()
        stage.node_up(102.0)
        assert stage.core.asked[1:] == [(TARGET, [NODE], 102.0, 110.0)]
        stage.ended(Failure.UNKNOWN_TARGET, 102.1)
        assert reason_of(future) == "unknown_target"

    on_stage(story)


def test_search_goes_on_at_once_when_the_node_is_back_already() -> None:
    """The loss of the old connection may be heard of after the new one is there."""

    async def story(stage: Stage) -> None:
        future = stage.searches.future(TARGET, None, 100.0)
        stage.ended(Failure.COORDINATOR_LOST, 101.0)
        assert len(stage.core.asked) == 2
        assert not future.done()

    on_stage(story)


def test_search_does_not_outlive_its_time() -> None:
    """Neither while it waits nor when its node is lost at the very end."""

    async def story(stage: Stage) -> None:
        stage.node_gone(100.0)
        waiting = stage.searches.future(TARGET, None, 100.0)
        stage.searches.handle_timer(109.9)
        assert not waiting.done()
        stage.searches.handle_timer(110.0)
        assert reason_of(waiting) == "no_coordinator"

        stage.node_up(111.0)
        asking = stage.searches.future(TARGET, None, 120.0)
        stage.node_gone(130.0)
        stage.ended(Failure.COORDINATOR_LOST, 130.0)
        assert reason_of(asking) == "coordinator_lost"

    on_stage(story)


@pytest.mark.parametrize(
    ("target", "nodes", "given_up"),
    [(TARGET, [OTHER], False), (TARGET, None, True), (OWN, None, False)],
    ids=["named nodes that are none of ours", "no node to be expected", "ourselves"],
)
def test_search_that_no_node_can_help_fails_by_way_of_the_core(
    target: bytes, nodes: list[bytes] | None, given_up: bool
) -> None:
    """Which knows the reason."""

    async def story(stage: Stage) -> None:
        stage.node_gone(100.0)
        if given_up:
            stage.keeper.give_up(peer_id=NODE)
        future = stage.searches.future(target, nodes, 100.0)
        assert stage.core.asked == [(target, [], 100.0, None)]
        stage.ended(Failure.NO_COORDINATOR, 100.0, target=target)
        assert (reason_of(future) is None) == (target == OWN)

    on_stage(story)


def test_only_the_end_of_our_own_attempt_counts() -> None:
    """Not one that the other side began, nor the good one, which a connection follows."""

    async def story(stage: Stage) -> None:
        future = stage.searches.future(TARGET, None, 100.0)
        stage.ended(Failure.NO_PATH, 101.0, invited=True)
        stage.ended(None, 101.0)
        stage.ended(Failure.NO_PATH, 101.0, target=OTHER)
        assert not future.done()
        stage.ended(Failure.NO_PATH, 101.0)
        assert reason_of(future) == "no_path"

    on_stage(story)


def test_node_that_is_no_coordinator_after_all_is_no_help() -> None:
    """Its connection was superseded before it could be asked."""

    async def story(stage: Stage) -> None:
        stage.node_gone(100.0)
        future = stage.searches.future(TARGET, None, 100.0)
        stage.keeper.connected(NODE_AT, NODE, 101.0)
        stage.searches.node_ready(NODE, 101.0)
        assert reason_of(future) == "no_coordinator"

    on_stage(story)


def test_search_that_ended_meanwhile_is_not_taken_up_again() -> None:
    """The other side came to us while the node was away."""

    async def story(stage: Stage) -> None:
        stage.node_gone(100.0)
        future = stage.searches.future(TARGET, None, 100.0)
        connection: Any = SimpleNamespace(peer_id=TARGET)
        stage.searches.connected(connection)
        assert future.result() is connection
        stage.node_up(101.0)
        stage.searches.handle_timer(200.0)
        assert stage.core.asked == []

    on_stage(story)


def test_closing_ends_every_search() -> None:
    """With its own reason."""

    async def story(stage: Stage) -> None:
        futures = [stage.searches.future(target, None, 0.0) for target in (TARGET, OTHER)]
        stage.searches.close()
        assert [reason_of(future) for future in futures] == ["endpoint_closed"] * 2

    on_stage(story)


def test_every_failure_has_a_sentence() -> None:
    """For whoever reads the error."""
    for failure in Failure:
        error = unreachable("somebody", failure)
        assert (error.target, error.reason) == ("somebody", failure.value)
        assert len(str(error)) > len(failure.value) + 10
