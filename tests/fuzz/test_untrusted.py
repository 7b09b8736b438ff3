"""Every function marked ``_untrusted`` is fed damaged input: only the decode errors may come out."""

import importlib
import inspect
import os
import pkgutil
import random
import socket
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest
from aioquic import tls
from aioquic.buffer import Buffer

import antquic_server
import workers
from antquic_server.errors import DecodeError
from antquic_server.ipc.codec import decode_untrusted, encode
from antquic_server.ipc.messages import Hello, PeerUp
from antquic_server.net.stray import decode_stray_untrusted, encode_stray
from antquic_server.net.udp import PathAddress, SendResult
from antquic_server.pqc.pool import PqcPool
from antquic_server.pqc.provider import validate_ciphertext_untrusted, validate_encapsulation_key_untrusted
from antquic_server.pqc.select import load_provider
from antquic_server.protocol.address import SocketAddress, pull_address_untrusted
from antquic_server.protocol.address_discovery import Mapping
from antquic_server.protocol.codepoints import NamedGroup
from antquic_server.protocol.coordination import decode_envelope_untrusted
from antquic_server.protocol.frames import EXTENSION_FRAME_TYPES, pull_frame_untrusted
from antquic_server.protocol.key_exchange import ClientKeyShare, answer_key_share_untrusted
from antquic_server.protocol.limits import KeyedBuckets, TokenBucket
from antquic_server.protocol.liveness import answer_probe_untrusted, answered_tag_untrusted
from antquic_server.protocol.parameters import (
    ExtensionParameters,
    pull_extension_parameters_untrusted,
    push_extension_parameters,
)
from antquic_server.protocol.punch_report import PunchReport, decode_punch_report_untrusted, encode_punch_report
from antquic_server.protocol.raw_public_key import (
    decode_subject_public_key_info_untrusted,
    encode_subject_public_key_info,
)
from antquic_server.protocol.relay_channel import (
    bind_counter_untrusted,
    bind_nonce_untrusted,
    data_header,
    encode_bind,
    encode_bound,
    encode_challenge,
    encode_unknown,
    is_bind_answer_untrusted,
    unknown_token_untrusted,
    verify_leg_untrusted,
)
from antquic_server.protocol.relay_control import (
    ChannelClosed,
    ChannelOpened,
    ChannelRequest,
    decode_channel_message_untrusted,
    encode_channel_message,
)
from antquic_server.protocol.relay_stream import (
    BIND_REQUEST,
    ConnectUdpResponse,
    FrameReader,
    MessageReader,
    decode_frame_untrusted,
    decode_request_untrusted,
    decode_response_untrusted,
    encode_frame,
    encode_response,
    frame_header,
)
from antquic_server.protocol.relay_targets import TargetPolicy, TargetRules
from antquic_server.protocol.retry_policy import RetryPolicy
from antquic_server.protocol.retry_token import RetryTokenSealer
from antquic_server.protocol.routing import ConnectionIdLayout, destination_connection_id_untrusted
from antquic_server.protocol.seam.tls_context import certificate_types_untrusted
from antquic_server.protocol.version_negotiation import offered_versions_untrusted
from antquic_server.stats.counters import CounterSet
from antquic_server.supervisor.admin_request import after_untrusted, names_us_untrusted, split_target_untrusted
from fuzz.forge import Forge
from fuzz.peer_feeds import PEER_FEEDS
from support.channels import INITIATOR_KEY, TARGET_KEY, FakeUdp, bind_at, made_up_id
from support.coordination import ALICE, BOB, on_the_wire, request, request_fields
from workers.admission import Admission, Load
from workers.channel_control import ChannelControl
from workers.channel_table import Channel, ChannelTable
from workers.connection import Connection
from workers.coordination import Coordination, Surroundings
from workers.incoming import Incoming
from workers.punch_reports import PunchReports
from workers.relay_meter import SessionMeter
from workers.relay_ports import RelayPort
from workers.relay_session import RelayCounters, RelaySession
from workers.strangers import Strangers

ROUNDS = 3000
EXPECTED_ERRORS = (DecodeError, tls.Alert)
PATH = PathAddress("198.18.0.5", 4433, 0, 0, b"", 0)
ADDRESS = SocketAddress.parse("198.18.0.5:4433")
CID = bytes(range(10))
LOAD = Load(connections_on_node=0, half_open=0, loop_lag_s=0.0)

