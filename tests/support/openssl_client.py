"""
A QUIC client made of OpenSSL 3.5, driven through ctypes and printed as one JSON line.

The libraries are those inside the wheel ``psycopg-binary``: the system's OpenSSL is often too old for post-quantum
groups. They are loaded by path into a process that never imports ``ssl`` or ``hashlib``, so that two copies of
libcrypto cannot meet. Run it as a script; tests start it through ``support.client_process``.
"""

import argparse
import ctypes
import json
import os
import select
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

# Numbers of OpenSSL's public headers (ssl.h, tls1.h, x509_vfy.h, quic.h), which ctypes cannot see.
SSL_CTRL_SET_TLSEXT_HOSTNAME = 55
SSL_CTRL_SET_GROUPS_LIST = 92
SSL_CTRL_SET_SIGALGS_LIST = 98
SSL_ERROR_SSL, SSL_ERROR_WANT_READ, SSL_ERROR_WANT_WRITE, SSL_ERROR_ZERO_RETURN = 1, 2, 3, 6
SSL_VERIFY_NONE, SSL_VERIFY_PEER = 0, 1
SSL_FILETYPE_PEM = 1
SSL_WRITE_FLAG_CONCLUDE = 1
SSL_SHUTDOWN_FLAG_RAPID = 1
SSL_CONN_CLOSE_FLAG_LOCAL, SSL_CONN_CLOSE_FLAG_TRANSPORT = 1, 2
X509_V_OK = 0
TLS_CONTENT_HANDSHAKE = 22

SERVER_HELLO, CERTIFICATE_VERIFY = 2, 15
KEY_SHARE_EXTENSION = 51
# RFC 8446, section 4.1.3: a ServerHello with this random is a HelloRetryRequest.
HELLO_RETRY_REQUEST_RANDOM = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")
# RFC 9000, section 20.1: a TLS alert is this plus the alert's number.
CRYPTO_ERROR = 0x100
HOLD_POLL_INTERVAL_S = 0.25
CLOSE_TIMEOUT_S = 3.0
CERTIFICATE_TYPE_NAMES = {0: "x509", 2: "raw_public_key"}


class ConnectionCloseInfo(ctypes.Structure):
    """``SSL_CONN_CLOSE_INFO``."""

    _fields_ = [
        ("error_code", ctypes.c_uint64),
        ("frame_type", ctypes.c_uint64),
        ("reason", ctypes.c_void_p),
        ("reason_length", ctypes.c_size_t),
        ("flags", ctypes.c_uint32),
    ]


class TimeValue(ctypes.Structure):
    """``struct timeval``."""

    _fields_ = [("seconds", ctypes.c_long), ("microseconds", ctypes.c_long)]


MESSAGE_CALLBACK = ctypes.CFUNCTYPE(
    None,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_void_p,
    ctypes.c_void_p,
)

