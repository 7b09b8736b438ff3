"""
As much of TURN (RFC 8656) as it takes to relay through a TURN server: Allocate, ChannelBind, and ChannelData.

UDP over IPv4, no authentication. Only for measuring: nothing is refreshed by itself.
"""

import os
import select
import socket
import struct
import time
from collections.abc import Iterator
from ipaddress import IPv4Address
from typing import Final

from antquic_server.errors import CannotBootError

__all__ = ["FIRST_CHANNEL", "TurnError", "allocate", "bind_channel", "channel_header"]

FIRST_CHANNEL: Final = 0x4000

_MAGIC: Final = 0x2112A442
_HEADER: Final = struct.Struct(">HHI12s")
_ALLOCATE: Final = 0x0003
_CHANNEL_BIND: Final = 0x0009
_SUCCESS: Final = 0x0100
_ERROR_CODE: Final = 0x0009
_CHANNEL_NUMBER: Final = 0x000C
_XOR_PEER_ADDRESS: Final = 0x0012
_XOR_RELAYED_ADDRESS: Final = 0x0016
_REQUESTED_TRANSPORT: Final = 0x0019
_UDP: Final = 17
_REPEAT_S: Final = 0.25

Address = tuple[str, int]


class TurnError(CannotBootError):
    """The TURN server does not do what it was asked."""


def allocate(sock: socket.socket, server: Address, timeout_s: float) -> Address:
    """
    Ask for an allocation and return its relayed address.

    Raises:
        TurnError: It was refused, or there was no answer in time.
    """
    answer = _ask(sock, server, _ALLOCATE, _attribute(_REQUESTED_TRANSPORT, bytes((_UDP, 0, 0, 0))), timeout_s)
    for kind, value in _attributes(answer):
        if kind == _XOR_RELAYED_ADDRESS:
            return _from_xor(value)
    raise TurnError("TURN server has allocated without saying where")


def bind_channel(sock: socket.socket, server: Address, channel: int, peer: Address, timeout_s: float) -> None:
    """
    Bind a channel to a peer, which is then allowed to be relayed to for five minutes.

    Raises:
        TurnError: It was refused, or there was no answer in time.
    """
    body = _attribute(_CHANNEL_NUMBER, struct.pack(">HH", channel, 0)) + _attribute(_XOR_PEER_ADDRESS, _xor(peer))
    _ask(sock, server, _CHANNEL_BIND, body, timeout_s)


def channel_header(channel: int, payload_bytes: int) -> bytes:
    """Return what stands before the payload in ChannelData; over UDP nothing follows it."""
    return struct.pack(">HH", channel, payload_bytes)


def _ask(sock: socket.socket, server: Address, method: int, body: bytes, timeout_s: float) -> bytes:
    """Send a request until it is answered; return the attributes of a success."""
    transaction = os.urandom(12)
    request = _HEADER.pack(method, len(body), _MAGIC, transaction) + body
    deadline_s = time.monotonic() + timeout_s
    while (now_s := time.monotonic()) < deadline_s:
        try:
            sock.sendto(request, server)
            answer = _answer(sock, transaction, min(deadline_s, now_s + _REPEAT_S))
        except ConnectionRefusedError:
            time.sleep(0.02)  # it does not listen yet
            continue
        if answer is None:
            continue
        kind, attributes = answer
        if kind == method | _SUCCESS:
            return attributes
        raise TurnError(f"TURN server refuses method {method}: {_reason(attributes)}")
    raise TurnError(f"TURN server did not answer within {timeout_s:g} s")


def _answer(sock: socket.socket, transaction: bytes, deadline_s: float) -> tuple[int, bytes] | None:
    while (remaining_s := deadline_s - time.monotonic()) > 0:
        if not select.select([sock], [], [], remaining_s)[0]:
            return None
        try:
            datagram = sock.recv(2048)
        except BlockingIOError:
            continue
        if len(datagram) >= _HEADER.size:
            kind, length, magic, echoed = _HEADER.unpack_from(datagram)
            if magic == _MAGIC and echoed == transaction and length == len(datagram) - _HEADER.size:
                return int(kind), datagram[_HEADER.size :]
    return None


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack(">HH", kind, len(value)) + value + bytes(-len(value) % 4)


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 4 <= len(data):
        kind, length = struct.unpack_from(">HH", data, at)
        yield kind, data[at + 4 : at + 4 + length]
        at += 4 + length + -length % 4


def _reason(attributes: bytes) -> str:
    for kind, value in _attributes(attributes):
        if kind == _ERROR_CODE and len(value) >= 4:
            return f"{value[2] & 7}{value[3]:02d} {value[4:].decode(errors='replace')}"
    return "no reason given"


def _xor(address: Address) -> bytes:
    host, port = address
    return struct.pack(">BBHI", 0, 1, port ^ (_MAGIC >> 16), int(IPv4Address(host)) ^ _MAGIC)


def _from_xor(value: bytes) -> Address:
    if len(value) != 8:
        raise TurnError("TURN server has an address that is not IPv4")
    _, _, port, host = struct.unpack(">BBHI", value)
    return str(IPv4Address(host ^ _MAGIC)), port ^ (_MAGIC >> 16)