Feed = Callable[[bytes], object]


def _admission() -> Admission:
    return Admission(
        counters=CounterSet(),
        sealer=SEALER,
        retry_policy=RetryPolicy(mode="off", half_open_threshold=1),
        address_rates=KeyedBuckets(1e9, 1e9, 16),
        prefix_rates=KeyedBuckets(1e9, 1e9, 16),
        max_connections=10,
        new_connection_id=lambda: CID,
        random_bytes=os.urandom,
    )


def _strangers() -> Strangers:
    return Strangers(
        slot=0,
        layout=ConnectionIdLayout(node_id=b"ab", worker_count=1),
        stray_senders=[],
        admission=_admission(),
        counters=CounterSet(),
        reset_key=bytes(32),
        resets_per_s=1e9,
        random_bytes=os.urandom,
        reply=lambda path, datagram: None,
    )


class _Peer:
    """What coordination asks of a connection's state machine."""

    is_closing = False
    remote_extensions = ExtensionParameters(relay_channels=True)
    candidates: tuple[SocketAddress, ...] = ()
    validated_address = PATH

    def send_message(self, data: bytes) -> bool:
        """Answers go nowhere."""
        return True

    def get_peer_address(self) -> PathAddress:
        """Where the peer is."""
        return PATH


def _surroundings(connection: Connection) -> Surroundings:
    return Surroundings(
        tell_hub=lambda message: len(encode(message)) > 0,
        find=lambda number: connection,
        flush=lambda _: None,
        monotonic_s=lambda: 0.0,
        unix_s=lambda: 0.0,
    )


def _channel_table() -> ChannelTable:
    """A table with one channel, whose initiator has bound."""
    table = ChannelTable(
        slot=0,
        worker_count=1,
        sockets=[FakeUdp().as_udp],
        counters=CounterSet(),
        secret=bytes(32),
        unknowns_per_s=1e9,
    )
    session = SessionMeter(number=1, rate_bytes_per_s=1e9, burst_bytes=1e9, share=TokenBucket(1e9, 1e9))
    keys = {"initiator_key": INITIATOR_KEY, "target_key": TARGET_KEY}
    table.add(Channel(CHANNEL_ID, **keys, session=session, now_s=0.0))
    bind_at(table, CHANNEL_ID, 1, INITIATOR_KEY, PATH, 0.0)
    return table


def _connection() -> Connection:
    quic: Any = _Peer()
    connection = Connection(number=1, quic=quic, path=PATH, handshake_deadline_s=0.0)
    connection.peer_id = ALICE
    return connection


CONNECTION = _connection()
COORDINATION = Coordination(_surroundings(CONNECTION), counters=CounterSet(), rates=KeyedBuckets(1e9, 1e9, 16))
CHANNEL_ID = made_up_id(1)
CHANNEL_TABLE = _channel_table()
CHANNEL_CONTROL = ChannelControl(_surroundings(CONNECTION), CounterSet())
CHANNEL_MESSAGES = [
    encode_channel_message(item)
    for item in (
        ChannelRequest(request_id=1, target=BOB),
        ChannelOpened(request_id=1, target=BOB, channel_id=CHANNEL_ID, key=bytes(32), token=bytes(16)),
        ChannelClosed(channel_id=CHANNEL_ID, reason="closed"),
    )
]
PUNCH_REPORT = encode_punch_report(PunchReport(other=BOB, succeeded=True, nat_mapping=Mapping.DEPENDENT))
PUNCH_REPORTS = PunchReports(lambda message: len(encode(message)) > 0, count().__next__, CounterSet())
BIND = encode_bind(CHANNEL_ID, 2, TARGET_KEY)
BOUND = encode_bound(CHANNEL_ID, 2, TARGET_KEY, bytes(8))
CHALLENGE = encode_challenge(CHANNEL_ID, 2, TARGET_KEY, b"N" * 8)
UNKNOWN = encode_unknown(CHANNEL_ID, bytes(16))
CHANNEL_DATAGRAMS = [
    *(BIND, BOUND, CHALLENGE, UNKNOWN),
    data_header(CHANNEL_ID) + bytes(20),
    data_header(made_up_id(2)) + bytes(20),
]
REQUEST = request(ALICE, BOB)
OTHER_REQUEST = on_the_wire(request_fields(ALICE, ALICE, addresses=("[2001:db8::1]:1", "198.18.0.5:4433")))

