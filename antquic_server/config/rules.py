"""
The kinds of value a setting can hold.

A rule turns a value as TOML gives it into the value the model keeps, or raises ConfigurationError naming
what it expected. Rules are attached to the fields of ``config.model`` as annotations: a setting, its default
and its limits stand on one line.

``bool`` is never taken for a number here although Python counts it as one: ``workers = true`` is a mistake.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Protocol

from antquic_server.errors import ConfigurationError

__all__ = [
    "Account",
    "Choice",
    "Flag",
    "IpAddress",
    "Levels",
    "ListenAddress",
    "ListenAddresses",
    "Networks",
    "Number",
    "PathText",
    "PeerIds",
    "PortRange",
    "ProtocolNames",
    "Rule",
    "Whole",
    "split_listen_address",
]

MAX_LISTEN_ADDRESSES = 8
"""Each costs one descriptor per worker, and every worker inherits all: 8 x 64 workers stays below 1024."""

MAX_LIST_ENTRIES = 1024
"""Bound on target lists, which are walked for every relay session."""

_ACCOUNT = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*\$?")
_PEER_ID = re.compile(r"[0-9a-fA-F]{64}")
_LOGGER = re.compile(r"[A-Za-z_]\w*(\.\w+)*")

HOST_FORM = "ADDRESS:PORT with an IPv4 address or an IPv6 address in brackets"
NO_NAMES = "host names are not looked up: a node must come up without a resolver"


class Rule(Protocol):
    """What one setting accepts."""

    @property
    def expected(self) -> str:
        """The expectation in words, fit to follow ``expected``."""

    def accept(self, source: str, key: str, value: object) -> object:
        """Return ``value`` as the model keeps it; raises ConfigurationError for anything else."""


@dataclass(frozen=True, slots=True)
class Flag:
    """True or false."""

    expected: str = "true or false"

    def accept(self, source: str, key: str, value: object) -> bool:
        """Return the boolean itself; numbers and words are not booleans."""
        if isinstance(value, bool):
            return value
        raise ConfigurationError(source, key, value, self.expected)


@dataclass(frozen=True, slots=True)
class Whole:
    """An integer between two bounds, both included."""

    minimum: int
    maximum: int

    @property
    def expected(self) -> str:
        """The expectation in words."""
        return f"an integer from {self.minimum} to {self.maximum}"

    def accept(self, source: str, key: str, value: object) -> int:
        """Return the integer; a float is refused even when it is whole."""
        if isinstance(value, int) and not isinstance(value, bool) and self.minimum <= value <= self.maximum:
            return value
        raise ConfigurationError(source, key, value, self.expected)


@dataclass(frozen=True, slots=True)
class Number:
    """A finite number between two bounds, both included."""

    minimum: float
    maximum: float

    @property
    def expected(self) -> str:
        """The expectation in words."""
        return f"a number from {self.minimum:g} to {self.maximum:.10g}"

    def accept(self, source: str, key: str, value: object) -> float:
        """Return a float; integers are taken as such."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ConfigurationError(source, key, value, self.expected)
        # NaN compares false with everything, so it is refused here, as infinities are.
        if not self.minimum <= value <= self.maximum:
            raise ConfigurationError(source, key, value, self.expected)
        return float(value)


@dataclass(frozen=True, slots=True)
class Choice:
    """One word of a few."""

    words: tuple[str, ...]

    @property
    def expected(self) -> str:
        """The expectation in words."""
        return "one of " + ", ".join(repr(word) for word in self.words)

    def accept(self, source: str, key: str, value: object) -> str:
        """Return the word."""
        if isinstance(value, str) and value in self.words:
            return value
        raise ConfigurationError(source, key, value, self.expected)


@dataclass(frozen=True, slots=True)
class PathText:
    """The path of a file, or an empty string for none; whether it exists is seen when it is opened."""

    expected: str = "a path as a string, or an empty string"

    def accept(self, source: str, key: str, value: object) -> str:
        """Return the text unchanged."""
        if isinstance(value, str) and "\0" not in value:
            return value
        raise ConfigurationError(source, key, value, self.expected)


@dataclass(frozen=True, slots=True)
class Account:
    """The name of a user or group, or an empty string for none, which the model keeps as ``None``."""

    expected: str = "an account name (not a number), or an empty string"

    def accept(self, source: str, key: str, value: object) -> str | None:
        """Return the name or None."""
        if value == "":
            return None
        if isinstance(value, str) and _ACCOUNT.fullmatch(value):
            return value
        raise ConfigurationError(source, key, value, self.expected)


