"""
A cheap stand-in for ``NodeQuicConnection``: the handshake's shape without its cryptography.

It has what ``antquic_server.peer.link.Quic`` asks for, and datagrams that look like QUIC's from outside: a long header
with connection IDs while the handshake lasts, a short one afterwards. A handshake takes one and a half round trips and
is repeated when packets are lost, like messages, which arrive once.
"""

import pickle
from collections import deque
from hashlib import sha256
from types import SimpleNamespace
from typing import Any

from aioquic.quic.events import ConnectionTerminated, HandshakeCompleted, StreamDataReceived

from antquic_server.protocol.address import SocketAddress
from antquic_server.protocol.frames import ObservedAddress
from antquic_server.protocol.parameters import ExtensionParameters
from antquic_server.protocol.seam.connection import ExtensionFrameReceived

__all__ = ["StandIn", "public_key_of"]

CID_BYTES = 8
INITIAL_BYTES = 1200
LONG_HEADER_BYTES = 7 + 2 * CID_BYTES
PTO_S = 0.2
IDLE_S = 30.0


def public_key_of(name: str) -> bytes:
    """Return a made-up public key, as long as a real one."""
    return sha256(name.encode()).digest() * 61


class StandIn:
    """One end of a connection; ``first_cid`` is the connection ID in the client's first datagram."""

    def __init__(
        self,
        *,
        public_key: bytes,
        own_cid: bytes,
        first_cid: bytes,
        is_client: bool,
        relay_channels: bool = False,
    ) -> None:
        self.open_streams = 0
        self.remote_extensions: Any = None
        self.held_by_application_bytes = 0
        self.path_mtu_bytes = INITIAL_BYTES
        self.observed_by_peer = SimpleNamespace(address=None)
        self.handshake_complete = False
        self.is_pristine = True
        self.is_closing = False
        self.close_code: int | None = None
        self.close_reason = ""
        self.peer_public_key: bytes | None = None
        self.issued_connection_ids = [own_cid]
        self.peer_reset_tokens: list[bytes] = []
        self._hello = (public_key, relay_channels)
        self._probed: list[Any] = []
        """Further addresses from which the server may answer."""
        self._elsewhere: list[tuple[str, Any]] = []
        """What goes out by another address than the one in use, and that address."""
        self._first_cid = first_cid
        self._remote_cid = first_cid
        self._is_client = is_client
        self._addr: Any = None
        self._events: deque[Any] = deque()
        self._out: list[tuple[str, Any]] = []
        self._unacknowledged: dict[int, bytes] = {}
        self._seen: set[int] = set()
        self._next_message = 0
        self._pinging = False
        self._retry_at_s: float | None = None
        self._retries = 0
        self._idle_at_s = float("inf")
        self._close: tuple[int, str] | None = None
        self._now_s = 0.0

    # What the endpoint calls.

    def connect(self, addr: Any, now: float) -> None:
        """Begin as a client."""
        self._addr, self._now_s, self._idle_at_s = addr, now, now + IDLE_S
        self._out.append(("hello", self._hello))
        self._retry_at_s = now + PTO_S

    def receive_datagram(self, data: bytes, addr: Any, now: float) -> None:
        """Take in what the other end has sent."""
        if self.is_closing or (self._is_client and addr not in (self._addr, *self._probed)):
            return
        kind, remote_cid, body = pickle.loads(data[LONG_HEADER_BYTES:])
        if self._is_client == (kind in ("hello", "finished")) and kind in ("hello", "finished", "answer"):
            return
        self._now_s, self._idle_at_s = now, now + IDLE_S
        if kind == "challenge":
            self._elsewhere.append(("response", addr))
        elif kind == "response":
            self._answered(addr)
        else:
            if not self._is_client:
                self._addr = addr
            self.is_pristine = False
            getattr(self, f"_receive_{kind}")(remote_cid, body)

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, Any]]:
        """Return what is due."""
        self._now_s = now
        if self._close is not None:
            self._out = [("close", self._close)]
        sent = [(self._datagram(kind, body), self._addr) for kind, body in self._out]
        sent += [(self._datagram(kind, None), addr) for kind, addr in self._elsewhere]
        self._out.clear()
        self._elsewhere.clear()
        if self._close is not None:
            self._terminate(*self._close)
            self._close = None
        return sent

    def next_event(self) -> Any:
        """Return the next event."""
        return self._events.popleft() if self._events else None

    def get_timer(self) -> float | None:
        """Return when the next repetition, or the idle timeout, is due."""
        if self.is_closing:
            return None
        return self._idle_at_s if self._retry_at_s is None else min(self._retry_at_s, self._idle_at_s)

    def handle_timer(self, now: float) -> None:
        """Repeat what is not acknowledged; give up when idle."""
        self._now_s = now
        if now >= self._idle_at_s:
            self._terminate(1, "Idle timeout")
        elif self._retry_at_s is not None and now >= self._retry_at_s:
            self._retries += 1
            self._retry_at_s = now + PTO_S * 2 ** min(self._retries, 5)
            if self._is_client and not self.handshake_complete:
                self._out.append(("hello", self._hello))
            elif self._is_client:
                self._out.append(("finished", None))
            self._out += [("message", item) for item in self._unacknowledged.items()]
            self._out += [("ping", 0)] if self._pinging else []

    def get_peer_address(self) -> Any:
        """Return where datagrams go."""
        return self._addr

    @property
    def unanswered_probes(self) -> int:
        """Repetitions in a row without any acknowledgement."""
        return self._retries if self.handshake_complete and self._retry_at_s is not None else 0

    def use_path(self, addr: Any, now: float) -> None:
        """Go on at another address."""
        self._addr, self._retries = addr, 0
        self._out += [("message", item) for item in self._unacknowledged.items()]

    def send_ping(self, uid: int) -> None:
        """Send something that is answered, and again until it is."""
        self._out.append(("ping", uid))
        if not self._pinging:
            self._pinging = True
            self._retries, self._retry_at_s = 0, self._now_s + PTO_S

    def send_message(self, data: bytes) -> bool:
        """Send a message, reliably."""
        self._unacknowledged[self._next_message] = data
        self._out.append(("message", (self._next_message, data)))
        self._next_message += 1
        self._retries, self._retry_at_s = 0, self._now_s + PTO_S
        return True

    def send_backlog_bytes(self) -> int:
        """Bytes of messages not yet acknowledged."""
        return sum(map(len, self._unacknowledged.values()))

    @property
    def can_migrate(self) -> bool:
        """Whether it can be moved."""
        return self._is_client and self.handshake_complete and not self.is_closing

    def is_on_path(self, addr: Any) -> bool:
        """Whether this address is the one in use."""
        return bool(addr == self._addr)

    def probe_path(self, addr: Any) -> bool:
        """Move to another address as soon as the other end has answered from there."""
        if not self.can_migrate or addr == self._addr:
            return False
        if addr not in self._probed:
            self._probed.append(addr)
        self._elsewhere.append(("challenge", addr))
        return True

    def abandon_path(self, addr: Any) -> None:
        """Take an answer from there no longer for a reason to move."""
        if addr in self._probed and addr != self._addr:
            self._probed.remove(addr)

    def _answered(self, addr: Any) -> None:
        if addr in self._probed and addr != self._addr:
            self._probed.append(self._addr)
            self._addr = addr
            # The other end follows what is more than a probe; and what was lost with the old path is repeated.
            self._out.append(("ping", 0))
            self._out += [("message", item) for item in self._unacknowledged.items()]

    def advertise_address(self, frame: Any) -> None:
        """Not part of what is tested with stand-ins, like the rest of these."""

    def send_datagram_frame(self, data: bytes) -> None: ...  # noqa: D102
    def stop_stream(self, stream_id: int, error_code: int) -> None: ...  # noqa: D102
    def reset_stream(self, stream_id: int, error_code: int) -> None: ...  # noqa: D102
    def get_next_available_stream_id(self) -> int:  # noqa: D102
        return 0

    def send_stream_data(self, stream_id: int, data: bytes, end_stream: bool = False) -> None: ...  # noqa: D102
    def stream_is_writable(self, stream_id: int) -> bool:  # noqa: D102
        return False

    def stream_backlog_bytes(self, stream_id: int) -> int:  # noqa: D102
        return 0

    def close(self, error_code: int = 0, frame_type: int | None = None, reason_phrase: str = "") -> None:
        """End the connection with the next flush."""
        if not self.is_closing and self._close is None:
            self._close = (int(error_code), reason_phrase)

    def abandon(self, code: int, reason: str) -> None:
        """End the connection without a word."""
        if not self.is_closing:
            self._terminate(code, reason)

    def export_keying_material(self, label: bytes, context: bytes, length: int) -> bytes:
        """Return the same at both ends."""
        return sha256(self._first_cid).digest()[:length]

    # What arrives.

    def _receive_hello(self, remote_cid: bytes, hello: tuple[bytes, bool]) -> None:
        self._remote_cid = remote_cid
        self._greeted(hello)
        self._out.append(("answer", (self._hello, tuple(self._addr[:2]))))

    def _greeted(self, hello: tuple[bytes, bool]) -> None:
        self.peer_public_key, relay_channels = hello
        self.remote_extensions = ExtensionParameters(relay_channels=relay_channels)

    def _receive_answer(self, remote_cid: bytes, body: Any) -> None:
        self._remote_cid = remote_cid
        hello, (host, port) = body
        self._greeted(hello)
        self._out.append(("finished", None))
        self._complete()
        self.observed_by_peer.address = SocketAddress.from_host(host, port)
        frame = ObservedAddress(sequence_number=0, address=self.observed_by_peer.address)
        self._events.append(ExtensionFrameReceived(frame=frame, used=True))

    def _receive_finished(self, _remote_cid: bytes, _body: None) -> None:
        if self.peer_public_key is not None:
            self._complete()
            self._out.append(("acknowledge", -1))

    def _receive_message(self, _remote_cid: bytes, body: tuple[int, bytes]) -> None:
        if not self.handshake_complete:
            # It has overtaken the end of the handshake: without keys nobody reads it, and it is sent again.
            return
        number, message = body
        self._out.append(("acknowledge", number))
        if number not in self._seen:
            self._seen.add(number)
            stream_id = 4 * number + (3 if self._is_client else 2)
            self._events.append(StreamDataReceived(data=message, end_stream=True, stream_id=stream_id))

    def _receive_acknowledge(self, _remote_cid: bytes, number: int) -> None:
        self._unacknowledged.pop(number, None)
        self._pinging = False
        self._retries = 0
        if not self._unacknowledged:
            self._retry_at_s = None

    def _receive_ping(self, _remote_cid: bytes, _uid: int) -> None:
        self._out.append(("acknowledge", -2))

    def _receive_close(self, _remote_cid: bytes, body: tuple[int, str]) -> None:
        self._terminate(*body)

    def _complete(self) -> None:
        if not self.handshake_complete:
            self.handshake_complete = True
            self._retries = 0
            event = HandshakeCompleted(alpn_protocol=None, early_data_accepted=False, session_resumed=False)
            self._events.append(event)

    def _terminate(self, code: int, reason: str) -> None:
        self.is_closing = True
        self._out.clear()
        self._events.append(ConnectionTerminated(error_code=code, frame_type=None, reason_phrase=reason))

    def _datagram(self, kind: str, body: Any) -> bytes:
        own_cid = self.issued_connection_ids[0]
        if kind in ("hello", "answer", "finished", "close"):
            first = b"\xc0" if kind == "hello" else b"\xe0"
            cids = bytes([CID_BYTES]) + self._remote_cid + bytes([CID_BYTES]) + own_cid
            header = first + b"\0\0\0\1" + cids
        else:
            header = (b"\x40" + self._remote_cid).ljust(LONG_HEADER_BYTES, b"\0")
        datagram = header + pickle.dumps((kind, own_cid, body))
        return datagram.ljust(INITIAL_BYTES, b"\0") if kind == "hello" else datagram