PROVIDER = load_provider("cryptography")
POOL = PqcPool(PROVIDER, 2)
SEALER = RetryTokenSealer(bytes(32))
TOKEN = SEALER.seal(
    address=ADDRESS,
    original_destination_connection_id=CID,
    retry_source_connection_id=CID,
    now_s=1e9,
    random_bytes=os.urandom,
)
ENCAPSULATION_KEY = PROVIDER.generate_kem_key_pair().public_key
CIPHERTEXT = PROVIDER.encapsulate(ENCAPSULATION_KEY)[0]
HYBRID_SHARE = ClientKeyShare(POOL, NamedGroup.X25519_ML_KEM_768).share
FRAME_BODY = bytes.fromhex("0105cb00710711510000")
PARAMETERS = push_extension_parameters(
    ExtensionParameters(nat_traversal=10, rfc_nat_traversal=True, address_discovery=2)
)
MESSAGES = [encode(Hello(version=1, pid=1)), encode(PeerUp(peer_id=bytes(32), connection=1, host="::1", port=2))]
ADMISSION = _admission()
STRANGERS = _strangers()
INCOMING = Incoming(CHANNEL_TABLE, STRANGERS, CounterSet())


def _feed_frames(data: bytes) -> None:
    for frame_type in EXTENSION_FRAME_TYPES:
        try:
            pull_frame_untrusted(frame_type, Buffer(data=data))
        except DecodeError:
            continue


def _feed_shares(data: bytes) -> None:
    for group in (NamedGroup.ML_KEM_768, NamedGroup.X25519_ML_KEM_768, NamedGroup.X25519, NamedGroup.SECP256R1):
        try:
            answer_key_share_untrusted(POOL, group, data)
        except DecodeError:
            continue


def _feed_client_share(data: bytes) -> None:
    ClientKeyShare(POOL, NamedGroup.X25519).finish_untrusted(data)


def _feed_judge(data: bytes) -> None:
    ADMISSION.judge_untrusted(data, PATH, load=LOAD, now_s=0.0, unix_s=1e9)


def _feed_strangers(data: bytes) -> None:
    STRANGERS.judge_untrusted(data, PATH, destination_connection_id_untrusted(data), load=LOAD, now_s=0.0)


def _feed_token(data: bytes) -> None:
    SEALER.open_untrusted(token=data, address=ADDRESS, destination_connection_id=CID, now_s=1e9)


def _feed_table(data: bytes) -> None:
    # What is shorter or of another kind is never given to it.
    if len(data) >= 8:
        CHANNEL_TABLE.receive_untrusted(data, PATH, 0.0)


class _Nowhere:
    """A socket that takes everything."""

    sock = SimpleNamespace(family=socket.AF_INET)

    def send(self, path: PathAddress, datagrams: Sequence[bytes]) -> SendResult:
        """As if it was sent; what no socket could send would raise here."""
        assert path.port > 0
        assert all(isinstance(item, bytes) for item in datagrams)
        return SendResult(len(datagrams), 0, 0)


def _feed_reader(data: bytes) -> None:
    reader = FrameReader()
    reader.feed(data)
    reader.take_untrusted()


def _feed_messages(data: bytes) -> None:
    reader = MessageReader(1024)
    reader.feed(data)
    while reader.next_untrusted() is not None:
        pass


def _feed_session(data: bytes) -> None:
    rules = TargetRules(allowed=(), denied=(), own_ports=frozenset(), session_ports=(49152, 65535))
    nowhere: Any = _Nowhere()
    session = RelaySession(
        RelayPort(udp=nowhere, host="198.18.0.1", port=50000),
        deliver=lambda frames: None,
        room_bytes=lambda: 1 << 20,
        policy=TargetPolicy(rules, lambda host: False),
        rate=TokenBucket(1e9, 1e9),
        share=TokenBucket(1e9, 1e9),
        counters=RelayCounters(CounterSet()),
        advertised_host="198.18.0.1",
        session_ports=(49152, 65535),
    )
    session.feed(data)
    session.send_untrusted()


RELAY_FRAMES = [
    encode_frame(frame_header(ADDRESS), b"payload"),
    encode_frame(frame_header(SocketAddress.parse("[::ffff:198.18.0.5]:1")), bytes(1200)) * 3,
]
RELAY_RESPONSES = [
    encode_response(ConnectUdpResponse(status=200, address=ADDRESS)),
    encode_response(ConnectUdpResponse(status=503, reason="peer_sessions")),
]