@dataclass(frozen=True, slots=True)
class IpAddress:
    """An IP address without port, or an empty string."""

    expected: str = "an IPv4 or IPv6 address without port, or an empty string"

    def accept(self, source: str, key: str, value: object) -> str:
        """Return the address in its canonical form."""
        if value == "":
            return ""
        if isinstance(value, str):
            address = _parse_ip(value)
            if address is not None:
                return str(address)
            if _looks_like_name(value):
                raise ConfigurationError(source, key, value, f"{self.expected} ({NO_NAMES})")
        raise ConfigurationError(source, key, value, self.expected)


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """One address to listen on; port 0 takes a free port."""

    expected: str = HOST_FORM

    def accept(self, source: str, key: str, value: object) -> str:
        """Return the address as ``host:port`` or ``[host]:port`` in canonical form."""
        host, port = split_listen_address(source, key, value)
        return f"[{host}]:{port}" if host.version == 6 else f"{host}:{port}"


@dataclass(frozen=True, slots=True)
class ListenAddresses:
    """A list of addresses to listen on, none of which covers another."""

    expected: str = f"a list of 1 to {MAX_LISTEN_ADDRESSES} strings like '0.0.0.0:10000'"

    def accept(self, source: str, key: str, value: object) -> tuple[str, ...]:
        """Return the addresses in canonical form, in the order given."""
        entries = _entries(source, key, value, self.expected)
        if not 1 <= len(entries) <= MAX_LISTEN_ADDRESSES:
            raise ConfigurationError(source, key, value, self.expected)
        accepted: list[str] = []
        for index, entry in enumerate(entries):
            text = ListenAddress().accept(source, f"{key}[{index}]", entry)
            for earlier in accepted:
                if _covers(earlier, text) or _covers(text, earlier):
                    # The kernel would let both join, and datagrams of one connection could reach two groups.
                    expected = f"an address that does not overlap {earlier!r}, listed before it"
                    raise ConfigurationError(source, f"{key}[{index}]", entry, expected)
            accepted.append(text)
        return tuple(accepted)


@dataclass(frozen=True, slots=True)
class Networks:
    """A list of IP networks in prefix notation."""

    expected: str = "a list of networks like '198.51.100.0/24' or '2001:db8::/32'"

    def accept(self, source: str, key: str, value: object) -> tuple[str, ...]:
        """Return the networks in canonical form; an address alone is a network of one."""
        return _accept_each(source, key, value, self.expected, _accept_network)


@dataclass(frozen=True, slots=True)
class ProtocolNames:
    """A list of ALPN protocol names (RFC 7301, section 3.1: 1 to 255 bytes each)."""

    expected: str = "a list of protocol names, each of 1 to 255 ASCII characters and named once"

    def accept(self, source: str, key: str, value: object) -> tuple[str, ...]:
        """Return the names in the order of preference given."""
        names = _accept_each(source, key, value, self.expected, _accept_protocol_name)
        if len(set(names)) != len(names):
            raise ConfigurationError(source, key, value, self.expected)
        return names


@dataclass(frozen=True, slots=True)
class PeerIds:
    """A list of peer ids, 64 hexadecimal digits each; kept in lower case, each once."""

    expected: str = f"a list of at most {MAX_LIST_ENTRIES} peer ids of 64 hexadecimal digits"

    def accept(self, source: str, key: str, value: object) -> tuple[str, ...]:
        """Return the peer ids."""
        entries = _entries(source, key, value, self.expected)
        if len(entries) > MAX_LIST_ENTRIES:
            raise ConfigurationError(source, key, f"{len(entries)} entries", self.expected)
        for entry in entries:
            if not isinstance(entry, str) or not _PEER_ID.fullmatch(entry):
                raise ConfigurationError(source, key, entry, self.expected)
        return tuple(dict.fromkeys(str(entry).lower() for entry in entries))


@dataclass(frozen=True, slots=True)
class PortRange:
    """First and last UDP port of a range, both included."""

    minimum: int
    maximum: int

    @property
    def expected(self) -> str:
        """The expectation in words."""
        return f"[first, last] with ports from {self.minimum} to {self.maximum}, the first not above the last"

    def accept(self, source: str, key: str, value: object) -> tuple[int, int]:
        """Return the two ports."""
        entries = _entries(source, key, value, self.expected)
        ports = [entry for entry in entries if isinstance(entry, int) and not isinstance(entry, bool)]
        if len(entries) == len(ports) == 2 and self.minimum <= ports[0] <= ports[1] <= self.maximum:
            return ports[0], ports[1]
        raise ConfigurationError(source, key, value, self.expected)


