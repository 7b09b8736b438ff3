"""
The tree of errors this project raises.

::

    AntQuicError
    ├── UsageError                 bad configuration or command line: exit code 2
    │   └── ConfigurationError     one setting: source, key, value, expectation
    ├── CannotBootError            the node cannot start: exit code 3
    │   ├── PortInUseError         another process holds a listen address
    │   ├── IdentityError          the node key cannot be read, written or understood
    │   ├── CertificateError       the X.509 certificate or its key cannot be used
    │   ├── ProviderUnavailableError   the PQC provider asked for is missing
    │   ├── ProfilerUnavailableError   a program, a package or a right to profile with is missing
    │   └── PrivilegeError         a right is missing: bind, setuid, core pinning
    ├── DecodeError                bytes chosen by somebody else do not parse
    │   ├── AddressDecodeError
    │   ├── ConnectionIdDecodeError
    │   ├── CoordinationDecodeError  a coordination message is malformed
    │   ├── FrameDecodeError
    │   ├── KeyShareDecodeError    a TLS key share is malformed: alert illegal_parameter
    │   ├── MessageDecodeError     an IPC message is malformed
    │   ├── PublicKeyDecodeError   a SubjectPublicKeyInfo is malformed
    │   ├── RelayDecodeError       a message or datagram of the relay is malformed
    │   ├── TokenDecodeError       an address validation token was not made by us
    │   └── TransportParameterDecodeError
    ├── ProfileError               a process could not be profiled: pid, detail
    ├── PqcError                   a primitive failed for a reason of our own
    ├── PeerError                  the peer library cannot do what it was asked
    │   ├── PeerUnreachableError   no connection to a peer came about: reason, detail
    │   └── PeerClosedError        a connection to a peer has ended: code, reason
    ├── BenchmarkError             a benchmark failed, or its result cannot be written or drawn
    ├── NoPortError                no port for a relay session
    ├── ChannelClosedError         the other end of an IPC channel is gone
    ├── CannotTellError            a fact about this machine cannot be read
    ├── AdminUnreachableError      no node answers at the admin address
    └── ControlRefusedError        a node refuses what was asked over its control socket

Facts are attributes; the text is composed in ``__str__`` by the exception itself.
"""

from enum import IntEnum

__all__ = [
    "AddressDecodeError",
    "AdminUnreachableError",
    "AntQuicError",
    "BenchmarkError",
    "CannotBootError",
    "CannotTellError",
    "CertificateError",
    "ChannelClosedError",
    "ConfigurationError",
    "ConnectionIdDecodeError",
    "ControlRefusedError",
    "CoordinationDecodeError",
    "DecodeError",
    "ExitCode",
    "FrameDecodeError",
    "IdentityError",
    "KeyShareDecodeError",
    "MessageDecodeError",
    "NoPortError",
    "PeerClosedError",
    "PeerError",
    "PeerUnreachableError",
    "PortInUseError",
    "PqcError",
    "PrivilegeError",
    "ProfileError",
    "ProfilerUnavailableError",
    "ProviderUnavailableError",
    "PublicKeyDecodeError",
    "RelayDecodeError",
    "TokenDecodeError",
    "TransportParameterDecodeError",
    "UsageError",
]


