"""
Who gets a connection: the checks an Initial for an unknown connection ID passes, in order of their cost.

1. It is a whole Initial of a version we speak, in a datagram of at least 1200 bytes, for an ID of at least 8 bytes.
2. The node has room for another connection, else CONNECTION_REFUSED.
3. A token that we sealed is honoured: its holder receives at its address. One of ours that is expired or from
   elsewhere ends the attempt with INVALID_TOKEN; one we cannot open counts as none, because ant-quic peers present
   tokens issued by other nodes.
4. Without a token, a Retry if the node is under pressure.
5. The sender's address and prefixes are within their handshake rates.

No state is kept for a client that fails any of them, apart from the fixed table of rates.
"""

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address

from aioquic.buffer import Buffer
from aioquic.quic.packet import (
    QuicHeader,
    QuicPacketType,
    QuicProtocolVersion,
    encode_quic_retry,
    encode_quic_version_negotiation,
    pull_quic_header,
)

from antquic_server.errors import TokenDecodeError
from antquic_server.net.udp import PathAddress
from antquic_server.protocol.address import SocketAddress
from antquic_server.protocol.codepoints import TransportErrorCode
from antquic_server.protocol.limits import KeyedBuckets, address_prefixes
from antquic_server.protocol.retry_policy import RetryPolicy
from antquic_server.protocol.retry_token import InvalidTokenError, RetryTokenSealer
from antquic_server.protocol.routing import CONNECTION_ID_LENGTH_BYTES
from antquic_server.protocol.seam.initial_close import encode_initial_close
from antquic_server.stats.counters import CounterSet

SUPPORTED_VERSIONS: tuple[int, ...] = (QuicProtocolVersion.VERSION_1,)

MIN_INITIAL_DATAGRAM_BYTES = 1200
"""RFC 9000, section 14.1."""

MIN_INITIAL_DCID_BYTES = 8
"""RFC 9000, section 7.2."""