_POINTER, _INT, _SIZE, _TEXT = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t, ctypes.c_char_p
_CRYPTO_PROTOTYPES: dict[str, tuple[object, tuple[object, ...]]] = {
    "BIO_ADDR_new": (_POINTER, ()),
    "BIO_ADDR_rawmake": (_INT, (_POINTER, _INT, _TEXT, _SIZE, ctypes.c_ushort)),
    "BIO_ADDR_free": (None, (_POINTER,)),
    "ERR_clear_error": (None, ()),
    "ERR_get_error": (ctypes.c_ulong, ()),
    "ERR_error_string_n": (None, (ctypes.c_ulong, _TEXT, _SIZE)),
    "OpenSSL_version": (_TEXT, (_INT,)),
    "X509_verify_cert_error_string": (_TEXT, (ctypes.c_long,)),
    "d2i_PUBKEY": (_POINTER, (_POINTER, ctypes.POINTER(_TEXT), ctypes.c_long)),
    "i2d_PUBKEY": (_INT, (_POINTER, ctypes.POINTER(_TEXT))),
    "EVP_PKEY_free": (None, (_POINTER,)),
}
_SSL_PROTOTYPES: dict[str, tuple[object, tuple[object, ...]]] = {
    "OSSL_QUIC_client_method": (_POINTER, ()),
    "SSL_CTX_new": (_POINTER, (_POINTER,)),
    "SSL_CTX_ctrl": (ctypes.c_long, (_POINTER, _INT, ctypes.c_long, _TEXT)),
    "SSL_CTX_set_verify": (None, (_POINTER, _INT, _POINTER)),
    "SSL_CTX_use_PrivateKey_file": (_INT, (_POINTER, _TEXT, _INT)),
    "SSL_CTX_set_msg_callback": (None, (_POINTER, MESSAGE_CALLBACK)),
    "SSL_CTX_set1_server_cert_type": (_INT, (_POINTER, _TEXT, _SIZE)),
    "SSL_CTX_set1_client_cert_type": (_INT, (_POINTER, _TEXT, _SIZE)),
    "SSL_CTX_dane_enable": (_INT, (_POINTER,)),
    "SSL_dane_enable": (_INT, (_POINTER, _TEXT)),
    "SSL_new": (_POINTER, (_POINTER,)),
    "SSL_ctrl": (ctypes.c_long, (_POINTER, _INT, ctypes.c_long, _TEXT)),
    "SSL_set_alpn_protos": (_INT, (_POINTER, _TEXT, ctypes.c_uint)),
    "SSL_set_fd": (_INT, (_POINTER, _INT)),
    "SSL_set_blocking_mode": (_INT, (_POINTER, _INT)),
    "SSL_set1_initial_peer_addr": (_INT, (_POINTER, _POINTER)),
    "SSL_add_expected_rpk": (_INT, (_POINTER, _POINTER)),
    "SSL_connect": (_INT, (_POINTER,)),
    "SSL_get_error": (_INT, (_POINTER, _INT)),
    "SSL_handle_events": (_INT, (_POINTER,)),
    "SSL_get_event_timeout": (_INT, (_POINTER, ctypes.POINTER(TimeValue), ctypes.POINTER(_INT))),
    "SSL_write_ex2": (_INT, (_POINTER, _TEXT, _SIZE, ctypes.c_uint64, ctypes.POINTER(_SIZE))),
    "SSL_read_ex": (_INT, (_POINTER, _TEXT, _SIZE, ctypes.POINTER(_SIZE))),
    "SSL_get0_alpn_selected": (None, (_POINTER, ctypes.POINTER(_POINTER), ctypes.POINTER(ctypes.c_uint))),
    "SSL_get0_group_name": (_TEXT, (_POINTER,)),
    "SSL_get0_peer_rpk": (_POINTER, (_POINTER,)),
    "SSL_get_negotiated_server_cert_type": (_INT, (_POINTER,)),
    "SSL_get_negotiated_client_cert_type": (_INT, (_POINTER,)),
    "SSL_get_verify_result": (ctypes.c_long, (_POINTER,)),
    "SSL_get_conn_close_info": (_INT, (_POINTER, ctypes.POINTER(ConnectionCloseInfo), _SIZE)),
    "SSL_shutdown_ex": (_INT, (_POINTER, ctypes.c_uint64, _POINTER, _SIZE)),
    "SSL_free": (None, (_POINTER,)),
}


class ClientError(Exception):
    """A step of the conversation failed; ``stage`` says which, the text says why."""

    def __init__(self, stage: str, reason: str) -> None:
        super().__init__(reason)
        self.stage = stage


def find_libraries(directories: list[str]) -> tuple[Path, Path] | None:
    """Return the paths of libcrypto and libssl of the wheel, or ``None`` when it is not installed in any directory."""
    for directory in directories:
        libraries = Path(directory) / "psycopg_binary.libs"
        crypto, ssl = sorted(libraries.glob("libcrypto-*.so.3")), sorted(libraries.glob("libssl-*.so.3"))
        if crypto and ssl:
            return crypto[0], ssl[0]
    return None


