"""
A worker process that speaks the messages and serves nothing, for tests of the supervisor.

The environment variable ``FAKE_WORKER`` selects how it misbehaves:

==================  ======================================================================
``""``              it behaves: takes a slot, beats, drains when asked
``exit-3``          leaves at once with the exit code of "could not boot"
``crash-at-start``  leaves at once with exit code 1
``boot-failed``     takes a slot and answers with BootFailed
``wrong-version``   greets with a version nobody speaks
``die-young``       leaves with exit code 1 right after its first heartbeat in slot 0
``ignore-drain``    stays when asked to leave
``speak-nonsense``  sends bytes that are no message once it serves slot 0
``relay``           asks for a relay session, reports that it moves bytes, ends it when told to, and counts changes of
                    limits as ``messages_echoed``
==================  ======================================================================
"""

import os
import select
import socket
import sys
import time

from antquic_server.ipc.codec import MessageDecoder, encode
from antquic_server.ipc.messages import (
    VERSION,
    Assign,
    BootFailed,
    Drain,
    Drained,
    Heartbeat,
    HeartbeatAck,
    Hello,
    LimitsChanged,
    PeerUp,
    Ready,
)
from antquic_server.ipc.relay_messages import RelayReleased, RelayReserve, RelayReserved, RelayRevoked, RelayUsage

BEAT_S = 0.05
DATAGRAMS_PER_BEAT = 5
UNWANTED_LINE = "a line that a library prints by mistake\n"


class FakeWorker:
    """One conversation with the supervisor, on a blocking socket."""

    def __init__(self, sock: socket.socket, mode: str) -> None:
        self.sock = sock
        self.mode = mode
        self.assign: Assign | None = None
        self.sequence = 0
        self.acknowledged = 0
        self.limits_changed = 0
        self.relaying = False

    def run(self) -> int:
        """Talk until the end; returns the exit code."""
        decoder = MessageDecoder()
        version = 9999 if self.mode == "wrong-version" else VERSION
        self.sock.sendall(encode(Hello(version=version, pid=os.getpid())))
        next_beat_s = time.monotonic() + BEAT_S
        while True:
            wait_s = max(0.0, next_beat_s - time.monotonic())
            if select.select([self.sock], [], [], wait_s)[0]:
                data = self.sock.recv(65536)
                if not data:
                    return 1
                decoder.feed(data)
                while (message := decoder.next()) is not None:
                    exit_code = self.handle(message)
                    if exit_code is not None:
                        return exit_code
            if time.monotonic() >= next_beat_s:
                next_beat_s += BEAT_S
                self.beat()
                if self.mode == "die-young" and self.assign is not None and self.assign.slot == 0:
                    return 1

    def handle(self, message: object) -> int | None:
        """React to one message; returns the exit code if it was the last."""
        if isinstance(message, Assign):
            return self.take_slot(message)
        if isinstance(message, HeartbeatAck):
            self.acknowledged = message.sequence
        if isinstance(message, LimitsChanged):
            self.limits_changed += 1
        if isinstance(message, RelayReserved):
            self.relaying = not message.refusal
        if isinstance(message, RelayRevoked):
            self.relaying = False
            self.sock.sendall(encode(RelayReleased(session=message.session, moved_bytes=7)))
        if isinstance(message, Drain) and self.mode != "ignore-drain":
            self.beat()
            self.sock.sendall(encode(Drained(connections=1)))
            return 0
        return None

    def take_slot(self, assign: Assign) -> int | None:
        """Answer an assignment."""
        if self.mode == "boot-failed":
            self.sock.sendall(encode(BootFailed(reason="the fake provider is\nmissing")))
            return 3
        for descriptor in assign.sockets:
            # Proof that the sockets came along, under the numbers that the message names.
            with socket.socket(fileno=os.dup(descriptor.fd)) as borrowed:
                assert borrowed.getsockname()[1] == descriptor.port
        self.assign = assign
        ready = Ready(slot=assign.slot, generation=assign.generation, pqc_provider="fake", offloads=[])
        self.sock.sendall(encode(ready))
        peer = PeerUp(peer_id=bytes([assign.slot]) * 32, connection=1, host="192.0.2.1", port=4433)
        self.sock.sendall(encode(peer))
        if self.mode == "relay":
            self.sock.sendall(encode(RelayReserve(session=1, peer_id=peer.peer_id, host=peer.host)))
        if self.mode == "speak-nonsense" and assign.slot == 0:
            self.sock.sendall(b"\xff" * 64)
        return None

    def beat(self) -> None:
        """Send a heartbeat with counters that grow."""
        self.sequence += 1
        serving = self.assign is not None
        heartbeat = Heartbeat(
            sequence=self.sequence,
            connections=int(serving),
            handshakes_in_flight=0,
            loop_lag_s=0.001,
            counters={
                "datagrams_received": self.sequence * DATAGRAMS_PER_BEAT,
                "drops|malformed": self.acknowledged,
                "timers": 2,
                "messages_echoed": self.limits_changed,
            },
        )
        self.sock.sendall(encode(heartbeat))
        if self.relaying:
            self.sock.sendall(encode(RelayUsage(sessions=[1], moved_bytes=[10])))


def main() -> int:
    """Run as the mode says."""
    mode = os.environ.get("FAKE_WORKER", "")
    if mode == "exit-3":
        return 3
    if mode == "crash-at-start":
        return 1
    # In one piece, since all workers share the supervisor's standard error.
    os.write(1, UNWANTED_LINE.encode())
    return FakeWorker(socket.socket(fileno=int(os.environ["ANTQUIC_CHANNEL_FD"])), mode).run()


if __name__ == "__main__":
    sys.exit(main())