_CID_OFFSET = 6
"""Of the Destination Connection ID, behind its length (RFC 8999, section 5.1); 1200 bytes hold both IDs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """Make a connection with these arguments of the QUIC handshake (RFC 9000, section 7.3)."""

    destination_cid: bytes
    original_destination_cid: bytes
    retry_source_cid: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Make none; send this datagram instead."""

    datagram: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What the worker knows about its own load when an Initial arrives."""

    connections_on_node: int
    half_open: int
    loop_lag_s: float


class Admission:
    """Applies the checks; time, randomness and load are arguments."""

    def __init__(
        self,
        *,
        counters: CounterSet,
        sealer: RetryTokenSealer,
        retry_policy: RetryPolicy,
        address_rates: KeyedBuckets,
        prefix_rates: KeyedBuckets,
        max_connections: int,
        new_connection_id: Callable[[], bytes],
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._counters = counters
        self._sealer = sealer
        self._retry_policy = retry_policy
        self._address_rates = address_rates
        self._prefix_rates = prefix_rates
        self._max_connections = max_connections
        self._new_connection_id = new_connection_id
        self._random_bytes = random_bytes

    def judge_untrusted(
        self, data: bytes, path: PathAddress, *, load: Load, now_s: float, unix_s: float
    ) -> Admitted | Answer | None:
        """Decide about a long-header datagram for an unknown ID; None means that it was dropped and counted."""
        if len(data) < MIN_INITIAL_DATAGRAM_BYTES:
            return self._dropped("initial_too_small")
        version = int.from_bytes(data[1:5], "big")
        if version not in SUPPORTED_VERSIONS:
            return self._negotiate_version_untrusted(data, version)
        try:
            header = pull_quic_header(Buffer(data=data), host_cid_length=CONNECTION_ID_LENGTH_BYTES)
        except ValueError:
            return self._dropped("header_malformed")
        if header.packet_type is not QuicPacketType.INITIAL:
            # 0-RTT before its Initial, or a late Handshake packet; the client repeats what matters.
            return self._dropped("not_initial")
        if len(header.destination_cid) < MIN_INITIAL_DCID_BYTES:
            return self._dropped("dcid_too_short")
        if load.connections_on_node >= self._max_connections:
            return self._refuse(header, TransportErrorCode.CONNECTION_REFUSED, "max_connections")
        return self._check_address(header, path, load=load, now_s=now_s, unix_s=unix_s)

    def _check_address(
        self, header: QuicHeader, path: PathAddress, *, load: Load, now_s: float, unix_s: float
    ) -> Admitted | Answer | None:
        address = SocketAddress(host=ip_address(path.host), port=path.port)
        admitted = Admitted(
            destination_cid=header.destination_cid,
            original_destination_cid=header.destination_cid,
            retry_source_cid=None,
        )
        validated = False
        if header.token:
            try:
                token = self._sealer.open_untrusted(
                    token=header.token,
                    address=address,
                    destination_connection_id=header.destination_cid,
                    now_s=unix_s,
                )
            except InvalidTokenError:
                self._counters.add("tokens", 1, "invalid")
                return self._refuse(header, TransportErrorCode.INVALID_TOKEN, "invalid_token")
            except TokenDecodeError:
                self._counters.add("tokens", 1, "foreign")
            else:
                self._counters.add("tokens", 1, "valid")
                validated = True
                admitted = Admitted(
                    destination_cid=header.destination_cid,
                    original_destination_cid=token.original_destination_connection_id,
                    retry_source_cid=token.retry_source_connection_id,
                )
        demanded = self._retry_policy.demands_retry(half_open=load.half_open, loop_lag_s=load.loop_lag_s)
        if demanded and not validated:
            return self._retry(header, address, unix_s)
        prefixes = address_prefixes(address)
        if not self._address_rates.take(prefixes[0], now_s):
            return self._dropped("address_rate")
        if not all(self._prefix_rates.take(prefix, now_s) for prefix in prefixes[1:]):
            return self._dropped("prefix_rate")
        return admitted

    def _negotiate_version_untrusted(self, data: bytes, version: int) -> Answer | None:
        """Answer a version we do not speak, of which only RFC 8999 says how to read it."""
        if version == QuicProtocolVersion.NEGOTIATION:
            # Two servers must not answer each other for ever.
            return self._dropped("not_initial")
        destination_end = _CID_OFFSET + data[_CID_OFFSET - 1]
        source_end = destination_end + 1 + data[destination_end]
        self._counters.add("version_negotiations")
        return Answer(
            datagram=encode_quic_version_negotiation(
                source_cid=data[_CID_OFFSET:destination_end],
                destination_cid=data[destination_end + 1 : source_end],
                supported_versions=list(SUPPORTED_VERSIONS),
            )
        )

    def _refuse(self, header: QuicHeader, error_code: TransportErrorCode, reason: str) -> Answer:
        self._counters.add("handshake_failures", 1, reason)
        return Answer(
            datagram=encode_initial_close(
                version=_version(header),
                client_source_cid=header.source_cid,
                client_destination_cid=header.destination_cid,
                error_code=error_code,
            )
        )

    def _retry(self, header: QuicHeader, address: SocketAddress, unix_s: float) -> Answer:
        # Of this slot, so that the client's next Initial is steered here again.
        source_cid = self._new_connection_id()
        token = self._sealer.seal(
            address=address,
            original_destination_connection_id=header.destination_cid,
            retry_source_connection_id=source_cid,
            now_s=unix_s,
            random_bytes=self._random_bytes,
        )
        self._counters.add("retries")
        return Answer(
            datagram=encode_quic_retry(
                version=_version(header),
                source_cid=source_cid,
                destination_cid=header.source_cid,
                original_destination_cid=header.destination_cid,
                retry_token=token,
            )
        )

    def _dropped(self, reason: str) -> Answer | None:
        """Count a drop; the verdict is None."""
        self._counters.add("drops", 1, reason)
        return None


def _version(header: QuicHeader) -> int:
    return header.version or QuicProtocolVersion.VERSION_1
