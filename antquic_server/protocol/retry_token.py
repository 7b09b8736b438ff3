"""
Retry tokens: proof that a client receives at the address it sends from (RFC 9000, section 8.1.2).

Layout::

    4 bytes    epoch: which key sealed the token
    12 bytes   nonce, random
    rest       AES-128-GCM over the contents, with the epoch as associated data:
                   8 bytes   time of sealing, in milliseconds of Unix time
                   1 byte    IP version, 4 or 6
                   4 or 16   address
                   2 bytes   port
                   1 byte    length of the client's first destination connection ID, then it
                   1 byte    length of the source connection ID of our Retry, then it

What a token must guarantee (RFC 9000, section 8.1.4), and by what: nobody but the node makes one (AEAD); it
works for one address and one Retry only (both are inside); it dies soon (time of sealing). One use only is
not enforced: a copy helps nobody but the address it was sealed for, and within seconds.

The key of an epoch is derived from a secret that all workers of a node share, so any of them, a replacement
included, opens what another sealed. The epoch stands in the clear, so that a foreign token (ant-quic peers
present those of other nodes) costs at most one decryption.
"""

from collections.abc import Callable
from dataclasses import dataclass

from aioquic.buffer import Buffer
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from antquic_server.errors import TokenDecodeError
from antquic_server.protocol.address import (
    IPV6_ADDRESS_BYTES,
    PORT_BYTES,
    SocketAddress,
    pull_address_untrusted,
    push_address,
)

__all__ = ["InvalidTokenError", "RetryToken", "RetryTokenSealer"]

_EPOCH_BYTES = 4
_NONCE_BYTES = 12
_TAG_BYTES = 16
_KEY_BYTES = 16
_TIME_BYTES = 8
_MAX_CONNECTION_ID_BYTES = 20  # RFC 9000, section 17.2
_MAX_CONTENTS_BYTES = _TIME_BYTES + 1 + IPV6_ADDRESS_BYTES + PORT_BYTES + 2 * (1 + _MAX_CONNECTION_ID_BYTES)
_MIN_TOKEN_BYTES = _EPOCH_BYTES + _NONCE_BYTES + _TAG_BYTES
_MAX_TOKEN_BYTES = _MIN_TOKEN_BYTES + _MAX_CONTENTS_BYTES
_KEY_PURPOSE = b"antquic-server retry token epoch "