@dataclass(frozen=True, slots=True)
class OpenSsl:
    """The two libraries with the prototypes this client calls."""

    crypto: ctypes.CDLL
    ssl: ctypes.CDLL

    @classmethod
    def load(cls) -> "OpenSsl":
        """Load both libraries by full path, keeping their symbols out of the process-wide scope."""
        paths = find_libraries(sys.path)
        if paths is None:
            raise ClientError("library", "the wheel psycopg-binary is not installed")
        libraries = [ctypes.CDLL(str(path), mode=os.RTLD_NOW | os.RTLD_LOCAL) for path in paths]
        for library, prototypes in zip(libraries, (_CRYPTO_PROTOTYPES, _SSL_PROTOTYPES), strict=True):
            for name, (result, arguments) in prototypes.items():
                function = getattr(library, name)
                function.restype = result
                function.argtypes = arguments
        return cls(*libraries)

    def errors(self) -> list[str]:
        """Empty this thread's error queue, oldest entry first."""
        texts = []
        while code := self.crypto.ERR_get_error():
            buffer = ctypes.create_string_buffer(256)
            self.crypto.ERR_error_string_n(code, buffer, len(buffer))
            texts.append(buffer.value.decode())
        return texts

    def must(self, stage: str, result: int | None) -> int:
        """Return ``result`` unless it is zero or null, which most OpenSSL calls use for failure."""
        if not result:
            raise ClientError(stage, "; ".join(self.errors()) or "refused by OpenSSL")
        return result


@dataclass(slots=True)
class Transcript:
    """What the plain handshake messages said, read by OpenSSL's message callback."""

    hello_retry_request: bool = False
    group: int | None = None
    signature_scheme: int | None = None
    received: list[int] = field(default_factory=list)

    def on_message(self, message: bytes) -> None:
        """Note one whole message from the server: type (1 byte), length (3 bytes), body."""
        kind, body = message[0], message[4:]
        self.received.append(kind)
        if kind == SERVER_HELLO:
            retry = body[2:34] == HELLO_RETRY_REQUEST_RANDOM
            self.hello_retry_request |= retry
            for extension, value in _server_hello_extensions(body):
                if extension == KEY_SHARE_EXTENSION and not retry:
                    self.group = int.from_bytes(value[:2])
        elif kind == CERTIFICATE_VERIFY:
            self.signature_scheme = int.from_bytes(body[:2])


def _server_hello_extensions(body: bytes) -> Iterator[tuple[int, bytes]]:
    # legacy_version 2, random 32, session id, cipher suite 2, compression method 1, length of the extensions 2.
    at = 35 + body[34] + 2 + 1 + 2
    while at + 4 <= len(body):
        length = int.from_bytes(body[at + 2 : at + 4])
        yield int.from_bytes(body[at : at + 2]), body[at + 4 : at + 4 + length]
        at += 4 + length