class ExitCode(IntEnum):
    """Exit status of every process of this project (``docs/architecture.md``)."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    CANNOT_BOOT = 3


class AntQuicError(Exception):
    """Root of the tree; ``exit_code`` is what the command line returns for it."""

    exit_code = ExitCode.FAILURE


class UsageError(AntQuicError):
    """The command line or the configuration cannot be used as given."""

    exit_code = ExitCode.USAGE


class ConfigurationError(UsageError):
    """One setting is wrong; says where it was found and what was expected."""

    def __init__(self, source: str, key: str, value: object, expected: str) -> None:
        super().__init__(source, key, value, expected)
        self.source = source
        self.key = key
        self.value = value
        self.expected = expected

    def __str__(self) -> str:
        shown = " ".join(repr(self.value).split())
        if len(shown) > 80:
            shown = shown[:77] + "..."
        return f"{self.source}: {self.key} = {shown}: expected {self.expected}"


class CannotBootError(AntQuicError):
    """The node cannot start, and trying again without a change will not help."""

    exit_code = ExitCode.CANNOT_BOOT


class PortInUseError(CannotBootError):
    """A listen address is held by another process."""

    def __init__(self, address: str, detail: str) -> None:
        super().__init__(address, detail)
        self.address = address
        self.detail = detail

    def __str__(self) -> str:
        return f"cannot listen on {self.address}: {self.detail}"


class IdentityError(CannotBootError):
    """The node key cannot be read, written or understood."""


class CertificateError(CannotBootError):
    """The X.509 certificate or its private key cannot be used."""


class ProviderUnavailableError(CannotBootError):
    """The PQC provider asked for is missing; the text says how to get it."""


class ProfilerUnavailableError(CannotBootError):
    """A program, a package or a right that profiling needs is missing; the text says how to get it."""


class PrivilegeError(CannotBootError):
    """The operating system refused something the node needs."""


class DecodeError(AntQuicError):
    """Bytes chosen by somebody else do not parse."""


class AddressDecodeError(DecodeError):
    """An IP address and port do not parse."""


class ConnectionIdDecodeError(DecodeError):
    """A connection ID does not have our layout."""


class CoordinationDecodeError(DecodeError):
    """A coordination message is malformed."""


class FrameDecodeError(DecodeError):
    """The body of an extension frame does not parse."""


class KeyShareDecodeError(DecodeError):
    """A TLS key share is malformed (RFC 8446, section 4.2.8: illegal_parameter)."""


class MessageDecodeError(DecodeError):
    """An IPC message is malformed."""


class PublicKeyDecodeError(DecodeError):
    """A SubjectPublicKeyInfo is not the one form of ML-DSA-65 key we accept."""


class RelayDecodeError(DecodeError):
    """A message or datagram of the relay is malformed."""


class TokenDecodeError(DecodeError):
    """An address validation token was not made by us, or its key has rotated away."""


class TransportParameterDecodeError(DecodeError):
    """An extension transport parameter is malformed (RFC 9000, section 7.4)."""


class ProfileError(AntQuicError):
    """A process could not be profiled; ``pid`` is None where the fault is in a file."""

    def __init__(self, pid: int | None, detail: str) -> None:
        super().__init__(pid, detail)
        self.pid = pid
        self.detail = detail

    def __str__(self) -> str:
        return self.detail if self.pid is None else f"cannot profile process {self.pid}: {self.detail}"


class PqcError(AntQuicError):
    """A post-quantum primitive failed for a reason that is not the peer's."""


class PeerError(AntQuicError):
    """The peer library cannot do what it was asked."""


class PeerUnreachableError(PeerError):
    """
    No connection to a peer came about.

    ``target`` is a peer id in hexadecimal or an address, ``reason`` a word for programs, ``detail`` a sentence.
    """

    def __init__(self, target: str, reason: str, detail: str) -> None:
        super().__init__(target, reason, detail)
        self.target = target
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"cannot reach {self.target}: {self.reason}: {self.detail}"


class PeerClosedError(PeerError):
    """A connection to a peer has ended; ``code`` is the error code of the close, ``reason`` its text."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason

    def __str__(self) -> str:
        return f"the connection has ended: {self.reason or 'no reason given'} (code {self.code:#x})"


class BenchmarkError(AntQuicError):
    """A benchmark failed, or its result cannot be written or drawn."""


class NoPortError(AntQuicError):
    """There is no port for a relay session; ``unsupported``: at that address there never will be."""

    def __init__(self, host: str, unsupported: bool) -> None:
        super().__init__(host, unsupported)
        self.host = host
        self.unsupported = unsupported

    def __str__(self) -> str:
        return f"no port at {self.host}" if self.unsupported else f"no free port at {self.host}"


class ChannelClosedError(AntQuicError):
    """The other end of an IPC channel is gone."""


class CannotTellError(AntQuicError):
    """A fact about this machine cannot be read: ``what`` it is, ``reason`` why not."""

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(what, reason)
        self.what = what
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.what}: {self.reason}"


class AdminUnreachableError(AntQuicError):
    """No node answers at the admin address."""

    def __init__(self, url: str, detail: str) -> None:
        super().__init__(url, detail)
        self.url = url
        self.detail = detail

    def __str__(self) -> str:
        return f"no node answers at {self.url}: {self.detail}"


class ControlRefusedError(AntQuicError):
    """A node refuses what was asked over its control socket, or there was nothing to do; its one line says why."""
