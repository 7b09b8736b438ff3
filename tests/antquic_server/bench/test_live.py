"""Measurements against a server in another process."""

import pytest

from antquic_server.bench.live import EchoLoad, measure_live_echo, measure_live_handshakes
from antquic_server.bench.load_client import ClientSettings, random_node_key
from antquic_server.bench.node_process import running_node
from antquic_server.bench.variants import variants
from antquic_server.pqc.cryptography_provider import CryptographyProvider
from antquic_server.pqc.pool import PqcPool

pytestmark = pytest.mark.end_to_end


@pytest.mark.parametrize("variant", variants(["cryptography"]), ids=lambda item: item.name.split()[0])
def test_handshakes_complete_with_every_variant(variant: object) -> None:
    """Each kind of handshake really completes against a node, and costs its worker CPU time."""
    result = measure_live_handshakes(variant, 0.5)  # type: ignore[arg-type]

    assert result.completed > 0
    assert result.failed == 0
    assert result.worker_cpu_s > 0


def test_echo_counts_frames_that_came_back() -> None:
    """Frames are counted when they arrive, with the wall and CPU time they took."""
    pool = PqcPool(CryptographyProvider(), 4)
    settings = ClientSettings(pqc=pool, node_key=random_node_key(pool))
    load = EchoLoad(connections=2, in_flight=8, frame_bytes=500, seconds=0.5)
    with running_node() as server:
        result = measure_live_echo(server, settings, load)

    assert result.echoed > 2 * 8
    assert result.wall_s >= 0.5
    assert result.server_cpu_s > 0
