"""Tests of ``antquic_server.protocol.seam.mtu_probing``: two ends, and a link that swallows what is too large."""

import random
from collections.abc import Sequence
from typing import Any

import pytest
from aioquic.buffer import Buffer
from aioquic.quic.events import DatagramFrameReceived, StreamDataReceived
from aioquic.quic.packet_builder import QuicPacketBuilder

from antquic_server.protocol.path_mtu import RAISE_INTERVAL_S, MtuState, PathMtu
from antquic_server.protocol.seam.connection import NodeQuicConnection
from antquic_server.protocol.seam.mtu_probing import MtuRecovery
from antquic_server.protocol.seam.options import Tally
from support.pair import PERFECT, Datagram, Link, Pair, client_connection, server_connection

NEW_ADDRESS = ("203.0.113.9", 61000)
DATA = random.Random(7).randbytes(400_000)


class Path:
    """A link that carries datagrams up to ``mtu`` bytes and notes the sizes that either end sends."""

    def __init__(self, mtu: int) -> None:
        self.mtu = mtu
        self.sizes: dict[bool, list[int]] = {True: [], False: []}

    def __call__(self, datagram: Datagram) -> Sequence[bytes]:
        """Let pass what fits."""
        size = len(datagram.data)
        self.sizes[datagram.from_client].append(size)
        return [datagram.data] if size <= self.mtu else []

    def largest(self) -> int:
        """The largest datagram anybody has sent."""
        return max(self.sizes[True] + self.sizes[False])


def pair_on(
    path: Path,
    *,
    mtu_max: int | None = 1452,
    server_mtu: dict[str, Any] | None = None,
    link: Link = PERFECT,
    seed: int = 0,
    **client_configuration: Any,
) -> Pair:
    """Two ends that look for the MTU of ``path``, each with a tally of its own."""
    server_options = {"mtu_max": mtu_max, "tally": Tally()} | (server_mtu or {})
    return Pair(
        client_connection(options={"mtu_max": mtu_max, "tally": Tally()}, **client_configuration),
        lambda cid: server_connection(cid, options=server_options),
        link=link,
        seed=seed,
        tamper=path,
    )


def mtu_of(end: NodeQuicConnection) -> PathMtu:
    """The search of one end."""
    assert end._mtu_recovery is not None
    return end._mtu_recovery.path_mtu


def tally_of(end: NodeQuicConnection) -> Tally:
    """What one end counts."""
    return end._options.tally


def settled(pair: Pair) -> bool:
    """Whether both ends have finished their search."""
    return all(mtu_of(end).state is MtuState.SEARCH_COMPLETE for end in (pair.client, pair.server))


def received(pair: Pair, *, of_server: bool) -> bytes:
    """All stream data one end has got."""
    return b"".join(event.data for event in pair.events(StreamDataReceived, of_server=of_server))


def transfer(pair: Pair, data: bytes = DATA, *, limit_s: float = 120.0) -> float:
    """Send data from the server to the client and check every byte; returns the virtual seconds it took."""
    before = len(received(pair, of_server=False))
    started_s = pair.now_s
    stream_id = pair.server.get_next_available_stream_id(is_unidirectional=True)
    pair.server.send_stream_data(stream_id, data, end_stream=True)
    pair.flush()
    assert pair.run(lambda: len(received(pair, of_server=False)) >= before + len(data), limit_s), pair.describe()
    assert received(pair, of_server=False)[before:] == data
    return pair.now_s - started_s


@pytest.mark.parametrize(("mtu", "found"), [(1200, 1200), (1232, 1232), (1390, 1388), (1452, 1452), (9000, 1452)])
def test_both_ends_find_the_mtu_after_the_handshake(mtu: int, found: int) -> None:
    """The size settles at what the link carries, within four bytes, and never above the maximum."""
    path = Path(mtu)
    pair = pair_on(path).handshake()

    assert pair.run(lambda: settled(pair), 30.0)
    for end in (pair.client, pair.server):
        assert end.path_mtu_bytes == found
        assert end.max_datagram_frame_bytes < found
    assert path.largest() <= 1452
    transfer(pair)
    # The one size that is used is used fully: found size, except for the ends of flights.
    full = [size for size in path.sizes[False] if size == found]
    assert len(full) >= len(DATA) // found


