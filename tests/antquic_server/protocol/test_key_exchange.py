"""Tests of ``antquic_server.protocol.key_exchange``: both halves against each other, and malformed shares."""

import pytest
from cryptography.hazmat.primitives.asymmetric import x25519

from antquic_server.errors import KeyShareDecodeError
from antquic_server.pqc.cryptography_provider import CryptographyProvider
from antquic_server.pqc.pool import PqcPool
from antquic_server.protocol.codepoints import NamedGroup
from antquic_server.protocol.key_exchange import (
    CIPHERTEXT_BYTES,
    ENCAPSULATION_KEY_BYTES,
    ClientKeyShare,
    answer_key_share_untrusted,
)

HYBRID = NamedGroup.X25519_ML_KEM_768
GROUPS = (
    NamedGroup.ML_KEM_768,
    HYBRID,
    NamedGroup.X25519,
    NamedGroup.SECP256R1,
    NamedGroup.SECP384R1,
)
# u-coordinates of small order (RFC 7748, section 6.1): every private key turns them into zero.
SMALL_ORDER_KEYS = (
    bytes(32),
    bytes([1]) + bytes(31),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
)


@pytest.fixture
def kem() -> PqcPool:
    """A pool of two contexts, small enough to notice one that is not given back."""
    return PqcPool(CryptographyProvider(), 2)


@pytest.mark.parametrize("group", GROUPS)
def test_both_sides_have_the_same_secret(kem: PqcPool, group: NamedGroup) -> None:
    """Client and server arrive at one secret, and another client at another."""
    secrets = []
    for _ in range(2):
        client = ClientKeyShare(kem, group)
        answer, secret = answer_key_share_untrusted(kem, group, client.share)
        assert client.finish_untrusted(answer) == secret
        secrets.append(secret)
    assert secrets[0] != secrets[1]


@pytest.mark.parametrize(
    ("group", "share_bytes", "answer_bytes", "secret_bytes"),
    [
        (NamedGroup.ML_KEM_768, 1184, 1088, 32),
        (HYBRID, 1216, 1120, 64),
        (NamedGroup.X25519, 32, 32, 32),
        (NamedGroup.SECP256R1, 65, 65, 32),
        (NamedGroup.SECP384R1, 97, 97, 48),
    ],
)
def test_lengths_on_the_wire(
    kem: PqcPool, group: NamedGroup, share_bytes: int, answer_bytes: int, secret_bytes: int
) -> None:
    """Shares and secrets have the lengths of the drafts and of RFC 8446."""
    client = ClientKeyShare(kem, group)
    answer, secret = answer_key_share_untrusted(kem, group, client.share)
    assert (len(client.share), len(answer), len(secret)) == (share_bytes, answer_bytes, secret_bytes)
    client.close()


def test_hybrid_puts_ml_kem_first(kem: PqcPool) -> None:
    """X25519MLKEM768: in shares and secret the ML-KEM part comes first, whatever the name says."""
    key_pair = kem.generate_kem_key_pair()
    key = x25519.X25519PrivateKey.generate()
    answer, secret = answer_key_share_untrusted(kem, HYBRID, key_pair.public_key + key.public_key().public_bytes_raw())
    kem_secret = key_pair.decapsulate(answer[:CIPHERTEXT_BYTES])
    shared = key.exchange(x25519.X25519PublicKey.from_public_bytes(answer[CIPHERTEXT_BYTES:]))
    assert secret == kem_secret + shared
    key_pair.close()


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("change", ["empty", "short", "long"])
def test_share_of_wrong_length_is_malformed(kem: PqcPool, group: NamedGroup, change: str) -> None:
    """One byte too few or too many is enough on either side."""
    client = ClientKeyShare(kem, group)
    answer, _ = answer_key_share_untrusted(kem, group, client.share)

    def wrong(share: bytes) -> bytes:
        return {"empty": b"", "short": share[:-1], "long": share + b"\x00"}[change]

    with pytest.raises(KeyShareDecodeError):
        answer_key_share_untrusted(kem, group, wrong(client.share))
    with pytest.raises(KeyShareDecodeError):
        client.finish_untrusted(wrong(answer))
    assert kem.in_use == 0


@pytest.mark.parametrize("group", [NamedGroup.ML_KEM_768, HYBRID])
@pytest.mark.parametrize("position", [0, 576, 1150])
def test_coefficient_out_of_range_is_malformed(kem: PqcPool, group: NamedGroup, position: int) -> None:
    """FIPS 203, section 7.2: an encapsulation key with a coefficient of 3329 or more is refused."""
    client = ClientKeyShare(kem, group)
    # 0xFFF = 4095 in the two coefficients of three bytes.
    share = client.share[:position] + b"\xff\xff\xff" + client.share[position + 3 :]
    with pytest.raises(KeyShareDecodeError):
        answer_key_share_untrusted(kem, group, share)
    client.close()
    assert kem.in_use == 0


@pytest.mark.parametrize("key", SMALL_ORDER_KEYS)
def test_x25519_of_small_order_is_malformed(kem: PqcPool, key: bytes) -> None:
    """An all-zero X25519 result is refused on both sides, alone and in the hybrid."""
    with pytest.raises(KeyShareDecodeError):
        answer_key_share_untrusted(kem, NamedGroup.X25519, key)
    with pytest.raises(KeyShareDecodeError):
        ClientKeyShare(kem, NamedGroup.X25519).finish_untrusted(key)
    client = ClientKeyShare(kem, HYBRID)
    with pytest.raises(KeyShareDecodeError):
        answer_key_share_untrusted(kem, HYBRID, client.share[:ENCAPSULATION_KEY_BYTES] + key)
    answer, _ = answer_key_share_untrusted(kem, HYBRID, client.share)
    with pytest.raises(KeyShareDecodeError):
        client.finish_untrusted(answer[:CIPHERTEXT_BYTES] + key)


@pytest.mark.parametrize("group", [NamedGroup.SECP256R1, NamedGroup.SECP384R1])
def test_point_off_the_curve_is_malformed(kem: PqcPool, group: NamedGroup) -> None:
    """A point that does not lie on the curve is refused."""
    share = bytearray(ClientKeyShare(kem, group).share)
    share[-1] ^= 1
    with pytest.raises(KeyShareDecodeError):
        answer_key_share_untrusted(kem, group, bytes(share))


def test_damaged_ciphertext_gives_another_secret(kem: PqcPool) -> None:
    """FIPS 203's implicit rejection: no error, but a secret nobody shares."""
    client = ClientKeyShare(kem, NamedGroup.ML_KEM_768)
    answer, secret = answer_key_share_untrusted(kem, NamedGroup.ML_KEM_768, client.share)
    damaged = bytes([answer[0] ^ 1]) + answer[1:]
    assert client.finish_untrusted(damaged) != secret


@pytest.mark.parametrize("group", GROUPS)
def test_private_keys_are_used_once(kem: PqcPool, group: NamedGroup) -> None:
    """After the exchange, or after ``close``, nothing is held any more and a second exchange is refused."""
    client = ClientKeyShare(kem, group)
    answer, _ = answer_key_share_untrusted(kem, group, client.share)
    client.finish_untrusted(answer)
    assert kem.in_use == 0
    with pytest.raises(KeyShareDecodeError):
        client.finish_untrusted(answer)
    given_up = ClientKeyShare(kem, group)
    given_up.close()
    given_up.close()
    assert kem.in_use == 0