class Client:
    """One connection attempt; every wait ends at the one deadline."""

    def __init__(self, openssl: OpenSsl, arguments: argparse.Namespace) -> None:
        self._openssl, self._ssl_library, self._crypto = openssl, openssl.ssl, openssl.crypto
        self._arguments = arguments
        self._deadline_s = time.monotonic() + float(arguments.timeout)
        self.transcript = Transcript()
        # Kept as an attribute: OpenSSL calls it long after this function returned.
        self._callback = MESSAGE_CALLBACK(self._on_message)
        self._context = self._new_context()
        self._ssl = openssl.must("setup", self._ssl_library.SSL_new(self._context))
        self._socket = self._new_socket()
        self._configure_connection()

    def _on_message(self, *details: int) -> None:
        written, _version, content_type, data, length, _ssl, _argument = details
        if not written and content_type == TLS_CONTENT_HANDSHAKE:
            self.transcript.on_message(ctypes.string_at(data, length))

    def _new_context(self) -> int:
        must, library, arguments = self._openssl.must, self._ssl_library, self._arguments
        context = must("setup", library.SSL_CTX_new(library.OSSL_QUIC_client_method()))
        library.SSL_CTX_set_msg_callback(context, self._callback)
        groups, algorithms = arguments.groups.encode(), arguments.sigalgs.encode()
        if groups:
            must("groups", library.SSL_CTX_ctrl(context, SSL_CTRL_SET_GROUPS_LIST, 0, groups))
        if algorithms:
            must("sigalgs", library.SSL_CTX_ctrl(context, SSL_CTRL_SET_SIGALGS_LIST, 0, algorithms))
        if arguments.rpk:
            must("certificate type", library.SSL_CTX_set1_server_cert_type(context, b"\x02", 1))
        if arguments.client_key:
            # A raw public key needs no certificate: OpenSSL derives what it sends from the private key.
            must("certificate type", library.SSL_CTX_set1_client_cert_type(context, b"\x02", 1))
            path = os.fsencode(arguments.client_key)
            must("client key", library.SSL_CTX_use_PrivateKey_file(context, path, SSL_FILETYPE_PEM))
        verify = SSL_VERIFY_PEER if arguments.expect_rpk else SSL_VERIFY_NONE
        library.SSL_CTX_set_verify(context, verify, None)
        return context

    def _new_socket(self) -> socket.socket:
        host, _, port = self._arguments.connect.rpartition(":")
        self._peer = (host.strip("[]"), int(port))
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        udp = socket.socket(family, socket.SOCK_DGRAM)
        udp.setblocking(False)
        udp.bind(("::1" if family == socket.AF_INET6 else "0.0.0.0", 0))
        return udp

    def _configure_connection(self) -> None:
        must, library, ssl, arguments = self._openssl.must, self._ssl_library, self._ssl, self._arguments
        must("setup", library.SSL_set_fd(ssl, self._socket.fileno()))
        must("setup", library.SSL_set_blocking_mode(ssl, 0))
        address = must("setup", self._crypto.BIO_ADDR_new())
        packed = socket.inet_pton(self._socket.family, self._peer[0])
        port = socket.htons(self._peer[1])
        must("setup", self._crypto.BIO_ADDR_rawmake(address, self._socket.family, packed, len(packed), port))
        must("setup", library.SSL_set1_initial_peer_addr(ssl, address))
        self._crypto.BIO_ADDR_free(address)
        name = arguments.alpn.encode()
        if library.SSL_set_alpn_protos(ssl, bytes([len(name)]) + name, len(name) + 1):
            raise ClientError("alpn", "refused by OpenSSL")
        if arguments.server_name:
            must(
                "server name",
                library.SSL_ctrl(ssl, SSL_CTRL_SET_TLSEXT_HOSTNAME, 0, arguments.server_name.encode()),
            )
        if arguments.expect_rpk:
            der = ctypes.c_char_p(bytes.fromhex(arguments.expect_rpk))
            length = len(arguments.expect_rpk) // 2
            key = must("expected key", self._crypto.d2i_PUBKEY(None, ctypes.byref(der), length))
            # OpenSSL keeps expected keys among its DANE records, which must be switched on first.
            must("expected key", library.SSL_CTX_dane_enable(self._context))
            must("expected key", library.SSL_dane_enable(ssl, None))
            must("expected key", library.SSL_add_expected_rpk(ssl, key))
            self._crypto.EVP_PKEY_free(key)

    def _timeout_s(self) -> float:
        """Return how long to wait for the socket before OpenSSL's own timer or the deadline is due."""
        value, infinite = TimeValue(), ctypes.c_int()
        self._ssl_library.SSL_get_event_timeout(self._ssl, ctypes.byref(value), ctypes.byref(infinite))
        remaining_s = max(0.0, self._deadline_s - time.monotonic())
        timer_s: float = value.seconds + value.microseconds / 1e6
        return remaining_s if infinite.value else min(remaining_s, timer_s)

    def _repeat(self, stage: str, operation: Callable[..., int], *arguments: object) -> int:
        """Call ``operation(*arguments)`` until it succeeds; return 1, or 0 when the stream has ended."""
        while True:
            self._crypto.ERR_clear_error()
            result = operation(*arguments)
            if result == 1:
                return 1
            error = self._ssl_library.SSL_get_error(self._ssl, result)
            if error == SSL_ERROR_ZERO_RETURN:
                return 0
            if error not in (SSL_ERROR_WANT_READ, SSL_ERROR_WANT_WRITE):
                raise ClientError(stage, "; ".join(self._openssl.errors()) or f"SSL error {error}")
            if time.monotonic() >= self._deadline_s:
                raise ClientError(stage, "deadline exceeded")
            select.select([self._socket], [], [], self._timeout_s())
            self._ssl_library.SSL_handle_events(self._ssl)

    def connect(self) -> float:
        """Complete the handshake and return how many seconds it took."""
        started_s = time.monotonic()
        self._repeat("handshake", self._ssl_library.SSL_connect, self._ssl)
        return time.monotonic() - started_s

    def echo(self, length_bytes: int) -> int:
        """Send that many bytes on a bidirectional stream, end it, and return how many came back unchanged."""
        library, payload, sent, received = self._ssl_library, os.urandom(length_bytes), 0, bytearray()
        count, buffer = ctypes.c_size_t(), ctypes.create_string_buffer(65536)
        while sent < length_bytes:
            rest = payload[sent : sent + 65536]
            flags = SSL_WRITE_FLAG_CONCLUDE if sent + len(rest) == length_bytes else 0
            self._repeat("write", library.SSL_write_ex2, self._ssl, rest, len(rest), flags, ctypes.byref(count))
            sent += count.value
        while self._repeat("read", library.SSL_read_ex, self._ssl, buffer, len(buffer), ctypes.byref(count)):
            received += buffer.raw[: count.value]
        if received != payload:
            raise ClientError("echo", f"{len(received)} of {length_bytes} bytes came back, or others")
        return len(received)

    def hold(self) -> None:
        """Serve the connection until standard input ends."""
        while True:
            # The deadline is for the conversation: past it, OpenSSL's timers are looked at by polling.
            wait_s = self._timeout_s() if time.monotonic() < self._deadline_s else HOLD_POLL_INTERVAL_S
            ready, _, _ = select.select([self._socket, sys.stdin], [], [], wait_s)
            self._ssl_library.SSL_handle_events(self._ssl)
            if sys.stdin in ready and not os.read(sys.stdin.fileno(), 4096):
                return

    def close(self) -> None:
        """
        Have everything sent acknowledged, then send CONNECTION_CLOSE, without waiting for an answer.

        Asked to close at once (``SSL_SHUTDOWN_FLAG_NO_STREAM_FLUSH``), OpenSSL at times sends no CONNECTION_CLOSE.
        """
        self._deadline_s = time.monotonic() + CLOSE_TIMEOUT_S
        while time.monotonic() < self._deadline_s:
            self._ssl_library.SSL_shutdown_ex(self._ssl, SSL_SHUTDOWN_FLAG_RAPID, None, 0)
            if self._close_facts()["close_code"] is not None:
                break
            select.select([self._socket], [], [], self._timeout_s())
            self._ssl_library.SSL_handle_events(self._ssl)
        self._ssl_library.SSL_free(self._ssl)
        self._socket.close()

    def facts(self) -> dict[str, object]:
        """Return what is known of the connection, whether or not it was completed."""
        library, ssl = self._ssl_library, self._ssl
        verify = int(library.SSL_get_verify_result(ssl))
        name = library.SSL_get0_group_name(ssl) if self.transcript.group is not None else None
        return {
            "group": self.transcript.group,
            "group_name": name.decode() if name else None,
            "hello_retry_request": self.transcript.hello_retry_request,
            "signature_scheme": self.transcript.signature_scheme,
            "server_messages": self.transcript.received,
            "certificate_type": CERTIFICATE_TYPE_NAMES.get(library.SSL_get_negotiated_server_cert_type(ssl)),
            "client_certificate_type": CERTIFICATE_TYPE_NAMES.get(library.SSL_get_negotiated_client_cert_type(ssl)),
            "peer_public_key": self._peer_public_key(),
            "alpn": self._alpn(),
            "verify_ok": verify == X509_V_OK,
            "verify_text": self._crypto.X509_verify_cert_error_string(verify).decode(),
            "local_port": self._socket.getsockname()[1],
            **self._close_facts(),
        }

    def _peer_public_key(self) -> str | None:
        key = self._ssl_library.SSL_get0_peer_rpk(self._ssl)
        if not key:
            return None
        buffer = ctypes.create_string_buffer(self._crypto.i2d_PUBKEY(key, None))
        self._crypto.i2d_PUBKEY(key, ctypes.byref(ctypes.cast(buffer, ctypes.c_char_p)))
        return buffer.raw.hex()

    def _alpn(self) -> str | None:
        name, length = ctypes.c_void_p(), ctypes.c_uint()
        self._ssl_library.SSL_get0_alpn_selected(self._ssl, ctypes.byref(name), ctypes.byref(length))
        return ctypes.string_at(name.value, length.value).decode() if name.value else None

    def _close_facts(self) -> dict[str, object]:
        info = ConnectionCloseInfo()
        closed = self._ssl_library.SSL_get_conn_close_info(self._ssl, ctypes.byref(info), ctypes.sizeof(info))
        if closed != 1:
            return {"close_code": None, "close_reason": None, "closed_by_peer": None, "alert": None}
        transport = bool(info.flags & SSL_CONN_CLOSE_FLAG_TRANSPORT)
        alert = transport and CRYPTO_ERROR <= info.error_code < CRYPTO_ERROR + 256
        return {
            "close_code": info.error_code,
            "close_reason": ctypes.string_at(info.reason, info.reason_length).decode(errors="replace")
            if info.reason
            else "",
            "closed_by_peer": not info.flags & SSL_CONN_CLOSE_FLAG_LOCAL,
            "alert": info.error_code - CRYPTO_ERROR if alert else None,
        }


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connect", required=True, metavar="HOST:PORT", help="address literal of the server")
    parser.add_argument("--groups", default="", help="OpenSSL groups list; '*' marks a key share to send")
    parser.add_argument("--sigalgs", default="", help="OpenSSL signature algorithms list")
    parser.add_argument("--alpn", default="test")
    parser.add_argument("--server-name", default="")
    parser.add_argument("--rpk", action="store_true", help="offer a raw public key as the server's certificate")
    parser.add_argument("--expect-rpk", default="", metavar="HEX", help="accept only this SubjectPublicKeyInfo")
    parser.add_argument("--client-key", default="", metavar="PEM", help="authenticate with this raw public key")
    parser.add_argument("--echo-bytes", type=int, default=0)
    parser.add_argument("--hold", action="store_true", help="stay connected until standard input ends")
    parser.add_argument("--timeout", type=float, default=10.0, help="seconds for everything but --hold")
    return parser.parse_args()


def main() -> int:
    """Hold one conversation, print its result as one JSON line, return 0 when it went well."""
    arguments = parse_arguments()
    result: dict[str, object] = {"ok": False, "stage": None, "error": None}
    client = None
    try:
        openssl = OpenSsl.load()
        result["library"] = openssl.crypto.OpenSSL_version(0).decode()
        client = Client(openssl, arguments)
        result["handshake_s"] = client.connect()
        if arguments.echo_bytes:
            result["echoed_bytes"] = client.echo(arguments.echo_bytes)
        result["ok"] = True
    except ClientError as error:
        result |= {"stage": error.stage, "error": str(error)}
    if client is not None:
        result |= client.facts()
    print(json.dumps(result), flush=True)
    if client is not None:
        if result["ok"] and arguments.hold:
            client.hold()
        client.close()
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