def test_jumbo_frames_are_found() -> None:
    """A large range takes few probes as well."""
    path = Path(8952)
    pair = pair_on(path, mtu_max=9000).handshake()
    assert pair.run(lambda: settled(pair), 30.0)

    assert pair.server.path_mtu_bytes == 8952
    transfer(pair)


@pytest.mark.parametrize("mtu", [1200, 9000])
def test_handshake_uses_the_initial_size(mtu: int) -> None:
    """Until the handshake is confirmed no datagram is larger than 1200, whatever the path."""
    path = Path(mtu)
    pair = pair_on(path).connect()
    while not (pair.has_server and pair.server.handshake_confirmed):
        assert path.largest() == 1200
        assert pair.run(lambda: True, 0.0)
        pair._step()
        pair.now_s += 0.01


def test_initial_size_of_the_options_replaces_that_of_aioquic() -> None:
    """``mtu_initial`` sizes the handshake, padding of Initials included, and without ``mtu_max`` everything after."""
    path = Path(9000)
    client = client_connection(options={"mtu_initial": 1350})
    Pair(client, tamper=path).handshake()

    assert path.sizes[True][0] == 1350
    assert client.path_mtu_bytes == max(path.sizes[True]) == 1350


def test_without_maximum_nothing_is_probed() -> None:
    """The options at their default leave aioquic's loss detection and datagram size in place."""
    path = Path(9000)
    pair = pair_on(path, mtu_max=None).handshake()
    transfer(pair)

    assert path.largest() == 1200
    assert not isinstance(pair.server._loss, MtuRecovery)


def test_maximum_for_tunnels_is_never_exceeded() -> None:
    """``max = 1280``: no datagram and no probe above, although the path carries more."""
    path = Path(9000)
    pair = pair_on(path, mtu_max=1280).handshake()
    transfer(pair)

    assert path.largest() == 1280


