"""
What shows that the leg of a relay channel receives at the address that it sends from: a nonce that was sent there.

The MAC of a bind proves a key, and whoever has the key can write any source address: the nonce is what QUIC's
PATH_CHALLENGE is to a path (RFC 9000, section 8.2). Nothing is kept for it::

    HMAC-SHA256(secret, channel id | key of the leg | epoch | address), cut to 8 bytes

A nonce counts in the epoch that it was made in and in the next one, so for 30 to 60 seconds: long enough for a peer
that binds every ten seconds to need no round trip of its own for it, and short enough that an address which somebody
has left is soon no leg any more, however many binds still claim to come from there.
"""

import hmac
from struct import Struct
from typing import Final

from antquic_server.protocol.relay_channel import NONCE_BYTES

__all__ = ["EPOCH_S", "AddressProofs"]

EPOCH_S: Final = 30.0

_EPOCH: Final = Struct(">q")


class AddressProofs:
    """Makes nonces and knows them again; ``secret`` is known to nobody else, peers included."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def nonce(self, channel_id: bytes, leg_key: bytes, source: tuple[object, ...], now_s: float) -> bytes:
        """Return what a leg has to send back; ``source`` is its address as sockets have it."""
        return self._nonce(channel_id, leg_key, source, int(now_s // EPOCH_S))

    def proves(
        self, nonce: bytes, *, channel_id: bytes, leg_key: bytes, source: tuple[object, ...], now_s: float
    ) -> bool:
        """Whether the nonce was sent to this leg of this channel at this address, not too long ago."""
        epoch = int(now_s // EPOCH_S)
        return any(
            hmac.compare_digest(self._nonce(channel_id, leg_key, source, made), nonce) for made in (epoch, epoch - 1)
        )

    def _nonce(self, channel_id: bytes, leg_key: bytes, source: tuple[object, ...], epoch: int) -> bytes:
        # All but the address are of fixed length, and neither hosts nor numbers have spaces in them.
        address = " ".join(map(str, source)).encode()
        return hmac.digest(self._secret, channel_id + leg_key + _EPOCH.pack(epoch) + address, "sha256")[:NONCE_BYTES]
