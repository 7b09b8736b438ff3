"""
Which strangers get a handshake at once, and which must first prove that they receive at their address.

A handshake that is begun costs two post-quantum operations and some memory, and whoever sends from made-up addresses
begins as many as it likes. Beyond a few, a stranger is therefore sent a token first and let in with that token only
(Retry, RFC 9000, section 8.1.2). That keeps no state. An address that we ourselves are dialling now needs no proof:
both sides of a hole punch dial at once.
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from aioquic.buffer import Buffer
from aioquic.quic.packet import QuicHeader, QuicProtocolVersion, encode_quic_retry, pull_quic_header

from antquic_server.errors import TokenDecodeError
from antquic_server.peer.link import Link, Path
from antquic_server.peer.relay_paths import RelayPath
from antquic_server.protocol.address import SocketAddress
from antquic_server.protocol.limits import address_prefixes
from antquic_server.protocol.retry_token import InvalidTokenError, RetryTokenSealer

__all__ = ["MAX_HALF_OPEN", "MAX_UNPROVEN", "Admission", "Admitted", "Refused"]

CONNECTION_ID_BYTES = 8
MAX_HALF_OPEN = 64
"""Handshakes of others in flight; each costs two post-quantum operations and some 70 kB."""
MAX_UNPROVEN = 16
"""Those of addresses that have proven nothing; further ones get a Retry."""
MAX_PER_PREFIX = 32
"""Those of one IPv4 address, or one IPv6 network of 64 bits."""
MAX_EXPECTED = 4
"""Those from one address that we dial ourselves; further ones are strangers."""
_SECRET_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """Make a connection with these arguments of the QUIC handshake (RFC 9000, section 7.3)."""

    original_cid: bytes
    retry_source_cid: bytes | None = None

    @property
    def proven(self) -> bool:
        """Whether the client has shown that it receives at its address."""
        return self.retry_source_cid is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """Make none, for this reason; ``answer`` is a datagram to send instead, if any."""

    reason: str
    answer: bytes | None = None


class Admission:
    """Judges first datagrams; the key of its tokens lives as long as it does."""

    def __init__(self, random_bytes: Callable[[int], bytes] = os.urandom) -> None:
        self._random_bytes = random_bytes
        self._sealer = RetryTokenSealer(random_bytes(_SECRET_BYTES))

    def judge_untrusted(
        self, data: bytes, path: Path, cid: bytes, links: Iterable[Link], now_s: float
    ) -> Admitted | Refused:
        """Decide about an Initial for the unknown connection ID ``cid``; ``links`` are all connections there are."""
        links = list(links)
        half_open = [link for link in links if not link.ready and not link.dialled_by_us]
        header = _header_untrusted(data)
        admitted = Admitted(original_cid=cid)
        if header is not None and header.token:
            try:
                token = self._sealer.open_untrusted(
                    token=header.token, address=_address(path), destination_connection_id=cid, now_s=now_s
                )
            except InvalidTokenError:
                return Refused(reason="invalid_token")
            except TokenDecodeError:
                # ant-quic peers present tokens of others: as good as none.
                pass
            else:
                admitted = Admitted(
                    original_cid=token.original_destination_connection_id,
                    retry_source_cid=token.retry_source_connection_id,
                )
        if _is_expected(path, links, half_open):
            return admitted
        if not admitted.proven and sum(not link.address_proven for link in half_open) >= MAX_UNPROVEN:
            return Refused(reason="address_not_proven", answer=self._retry(header, path, now_s))
        if len(half_open) >= MAX_HALF_OPEN or _of_prefix(path, half_open) >= MAX_PER_PREFIX:
            return Refused(reason="too_many_connections")
        return admitted

    def _retry(self, header: QuicHeader | None, path: Path, now_s: float) -> bytes | None:
        if header is None:
            return None
        source_cid = self._random_bytes(CONNECTION_ID_BYTES)
        token = self._sealer.seal(
            address=_address(path),
            original_destination_connection_id=header.destination_cid,
            retry_source_connection_id=source_cid,
            now_s=now_s,
            random_bytes=self._random_bytes,
        )
        return encode_quic_retry(
            version=header.version or QuicProtocolVersion.VERSION_1,
            source_cid=source_cid,
            destination_cid=header.source_cid,
            original_destination_cid=header.destination_cid,
            retry_token=token,
        )


def _header_untrusted(data: bytes) -> QuicHeader | None:
    try:
        return pull_quic_header(Buffer(data=data), host_cid_length=CONNECTION_ID_BYTES)
    except ValueError:
        # For QUIC to say what is wrong with it.
        return None


def _address(path: Path) -> SocketAddress:
    return SocketAddress.from_host(path[0], path[1])


def _is_expected(path: Path, links: Iterable[Link], half_open: list[Link]) -> bool:
    """Whether we are dialling that very address, or have agreed on the channel; not for as many as one likes."""
    same = sum(link.path[:2] == path[:2] for link in half_open)
    if same >= MAX_EXPECTED:
        return False
    if isinstance(path, RelayPath):
        return True
    return any(link.dialled_by_us and not link.ready and link.path[:2] == path[:2] for link in links)


def _of_prefix(path: Path, half_open: list[Link]) -> int:
    prefix = address_prefixes(_address(path))[0]
    return sum(address_prefixes(_address(link.path))[0] == prefix for link in half_open)
