"""
When a connection takes new packet protection keys (RFC 9001, section 6).

A key of AES-GCM may protect 2^23 packets (section 6.6), which a relay or a file of ten gigabytes reaches; aioquic knows
how to update keys, but never begins. Here it begins long before the limit, once a packet of the present key has been
acknowledged (section 6.1), and counts anew when the peer was first.

aioquic forgets the old key for reading at once, so that everything on its way when we begin would be lost, DATAGRAM
frames for good. Here the old key stays until the peer has shown that it has the new one, and three probe timeouts
longer (section 6.5).
"""

from typing import Any, Final, cast

from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.crypto import CryptoPair
from aioquic.quic.packet import QuicErrorCode
from aioquic.tls import Epoch

from antquic_server.protocol.seam.fast_crypto import FastCryptoContext
from antquic_server.protocol.seam.migration import MigratingConnection
from antquic_server.protocol.seam.options import ConnectionOptions

CHECK_INTERVAL_PACKETS: Final = 1 << 10
"""How many packets are sent between two looks at the keys, so that the hot path only compares two numbers."""

MAX_PACKETS_PER_KEY: Final = (1 << 23) - (1 << 16)
"""Where a connection ends whose peer has acknowledged nothing of the present key; short of the limit, to say so."""

FIRST_PACKET_OF_FIRST_KEY: Final = 1
"""Packets are numbered over all keys, and number 0 was an Initial."""

OLD_KEY_PROBE_TIMEOUTS: Final = 3


class UpdatingCryptoPair(CryptoPair):
    """aioquic's keys of an epoch, which keep the last one for reading and tell the connection of every update."""

    connection: "KeyUpdatingConnection"

    @classmethod
    def adopt(cls, stock: CryptoPair, connection: "KeyUpdatingConnection") -> "UpdatingCryptoPair":
        """Take over a pair with the keys and callbacks it has."""
        pair = cls.__new__(cls)
        pair.__dict__.update(stock.__dict__)
        pair.connection = connection
        return pair

    @property
    def reader(self) -> FastCryptoContext:
        """The keys for reading."""
        return cast("FastCryptoContext", self.recv)

    def _update_key(self, trigger: str) -> None:
        self.reader.previous_aead = self.recv.aead
        super()._update_key(trigger)
        self.connection.note_key_update()


class KeyUpdatingConnection(MigratingConnection):
    """aioquic's connection, which updates its keys after ``key_update_packets``."""

    def __init__(self, *, configuration: QuicConfiguration, options: ConnectionOptions, **stock_arguments: Any) -> None:
        super().__init__(configuration=configuration, options=options, **stock_arguments)
        self._keys_start = FIRST_PACKET_OF_FIRST_KEY
        """Number of the first packet that the present key may have protected."""
        self._keys_due = self._next_look(FIRST_PACKET_OF_FIRST_KEY)
        """Packet number from which on :meth:`_look_after_keys` is called again."""
        self._old_key_until_s: float | None = None

    def note_key_update(self) -> None:
        """Count anew: the next packet is the first of a new key, whichever side began."""
        self._keys_start = self._packet_number
        self._keys_due = self._next_look(self._packet_number)
        self._old_key_until_s = None

    def _install_key_updates(self) -> None:
        """Watch over the keys of 1-RTT packets, which our contexts protect by now."""
        self._cryptos[Epoch.ONE_RTT] = UpdatingCryptoPair.adopt(self._cryptos[Epoch.ONE_RTT], self)

    def _look_after_keys(self, now: float) -> None:
        """Forget the old key when it is time, and begin an update when it is due and allowed."""
        self._keys_due = self._next_look(self._packet_number)
        pair = self._cryptos[Epoch.ONE_RTT]
        if not self._handshake_confirmed or not isinstance(pair, UpdatingCryptoPair):
            return
        # The peer acknowledges a packet of the new key with the new key only (RFC 9001, section 6.2).
        acknowledged = self._spaces[Epoch.ONE_RTT].largest_acked_packet >= self._keys_start
        if acknowledged and pair.reader.previous_aead is not None:
            if self._old_key_until_s is None:
                self._old_key_until_s = now + OLD_KEY_PROBE_TIMEOUTS * self._loss.get_probe_timeout()
            elif now >= self._old_key_until_s:
                pair.reader.previous_aead = None
        packets = self._packet_number - self._keys_start
        if packets < self._options.key_update_packets:
            return
        if acknowledged:
            self.request_key_update()
        elif packets < MAX_PACKETS_PER_KEY:
            # A side that only receives sends nothing that must be acknowledged.
            self.send_ping(0)
        else:
            self.close(error_code=QuicErrorCode.AEAD_LIMIT_REACHED, reason_phrase="no packet of this key acknowledged")

    def _next_look(self, packet_number: int) -> int:
        return packet_number + min(CHECK_INTERVAL_PACKETS, self._options.key_update_packets)
