"""
An authenticated peer that sends nonsense.

The keys are right, so every packet decrypts; what is inside is random, truncated or mutated. The connection may end
with a transport error, and nothing else may happen: no exception leaves the state machine, and no error is called
internal.
"""

import random

import pytest
from aioquic import tls
from aioquic.quic.events import ConnectionTerminated

from antquic_server.protocol.codepoints import TransportErrorCode
from fuzz.forge import Forge
from support.pair import Pair, forge_packet
from support.require import slow_tests_wanted

CONNECTIONS = 400 if slow_tests_wanted() else 60
PACKETS_PER_CONNECTION = 30
GROUPS = 10
"""Test cases the connections are spread over, so that a failure names a short run."""


def _attack(pair: Pair, forge: Forge, generator: random.Random) -> None:
    for _ in range(PACKETS_PER_CONNECTION):
        frames = b"".join(forge.random_frame() for _ in range(generator.randrange(1, 4)))
        if generator.random() < 0.3:
            frames = forge.mutate(frames)
        pair.deliver(forge_packet(pair.client, tls.Epoch.ONE_RTT, frames[:1000]))
        if pair.server.is_closing or pair.client.is_closing:
            return


@pytest.mark.parametrize("group", range(GROUPS))
def test_nonsense_from_an_authenticated_peer_ends_at_most_its_connection(group: int) -> None:
    """Frames with damaged bodies are handled, ignored or answered by a transport error of the peer's making."""
    forge = Forge(group, flights=0)
    generator = random.Random(group)
    for _ in range(CONNECTIONS // GROUPS):
        pair = Pair().handshake()

        _attack(pair, forge, generator)

        for event in pair.events(ConnectionTerminated):
            assert event.error_code != TransportErrorCode.INTERNAL_ERROR, event