@dataclass(frozen=True, slots=True)
class Levels:
    """A table from logger name to level; a dotted name may also be written as nested tables."""

    words: tuple[str, ...]

    @property
    def expected(self) -> str:
        """The expectation in words."""
        return "a table of module = level, each level " + Choice(self.words).expected

    def accept(self, source: str, key: str, value: object) -> dict[str, str]:
        """Return the levels by full logger name."""
        if not isinstance(value, dict):
            raise ConfigurationError(source, key, value, self.expected)
        accepted: dict[str, str] = {}
        for name, level in value.items():
            at = f"{key}.{name}"
            if not _LOGGER.fullmatch(name):
                raise ConfigurationError(source, at, level, "a module name like 'supervisor' or 'net.udp'")
            if isinstance(level, dict):
                nested = self.accept(source, at, level)
                accepted.update({f"{name}.{inner}": word for inner, word in nested.items()})
            else:
                accepted[name] = Choice(self.words).accept(source, at, level)
        return accepted


def split_listen_address(source: str, key: str, value: object) -> tuple[IPv4Address | IPv6Address, int]:
    """Split ``198.51.100.7:443`` or ``[::1]:443``; raises ConfigurationError saying which part is wrong."""
    if not isinstance(value, str):
        raise ConfigurationError(source, key, value, HOST_FORM)
    host, separator, port_text = value.rpartition(":")
    if not separator or not host or host.endswith(":"):
        raise ConfigurationError(source, key, value, HOST_FORM)
    bracketed = host.startswith("[") and host.endswith("]")
    address = _parse_ip(host[1:-1] if bracketed else host)
    if address is None:
        hint = f" ({NO_NAMES})" if _looks_like_name(host) else ""
        raise ConfigurationError(source, key, value, HOST_FORM + hint)
    if bracketed != (address.version == 6):
        raise ConfigurationError(source, key, value, HOST_FORM)
    if isinstance(address, IPv6Address) and (address.ipv4_mapped or address.scope_id):
        expected = "an IPv6 address that is neither IPv4-mapped nor has a zone"
        raise ConfigurationError(source, key, value, expected)
    if address.is_multicast or str(address) == "255.255.255.255":
        raise ConfigurationError(source, key, value, "a unicast address, or 0.0.0.0 or [::] for all")
    if not re.fullmatch(r"[0-9]{1,5}", port_text) or int(port_text) > 65535:
        raise ConfigurationError(source, key, value, "a port from 0 to 65535 after the last colon")
    return address, int(port_text)


def _covers(wide: str, narrow: str) -> bool:
    """Whether a socket bound to ``wide`` claims every datagram for ``narrow``; both are canonical."""
    wide_host, _, wide_port = wide.rpartition(":")
    narrow_host, _, narrow_port = narrow.rpartition(":")
    if wide_port != narrow_port:
        return False
    same_family = wide_host.startswith("[") == narrow_host.startswith("[")
    return wide_host == narrow_host or (same_family and wide_host in ("0.0.0.0", "[::]"))


def _entries(source: str, key: str, value: object, expected: str) -> list[object]:
    if isinstance(value, list | tuple):
        return list(value)
    raise ConfigurationError(source, key, value, expected)


def _accept_each(
    source: str, key: str, value: object, expected: str, accept: Callable[[str, str, object], str]
) -> tuple[str, ...]:
    entries = _entries(source, key, value, expected)
    if len(entries) > MAX_LIST_ENTRIES:
        expected = f"at most {MAX_LIST_ENTRIES} entries"
        raise ConfigurationError(source, key, f"{len(entries)} entries", expected)
    return tuple(accept(source, f"{key}[{index}]", entry) for index, entry in enumerate(entries))


def _accept_protocol_name(source: str, key: str, value: object) -> str:
    if isinstance(value, str) and 1 <= len(value) <= 255 and value.isascii():
        return value
    raise ConfigurationError(source, key, value, "a protocol name of 1 to 255 ASCII characters")


def _accept_network(source: str, key: str, value: object) -> str:
    if not isinstance(value, str):
        raise ConfigurationError(source, key, value, "a network like '198.51.100.0/24' or '2001:db8::/32'")
    try:
        return str(ip_network(value))
    except ValueError:
        try:
            hint = f" (did you mean '{ip_network(value, strict=False)}'?)"
        except ValueError:
            hint = ""
        expected = "a network like '198.51.100.0/24' or '2001:db8::/32', no bits set after the prefix" + hint
        raise ConfigurationError(source, key, value, expected) from None


def _parse_ip(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


def _looks_like_name(text: str) -> bool:
    """Whether somebody wrote a host name, for the hint only: letters beyond hexadecimal, and no colon."""
    return ":" not in text and re.search(r"[G-Zg-z]", text) is not None
