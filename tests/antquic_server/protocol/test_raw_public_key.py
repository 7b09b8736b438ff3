"""Raw public keys and peer ids: fixed vectors, one encoding only, and an independent encoder."""

import pytest
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from antquic_server.errors import PublicKeyDecodeError
from antquic_server.protocol.raw_public_key import (
    ML_DSA_65_PUBLIC_KEY_BYTES,
    ML_DSA_65_SIGNATURE_BYTES,
    PEER_ID_BYTES,
    SUBJECT_PUBLIC_KEY_INFO_BYTES,
    decode_subject_public_key_info_untrusted,
    encode_subject_public_key_info,
    peer_id,
)
from support.strategies import mutations

COUNTING_KEY = bytes(i % 256 for i in range(ML_DSA_65_PUBLIC_KEY_BYTES))
HEADER = bytes.fromhex("308207b2300b0609608648016503040312038207a100")


def public_keys() -> st.SearchStrategy[bytes]:
    """Keys that differ; their content has no structure here."""
    return st.binary(min_size=1, max_size=64).map(
        lambda seed: (seed * ML_DSA_65_PUBLIC_KEY_BYTES)[:ML_DSA_65_PUBLIC_KEY_BYTES]
    )


@pytest.mark.parametrize(
    ("public_key", "expected_hex"),
    [
        (bytes(1952), "64750714b20ec2838270ed9a1d0b69954997eea2d290385f0786855425fa8f8e"),
        (b"\xff" * 1952, "92c149fb6908794f53cd33953ecdf3706cadaf7d981da98d24e0e506539cf5e6"),
        (COUNTING_KEY, "7241ff27d2b68665e7edb3d3b12afe998ef7a631dca4140be93954556816cc87"),
    ],
    ids=["zeros", "ones", "counting"],
)
def test_peer_id_is_the_one_real_peers_compute(public_key: bytes, expected_hex: str) -> None:
    """Vectors of the peer's rule."""
    assert peer_id(public_key).hex() == expected_hex
    assert len(peer_id(public_key)) == PEER_ID_BYTES


@given(public_key=public_keys())
def test_key_survives_a_round_trip(public_key: bytes) -> None:
    """The DER form has its declared length and gives the key back."""
    der = encode_subject_public_key_info(public_key)
    assert len(der) == SUBJECT_PUBLIC_KEY_INFO_BYTES == 1974
    assert der == HEADER + public_key
    assert decode_subject_public_key_info_untrusted(der) == public_key


def test_encoding_is_that_of_an_independent_library() -> None:
    """A real key, written by the library, is byte for byte what we write, and signatures have their size."""
    private_key = MLDSA65PrivateKey.generate()
    public_key = private_key.public_key()
    der = public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    raw = public_key.public_bytes(Encoding.Raw, PublicFormat.Raw)
    assert encode_subject_public_key_info(raw) == der
    assert decode_subject_public_key_info_untrusted(der) == raw
    assert len(private_key.sign(b"message")) == ML_DSA_65_SIGNATURE_BYTES


def test_cut_or_continued_key_is_refused() -> None:
    """Every shorter prefix, and one byte more."""
    der = encode_subject_public_key_info(COUNTING_KEY)
    for length in range(len(der)):
        with pytest.raises(PublicKeyDecodeError, match=f"has {length} bytes"):
            decode_subject_public_key_info_untrusted(der[:length])
    with pytest.raises(PublicKeyDecodeError, match="has 1975 bytes"):
        decode_subject_public_key_info_untrusted(der + b"\x00")


@pytest.mark.parametrize("position", range(len(HEADER)))
def test_any_other_header_is_refused(position: int) -> None:
    """Other tags, lengths, algorithms and unused bits: one key has one encoding."""
    der = bytearray(encode_subject_public_key_info(COUNTING_KEY))
    der[position] ^= 1
    with pytest.raises(PublicKeyDecodeError, match="is not the DER form"):
        decode_subject_public_key_info_untrusted(bytes(der))


@given(data=st.data(), public_key=public_keys())
def test_mutated_key_is_read_or_refused(data: st.DataObject, public_key: bytes) -> None:
    """A changed encoding is the encoding of another key, or the decode error."""
    der = data.draw(mutations(encode_subject_public_key_info(public_key)))
    try:
        read = decode_subject_public_key_info_untrusted(der)
    except PublicKeyDecodeError:
        return
    assert encode_subject_public_key_info(read) == der


@pytest.mark.parametrize("length", [0, 1951, 1953, 1974])
def test_key_of_another_length_is_neither_encoded_nor_named(length: int) -> None:
    """A peer id of something that is no key would be a stranger's."""
    with pytest.raises(ValueError, match=f"has {length} bytes"):
        encode_subject_public_key_info(bytes(length))
    with pytest.raises(ValueError, match=f"has {length} bytes"):
        peer_id(bytes(length))