FORGE = Forge(1)
DATAGRAMS = [datagram for _ in range(50) for datagram in FORGE.next_datagrams()]

# How to feed bytes to each function, and what its input looks like when nothing is wrong with it.
FEEDS: dict[str, tuple[Feed, list[bytes]]] = {
    "antquic_server.ipc.codec.decode_untrusted": (decode_untrusted, [item[4:] for item in MESSAGES]),
    "antquic_server.net.stray.decode_stray_untrusted": (decode_stray_untrusted, [encode_stray(PATH, b"data")]),
    "antquic_server.pqc.provider.validate_ciphertext_untrusted": (validate_ciphertext_untrusted, [CIPHERTEXT]),
    "antquic_server.pqc.provider.validate_encapsulation_key_untrusted": (
        validate_encapsulation_key_untrusted,
        [ENCAPSULATION_KEY],
    ),
    "antquic_server.protocol.address.pull_address_untrusted": (
        lambda data: pull_address_untrusted(Buffer(data=data), ipv6=len(data) % 2 == 0),
        [bytes(6), bytes(18)],
    ),
    "antquic_server.protocol.coordination.decode_envelope_untrusted": (
        decode_envelope_untrusted,
        [REQUEST, OTHER_REQUEST],
    ),
    "antquic_server.protocol.frames.pull_frame_untrusted": (_feed_frames, [FRAME_BODY, FRAME_BODY + bytes(16)]),
    "antquic_server.protocol.key_exchange.ClientKeyShare.finish_untrusted": (_feed_client_share, [bytes(32)]),
    "antquic_server.protocol.key_exchange.answer_key_share_untrusted": (
        _feed_shares,
        [ENCAPSULATION_KEY, HYBRID_SHARE],
    ),
    "antquic_server.protocol.liveness.answer_probe_untrusted": (answer_probe_untrusted, [b"ANQProR1" + bytes(16)]),
    "antquic_server.protocol.liveness.answered_tag_untrusted": (answered_tag_untrusted, [b"ANQAckC1" + bytes(18)]),
    "antquic_server.protocol.parameters.pull_extension_parameters_untrusted": (
        pull_extension_parameters_untrusted,
        [PARAMETERS],
    ),
    "antquic_server.protocol.punch_report.decode_punch_report_untrusted": (
        decode_punch_report_untrusted,
        [PUNCH_REPORT],
    ),
    "antquic_server.protocol.raw_public_key.decode_subject_public_key_info_untrusted": (
        decode_subject_public_key_info_untrusted,
        [encode_subject_public_key_info(bytes(1952))],
    ),
    "antquic_server.protocol.relay_channel.bind_counter_untrusted": (bind_counter_untrusted, [BIND]),
    "antquic_server.protocol.relay_channel.bind_nonce_untrusted": (bind_nonce_untrusted, [BIND, CHALLENGE]),
    "antquic_server.protocol.relay_channel.is_bind_answer_untrusted": (
        lambda data: is_bind_answer_untrusted(data, BIND, TARGET_KEY),
        [BOUND, CHALLENGE],
    ),
    "antquic_server.protocol.relay_channel.unknown_token_untrusted": (unknown_token_untrusted, [UNKNOWN]),
    "antquic_server.protocol.relay_channel.verify_leg_untrusted": (
        lambda data: verify_leg_untrusted(data, TARGET_KEY),
        [BIND],
    ),
    "antquic_server.protocol.relay_control.decode_channel_message_untrusted": (
        decode_channel_message_untrusted,
        CHANNEL_MESSAGES,
    ),
    "antquic_server.protocol.relay_stream.FrameReader.take_untrusted": (_feed_reader, RELAY_FRAMES),
    "antquic_server.protocol.relay_stream.MessageReader.next_untrusted": (
        _feed_messages,
        [BIND_REQUEST, *RELAY_RESPONSES],
    ),
    "antquic_server.protocol.relay_stream.decode_frame_untrusted": (
        decode_frame_untrusted,
        [item[4:] for item in RELAY_FRAMES],
    ),
    "antquic_server.protocol.relay_stream.decode_request_untrusted": (decode_request_untrusted, [BIND_REQUEST[4:]]),
    "antquic_server.protocol.relay_stream.decode_response_untrusted": (
        decode_response_untrusted,
        [item[4:] for item in RELAY_RESPONSES],
    ),
    "antquic_server.protocol.retry_token.RetryTokenSealer.open_untrusted": (_feed_token, [TOKEN]),
    "antquic_server.protocol.routing.destination_connection_id_untrusted": (
        destination_connection_id_untrusted,
        DATAGRAMS,
    ),
    "antquic_server.protocol.seam.tls_context.certificate_types_untrusted": (
        lambda data: certificate_types_untrusted([(19, data)], 19),
        [b"\x02\x00\x02"],
    ),
    "antquic_server.protocol.version_negotiation.offered_versions_untrusted": (
        lambda data: offered_versions_untrusted(data, bytes(8), bytes(8)),
        [b"\xc0\0\0\0\0\x08" + bytes(8) + b"\x08" + bytes(8) + b"\0\0\0\1"],
    ),
    "workers.admission.Admission.judge_untrusted": (_feed_judge, DATAGRAMS),
    "antquic_server.supervisor.admin_request.after_untrusted": (
        lambda data: after_untrusted(data.decode("latin-1")),
        [b"after=12.5", b"", b"after=1&after=2&x=%41"],
    ),
    "antquic_server.supervisor.admin_request.names_us_untrusted": (
        lambda data: names_us_untrusted(data.decode("latin-1"), ("node.example.org",)),
        [b"localhost:10001", b"[::1]:10001", b"node.example.org"],
    ),
    "antquic_server.supervisor.admin_request.split_target_untrusted": (
        lambda data: split_target_untrusted(data.decode("latin-1")),
        [b"/history?after=1", b"http://localhost:10001/history?after=1", b"http://[::1]"],
    ),
    "workers.channel_control.ChannelControl.handle_message_untrusted": (
        lambda data: CHANNEL_CONTROL.handle_message_untrusted(CONNECTION, data),
        CHANNEL_MESSAGES,
    ),
    "workers.channel_table.ChannelTable.receive_untrusted": (_feed_table, CHANNEL_DATAGRAMS),
    "workers.incoming.Incoming.receive_untrusted": (
        lambda data: INCOMING.receive_untrusted(data, PATH, 0.0, forward_strays=True),
        CHANNEL_DATAGRAMS,
    ),
    "workers.coordination.Coordination.handle_message_untrusted": (
        lambda data: COORDINATION.handle_message_untrusted(CONNECTION, data),
        [REQUEST, OTHER_REQUEST],
    ),
    "workers.punch_reports.PunchReports.handle_message_untrusted": (
        lambda data: PUNCH_REPORTS.handle_message_untrusted(CONNECTION, data),
        [PUNCH_REPORT],
    ),
    "workers.relay_session.RelaySession.send_untrusted": (_feed_session, RELAY_FRAMES),
    "workers.strangers.Strangers.judge_untrusted": (_feed_strangers, DATAGRAMS),
    **PEER_FEEDS,
}