def test_peer_limit_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server told that its client takes 1300 bytes (max_udp_payload_size) sends and probes no more."""
    serialize = NodeQuicConnection._serialize_transport_parameters

    def with_limit(end: NodeQuicConnection) -> bytes:
        buf = Buffer(capacity=8)
        buf.push_uint_var(3)
        buf.push_uint_var(2)
        buf.push_uint_var(1300)
        return serialize(end) + (buf.data if end._is_client else b"")

    monkeypatch.setattr(NodeQuicConnection, "_serialize_transport_parameters", with_limit)
    path = Path(9000)
    pair = pair_on(path).handshake()
    transfer(pair)

    assert max(path.sizes[False]) == 1300
    assert max(path.sizes[True]) == 1452


def test_lost_probes_do_not_slow_down() -> None:
    """Refuted sizes leave the congestion window alone (RFC 9000, section 14.4)."""
    path = Path(1250)
    pair = pair_on(path).handshake()
    window = pair.server._loss.congestion_window
    assert pair.run(lambda: settled(pair), 30.0)

    pair.advance(1.0)

    assert tally_of(pair.server).mtu_probes_lost >= 9
    assert pair.server._loss._cc.ssthresh is None
    assert pair.server._loss.congestion_window >= window
    assert pair.server._loss.bytes_in_flight == 0


def test_probes_lost_among_traffic_do_not_slow_down() -> None:
    """The same while data flows: the only datagrams the link drops are probes, so there is no congestion."""
    path = Path(1250)
    pair = pair_on(path)
    pair.connect()
    assert pair.run(lambda: pair.established, 10.0)
    transfers = 0
    while mtu_of(pair.server).state is not MtuState.SEARCH_COMPLETE:
        transfer(pair, DATA[:50_000])
        transfers += 1

    assert transfers > 2
    assert pair.server.path_mtu_bytes == 1248
    assert tally_of(pair.server).mtu_black_holes == 0
    dropped = [size for size in path.sizes[False] if size > 1250]
    assert len(dropped) == tally_of(pair.server).mtu_probes_lost
    assert pair.server._loss._cc.ssthresh is None


def test_black_hole_in_mid_connection_is_survived() -> None:
    """The path shrinks under a transfer: every byte arrives, and the size settles at what is left."""
    path = Path(1452)
    pair = pair_on(path, link=Link(delay_s=(0.02, 0.02))).handshake()
    assert pair.run(lambda: settled(pair))
    stream_id = pair.server.get_next_available_stream_id(is_unidirectional=True)
    pair.server.send_stream_data(stream_id, DATA, end_stream=True)
    pair.flush()
    pair.advance(0.1)
    assert 0 < len(received(pair, of_server=False)) < len(DATA)

    path.mtu = 1300
    shrunk_s = pair.now_s
    assert pair.run(lambda: pair.server.path_mtu_bytes == 1200, 10.0)
    assert pair.now_s - shrunk_s < 2.0
    assert pair.run(lambda: len(received(pair, of_server=False)) == len(DATA), 60.0), pair.describe()
    assert received(pair, of_server=False) == DATA
    assert pair.run(lambda: settled(pair), 30.0)
    assert pair.server.path_mtu_bytes == 1300
    assert tally_of(pair.server).mtu_black_holes == 1


def test_black_hole_is_noticed_with_single_messages() -> None:
    """One large message at a time, each lost whole: the third tells, and all arrive."""
    path = Path(1452)
    pair = pair_on(path).handshake()
    assert pair.run(lambda: settled(pair))
    path.mtu = 1300
    for _ in range(4):
        transfer(pair, DATA[:1380], limit_s=10.0)
        pair.advance(0.2)
    assert pair.run(lambda: settled(pair), 30.0)

    assert pair.server.path_mtu_bytes == 1300


@pytest.mark.parametrize("delay_s", [(0.02, 0.02), (0.01, 0.03)], ids=["in order", "reordered"])
@pytest.mark.parametrize("loss", [0.0, 0.02, 0.1])
@pytest.mark.parametrize("seed", range(3))
def test_loss_is_not_mistaken_for_a_narrow_path(seed: int, loss: float, delay_s: tuple[float, float]) -> None:
    """Whatever is lost or overtaken in both directions, the size is found, kept, and every byte arrives."""
    path = Path(1452)
    pair = pair_on(path, link=Link(loss=loss, delay_s=delay_s), seed=seed).handshake()
    transfer(pair, DATA[:200_000])
    assert pair.run(lambda: settled(pair), 60.0)

    assert pair.server.path_mtu_bytes == 1452
    assert tally_of(pair.server).mtu_black_holes == 0


def test_outage_is_not_mistaken_for_a_black_hole() -> None:
    """Nothing arrives for six seconds in the middle of a transfer; afterwards the size is what it was."""
    path = Path(1452)
    pair = pair_on(path).handshake()
    assert pair.run(lambda: settled(pair))
    stream_id = pair.server.get_next_available_stream_id(is_unidirectional=True)
    pair.server.send_stream_data(stream_id, DATA, end_stream=True)
    pair.flush()
    pair.advance(0.1)
    path.mtu = 0
    pair.advance(6.0)
    path.mtu = 1452

    assert pair.run(lambda: len(received(pair, of_server=False)) == len(DATA), 60.0), pair.describe()
    assert received(pair, of_server=False) == DATA
    assert pair.server.path_mtu_bytes == 1452
    assert tally_of(pair.server).mtu_black_holes == 0


def test_outage_during_the_search_refutes_nothing() -> None:
    """A probe that a timeout gave up counts only once something else arrives again."""
    path = Path(1452)
    pair = pair_on(path)
    pair.connect()
    assert pair.run(lambda: tally_of(pair.client).mtu_probes_sent > 0, 10.0)
    path.mtu = 0
    pair.advance(8.0)
    path.mtu = 1452
    assert pair.run(lambda: settled(pair), 30.0)

    assert pair.client.path_mtu_bytes == pair.server.path_mtu_bytes == 1452


def test_late_acknowledgement_saves_a_probe_given_up() -> None:
    """A round trip far longer than the first ones: the probe has arrived, and that is what counts."""
    path = Path(1452)
    pair = pair_on(path)
    pair.connect()
    assert pair.run(lambda: pair.established, 10.0)
    pair.link = Link(delay_s=(0.6, 0.6))
    assert pair.run(lambda: settled(pair), 30.0)

    assert pair.server.path_mtu_bytes == 1452
    assert tally_of(pair.server).mtu_probes_lost == 0


def test_new_path_of_the_peer_is_explored_from_the_start() -> None:
    """After a rebinding nothing larger than 1200 is sent until the new, narrower path has proven it."""
    path = Path(1452)
    pair = pair_on(path).handshake()
    assert pair.run(lambda: settled(pair))
    path.mtu = 1300
    seen = len(path.sizes[False])
    pair.client_address = NEW_ADDRESS
    pair.client.send_ping(1)
    pair.flush()
    assert pair.run(lambda: mtu_of(pair.server).state is MtuState.BASE, 5.0)
    assert pair.run(lambda: mtu_of(pair.server).state is MtuState.SEARCH_COMPLETE, 30.0)

    assert pair.server.get_peer_address() == NEW_ADDRESS
    assert pair.server.path_mtu_bytes == 1300
    on_new_path = path.sizes[False][seen:]
    assert max(on_new_path[:2]) <= 1200
    assert tally_of(pair.server).mtu_black_holes == 0
    transfer(pair)


def test_raise_timer_finds_a_path_that_grew() -> None:
    """After ten minutes with keep-alives the larger size is found."""
    path = Path(1300)
    pair = pair_on(path).handshake()
    assert pair.run(lambda: settled(pair), 30.0)
    path.mtu = 1500
    for _ in range(int(RAISE_INTERVAL_S / 15) + 2):
        pair.client.send_ping(1)
        pair.server.send_ping(1)
        pair.flush()
        pair.advance(15.0)

    assert pair.client.path_mtu_bytes == pair.server.path_mtu_bytes == 1452


def test_datagram_frames_above_a_shrunk_size_do_not_block_the_others() -> None:
    """What waits and does not fit any more is dropped and counted; what fits arrives."""
    path = Path(1452)
    pair = pair_on(path).handshake()
    assert pair.run(lambda: settled(pair))
    assert pair.server._mtu_recovery is not None
    pair.server.send_datagram_frame(bytes(1300))
    pair.server.send_datagram_frame(b"fits")
    assert pair.server._mtu_recovery.path_mtu.black_hole(pair.now_s)
    pair.flush()
    pair.advance(0.5)

    assert [event.data for event in pair.events(DatagramFrameReceived, of_server=False)] == [b"fits"]
    assert tally_of(pair.server).mtu_datagram_frames_dropped == 1


def test_closing_connection_sends_no_probe() -> None:
    """The closing datagram is the last one."""
    path = Path(1300)
    pair = pair_on(path)
    pair.connect()
    assert pair.run(lambda: pair.established, 10.0)
    sent = tally_of(pair.client).mtu_probes_sent
    pair.client.close(0)
    pair.flush()
    pair.advance(0.2)

    assert tally_of(pair.client).mtu_probes_sent == sent


def test_probe_is_one_packet_of_ping_and_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing in a probe would have to be repeated: a PING frame, then only padding up to the size."""
    plain: list[bytes] = []
    end_packet = QuicPacketBuilder._end_packet

    def spy(builder: QuicPacketBuilder) -> None:
        if builder._buffer_capacity == 1452 and builder._packet is not None and builder._buffer.tell() > 1400:
            plain.append(builder._buffer.data_slice(builder._header_size, builder._buffer.tell()))
        end_packet(builder)

    monkeypatch.setattr(QuicPacketBuilder, "_end_packet", spy)
    path = Path(1440)
    pair = pair_on(path).handshake()
    assert pair.run(lambda: settled(pair), 30.0)

    assert plain
    for payload in plain:
        assert payload[0] == 0x01
        assert not any(payload[1:])


def test_tallies_count_probes() -> None:
    """One probe suffices on a wide path; on a narrow one the lost ones are counted too."""
    wide = pair_on(Path(1500)).handshake()
    assert (tally_of(wide.server).mtu_probes_sent, tally_of(wide.server).mtu_probes_lost) == (1, 0)

    narrow = pair_on(Path(1200)).handshake()
    assert narrow.run(lambda: settled(narrow), 60.0)
    tally = tally_of(narrow.server)
    assert tally.mtu_probes_sent == tally.mtu_probes_lost
    assert tally.mtu_probes_sent % 3 == 0