class InvalidTokenError(TokenDecodeError):
    """A token of ours does not fit: close with INVALID_TOKEN (RFC 9000, section 8.1.3)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryToken:
    """What a token says; both go back to the client as transport parameters (RFC 9000, section 7.3)."""

    original_destination_connection_id: bytes
    retry_source_connection_id: bytes


class RetryTokenSealer:
    """
    Seals and opens Retry tokens under keys that change every ``rotation_s``.

    Tokens are good for ``lifetime_s``, across one change of keys. Times are seconds of Unix time, since
    workers of one node, and later of one fleet, must agree on them.
    """

    def __init__(self, root_secret: bytes, rotation_s: float = 3600.0, lifetime_s: float = 15.0) -> None:
        if not 0 < lifetime_s <= rotation_s:
            raise ValueError(f"lifetime_s is {lifetime_s}, expected above 0, at most rotation_s {rotation_s}")
        self._root_secret = root_secret
        self._rotation_s = rotation_s
        self._lifetime_s = lifetime_s
        self._ciphers: dict[int, AESGCM] = {}

    def seal(
        self,
        *,
        address: SocketAddress,
        original_destination_connection_id: bytes,
        retry_source_connection_id: bytes,
        now_s: float,
        random_bytes: Callable[[int], bytes],
    ) -> bytes:
        """Make a token for the client at ``address``; about 100 bytes."""
        contents = Buffer(capacity=_MAX_CONTENTS_BYTES)
        contents.push_uint64(round(now_s * 1000))
        normal_address = address.normalised()
        contents.push_uint8(normal_address.host.version)
        push_address(contents, normal_address)
        for connection_id in (original_destination_connection_id, retry_source_connection_id):
            if len(connection_id) > _MAX_CONNECTION_ID_BYTES:
                raise ValueError(f"connection ID has {len(connection_id)} bytes, expected at most 20")
            contents.push_uint8(len(connection_id))
            contents.push_bytes(connection_id)
        epoch = self._epoch(now_s)
        epoch_bytes = epoch.to_bytes(_EPOCH_BYTES, "big")
        nonce = random_bytes(_NONCE_BYTES)
        return epoch_bytes + nonce + self._cipher(epoch).encrypt(nonce, contents.data, epoch_bytes)

    def open_untrusted(
        self, *, token: bytes, address: SocketAddress, destination_connection_id: bytes, now_s: float
    ) -> RetryToken:
        """
        Check a token that came in an Initial packet.

        ``destination_connection_id`` is that of the packet: the client must use the one of our Retry.
        Raises ``InvalidTokenError`` for a token of ours that is expired or meant for another address or
        Retry, and plain ``TokenDecodeError`` for any other: treat that as no token at all (RFC 9000,
        section 8.1.3).
        """
        sealed_at_s, sealed_for, content = self._decrypt_untrusted(token, now_s)
        # Workers share the clock of one machine; the tolerance covers a clock that was set back meanwhile.
        if abs(now_s - sealed_at_s) > self._lifetime_s:
            raise InvalidTokenError("Retry token has expired")
        if sealed_for != address.normalised():
            raise InvalidTokenError("Retry token was made for another address")
        if content.retry_source_connection_id != destination_connection_id:
            raise InvalidTokenError("Retry token was made for another connection ID")
        return content

    def _decrypt_untrusted(self, token: bytes, now_s: float) -> tuple[float, SocketAddress, RetryToken]:
        if not _MIN_TOKEN_BYTES <= len(token) <= _MAX_TOKEN_BYTES:
            raise TokenDecodeError(f"token of {len(token)} bytes is not one of ours")
        epoch_bytes = token[:_EPOCH_BYTES]
        epoch = int.from_bytes(epoch_bytes, "big")
        current = self._epoch(now_s)
        if epoch not in (current, current - 1):
            raise TokenDecodeError("token is of no current epoch")
        nonce = token[_EPOCH_BYTES : _EPOCH_BYTES + _NONCE_BYTES]
        try:
            contents = self._cipher(epoch).decrypt(nonce, token[_EPOCH_BYTES + _NONCE_BYTES :], epoch_bytes)
        except InvalidTag:
            raise TokenDecodeError("token was not sealed by this node") from None
        # From here on these are bytes this node wrote itself.
        buf = Buffer(data=contents)
        sealed_at_s = buf.pull_uint64() / 1000
        sealed_for = pull_address_untrusted(buf, ipv6=buf.pull_uint8() == 6)
        return (
            sealed_at_s,
            sealed_for,
            RetryToken(
                original_destination_connection_id=buf.pull_bytes(buf.pull_uint8()),
                retry_source_connection_id=buf.pull_bytes(buf.pull_uint8()),
            ),
        )

    def _epoch(self, now_s: float) -> int:
        return int(now_s // self._rotation_s)

    def _cipher(self, epoch: int) -> AESGCM:
        cipher = self._ciphers.get(epoch)
        if cipher is None:
            info = _KEY_PURPOSE + epoch.to_bytes(_EPOCH_BYTES, "big")
            key = HKDF(algorithm=SHA256(), length=_KEY_BYTES, salt=None, info=info).derive(self._root_secret)
            cipher = AESGCM(key)
            # Of older epochs nothing is accepted any more; a clock set back costs a derivation, no more.
            self._ciphers = {known: value for known, value in self._ciphers.items() if abs(known - epoch) <= 1}
            self._ciphers[epoch] = cipher
        return cipher