def _marked_functions() -> Iterator[str]:
    """Names of all public functions and methods that carry the suffix."""
    for package in (antquic_server, workers):
        for info in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            if info.name.endswith("__main__"):
                continue
            module = importlib.import_module(info.name)
            for name, value in vars(module).items():
                if getattr(value, "__module__", None) != module.__name__:
                    continue
                if inspect.isfunction(value) and name.endswith("_untrusted") and not name.startswith("_"):
                    yield f"{module.__name__}.{name}"
                elif inspect.isclass(value):
                    for method in vars(value):
                        if method.endswith("_untrusted") and not method.startswith("_"):
                            yield f"{module.__name__}.{value.__name__}.{method}"


def test_every_marked_function_is_fed() -> None:
    """A function that is marked as reading foreign bytes appears in the table above."""
    assert set(_marked_functions()) == set(FEEDS)


@pytest.mark.parametrize("name", sorted(FEEDS))
def test_only_decode_errors_come_out(name: str) -> None:
    """Random, truncated and mutated input makes it return or raise a decode error, nothing else."""
    feed, seeds = FEEDS[name]
    generator = random.Random(name)
    forge_mutate = FORGE.mutate
    for number in range(ROUNDS):
        if number % 4 == 0:
            data = generator.randbytes(generator.choice((0, 1, 2, 3, 8, 32, 1088, 1184, 1200)))
        else:
            data = forge_mutate(generator.choice(seeds))
        try:
            feed(data)
        except EXPECTED_ERRORS:
            continue
