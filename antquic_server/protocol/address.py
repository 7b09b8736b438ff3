"""
An IP address with a UDP port: as a value, as text, as bytes on the wire.

Text is ``198.18.0.5:4433`` or ``[2001:db8::1]:4433``. On the wire an address is its 4 or 16 bytes, then the
port, both big-endian; which of the two it is follows from the frame around it.
"""

from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address, ip_address

from aioquic.buffer import Buffer, BufferReadError

from antquic_server.errors import AddressDecodeError

__all__ = [
    "IPV4_ADDRESS_BYTES",
    "IPV6_ADDRESS_BYTES",
    "PORT_BYTES",
    "SocketAddress",
    "address_length",
    "pull_address_untrusted",
    "push_address",
]

IPV4_ADDRESS_BYTES = 4
IPV6_ADDRESS_BYTES = 16
PORT_BYTES = 2

MAX_PORT = 65535


@dataclass(frozen=True, slots=True, kw_only=True)
class SocketAddress:
    """
    Where datagrams go to or come from; ``port`` is 0 to 65535.

    IPv6 zones (``fe80::1%eth0``) have no meaning to another host, so ``host`` never carries one.
    """

    host: IPv4Address | IPv6Address
    port: int

    def __post_init__(self) -> None:
        if not 0 <= self.port <= MAX_PORT:
            raise ValueError(f"port is {self.port}, expected 0 to {MAX_PORT}")

    @classmethod
    def parse(cls, text: str) -> "SocketAddress":
        """
        Read ``a.b.c.d:port`` or ``[v6]:port``; host names are refused.

        Raises ``AddressDecodeError`` with a text fit for a person.
        """
        host_text, separator, port_text = text.rpartition(":")
        if not separator:
            raise AddressDecodeError(f"{text!r} has no port")
        host: IPv4Address | IPv6Address
        try:
            if host_text.startswith("[") and host_text.endswith("]"):
                host = IPv6Address(host_text[1:-1])
            else:
                host = IPv4Address(host_text)
        except AddressValueError:
            raise AddressDecodeError(f"{text!r} is not an address like 192.0.2.1:443 or [2001:db8::1]:443") from None
        if "%" in host_text:
            raise AddressDecodeError(f"{text!r} names a zone, which an address here cannot have")
        # str.isdigit alone would let the digits of other scripts through.
        if not (port_text.isascii() and port_text.isdigit() and len(port_text) <= 5):
            raise AddressDecodeError(f"{text!r} has no port between 0 and {MAX_PORT}")
        port = int(port_text)
        if port > MAX_PORT:
            raise AddressDecodeError(f"{text!r} has no port between 0 and {MAX_PORT}")
        return cls(host=host, port=port)

    @classmethod
    def from_host(cls, host: str, port: int) -> "SocketAddress":
        """
        Make one from the host text that the operating system gives for a socket address; a zone is dropped.

        Raises ``AddressDecodeError`` when it is not the text of an IP address or the port is out of range.
        """
        if not 0 <= port <= MAX_PORT:
            raise AddressDecodeError(f"port is {port}, expected 0 to {MAX_PORT}")
        try:
            return cls(host=ip_address(host.partition("%")[0]), port=port)
        except ValueError:
            raise AddressDecodeError(f"{host!r} is not an IP address") from None

    def __str__(self) -> str:
        return f"{self.host}:{self.port}" if self.is_ipv4 else f"[{self.host}]:{self.port}"

    @property
    def is_ipv4(self) -> bool:
        """Whether the host is an IPv4 address; an IPv4-mapped IPv6 address is not."""
        return self.host.version == 4

    def normalised(self) -> "SocketAddress":
        """
        Turn an IPv4-mapped IPv6 address (``::ffff:a.b.c.d``, RFC 4291, section 2.5.5.2) into the IPv4 one.

        Peers with one socket for both families see, and report, IPv4 addresses in the mapped form.
        """
        if isinstance(self.host, IPv6Address):
            mapped = self.host.ipv4_mapped
            if mapped is not None:
                return SocketAddress(host=mapped, port=self.port)
        return self


def pull_address_untrusted(buf: Buffer, *, ipv6: bool) -> SocketAddress:
    """
    Read an address and a port, exactly as they stand; mapped addresses and port 0 are the caller's to judge.

    Raises ``AddressDecodeError`` when the buffer ends too early.
    """
    try:
        host: IPv4Address | IPv6Address
        if ipv6:
            host = IPv6Address(buf.pull_bytes(IPV6_ADDRESS_BYTES))
        else:
            host = IPv4Address(buf.pull_bytes(IPV4_ADDRESS_BYTES))
        return SocketAddress(host=host, port=buf.pull_uint16())
    except BufferReadError:
        raise AddressDecodeError("address is cut short") from None


def push_address(buf: Buffer, address: SocketAddress) -> None:
    """Write an address and a port: 6 bytes for IPv4, 18 for IPv6."""
    buf.push_bytes(address.host.packed)
    buf.push_uint16(address.port)


def address_length(address: SocketAddress) -> int:
    """Tell how many bytes ``push_address`` writes."""
    return (IPV4_ADDRESS_BYTES if address.is_ipv4 else IPV6_ADDRESS_BYTES) + PORT_BYTES
