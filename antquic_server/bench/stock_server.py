"""
The yardstick: an echo server on ``aioquic.asyncio.serve``, as its documentation shows it.

Run as ``python -m antquic_server.bench.stock_server asyncio|uvloop [HOST]``; prints one JSON line when it listens.
"""

import asyncio
import json
import os
import signal
import socket
import sys

import uvloop
from aioquic.asyncio import QuicConnectionProtocol, serve
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import DatagramFrameReceived, QuicEvent, StreamDataReceived
from aioquic.tls import load_pem_private_key, load_pem_x509_certificates

from antquic_server.bench.variants import ed25519_certificate


class EchoProtocol(QuicConnectionProtocol):
    """Sends back datagrams and streams."""

    def quic_event_received(self, event: QuicEvent) -> None:
        """Echo; aioquic transmits after each received datagram by itself."""
        if isinstance(event, DatagramFrameReceived):
            self._quic.send_datagram_frame(event.data)
        elif isinstance(event, StreamDataReceived):
            self._quic.send_stream_data(event.stream_id, event.data, event.end_stream)


async def main(host: str) -> None:
    """Serve until SIGTERM."""
    configuration = QuicConfiguration(is_client=False, max_datagram_frame_size=65535)
    certificate, key = ed25519_certificate()
    configuration.certificate = load_pem_x509_certificates(certificate)[0]
    configuration.private_key = load_pem_private_key(key)
    # ``serve`` does not tell which port it got, so one is chosen here and the rare collision ends the run.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
    await serve(host, port, configuration=configuration, create_protocol=EchoProtocol)
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    print(json.dumps({"port": port, "pid": os.getpid()}), flush=True)
    await stopped.wait()


if __name__ == "__main__":
    factory = uvloop.new_event_loop if sys.argv[1:2] == ["uvloop"] else asyncio.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main(sys.argv[2] if len(sys.argv) > 2 else "127.0.0.1"))
