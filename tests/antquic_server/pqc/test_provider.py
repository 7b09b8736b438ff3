"""What every provider must do, checked on each of them and between them, with published known answers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antquic_server.errors import KeyShareDecodeError, PqcError
from antquic_server.pqc.liboqs_provider import LiboqsContext
from antquic_server.pqc.provider import (
    PqcProvider,
    require_length,
    validate_ciphertext_untrusted,
    validate_encapsulation_key_untrusted,
)
from support.pqc import PROVIDERS, ProviderName, encapsulation_key, load_or_skip, read_vectors

ML_KEM_VECTORS = "asymmetric/MLKEM/kat_MLKEM_768.rsp"
ML_DSA_VECTORS = "asymmetric/MLDSA/kat_MLDSA_65_det_pure.rsp"
Q = 3329
POSITIONS = [0, 1, 255, 256, 383, 384, 511, 512, 766, 767]


@pytest.fixture(params=PROVIDERS)
def provider(request: pytest.FixtureRequest) -> PqcProvider:
    """Each provider in turn."""
    return load_or_skip(request.param)


@pytest.fixture(params=PROVIDERS)
def other(request: pytest.FixtureRequest) -> PqcProvider:
    """Each provider in turn, as the other side."""
    return load_or_skip(request.param)


def test_validation_accepts_the_largest_coefficient_everywhere() -> None:
    """3328 is in range at all 768 places."""
    validate_encapsulation_key_untrusted(encapsulation_key({}, rest=Q - 1))


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("value", [Q, Q + 1, 4095])
@pytest.mark.parametrize("rest", [0, Q - 1])
def test_validation_refuses_one_coefficient_out_of_range(position: int, value: int, rest: int) -> None:
    """One coefficient of 3329 or more is found wherever it is."""
    with pytest.raises(KeyShareDecodeError, match="coefficient"):
        validate_encapsulation_key_untrusted(encapsulation_key({position: value}, rest=rest))


@given(st.dictionaries(st.integers(0, 767), st.integers(0, 4095)), st.integers(0, Q - 1))
def test_validation_agrees_with_the_definition(coefficients: dict[int, int], rest: int) -> None:
    """The check with big integers refuses exactly the keys that have a coefficient of 3329 or more."""
    key = encapsulation_key(coefficients, rest=rest)
    if any(value >= Q for value in coefficients.values()):
        with pytest.raises(KeyShareDecodeError):
            validate_encapsulation_key_untrusted(key)
    else:
        validate_encapsulation_key_untrusted(key)


def test_validation_ignores_the_matrix_seed() -> None:
    """The last 32 bytes are a seed and may have any value."""
    validate_encapsulation_key_untrusted(encapsulation_key({})[:1152] + b"\xff" * 32)


@pytest.mark.parametrize("length_bytes", [0, 1, 32, 1152, 1183, 1185, 1568])
def test_validation_refuses_an_encapsulation_key_of_another_length(length_bytes: int) -> None:
    """Only 1184 bytes are a key."""
    with pytest.raises(KeyShareDecodeError, match=f"has {length_bytes} bytes instead of 1184"):
        validate_encapsulation_key_untrusted(bytes(length_bytes))


@pytest.mark.parametrize("length_bytes", [0, 1087, 1089, 1120])
def test_validation_refuses_a_ciphertext_of_another_length(length_bytes: int) -> None:
    """Only 1088 bytes are a ciphertext."""
    with pytest.raises(KeyShareDecodeError, match=f"has {length_bytes} bytes instead of 1088"):
        validate_ciphertext_untrusted(bytes(length_bytes))


def test_require_length_names_what_is_wrong() -> None:
    """The message says what has which length."""
    require_length("seed", bytes(32), 32)
    with pytest.raises(PqcError, match=r"^seed has 31 bytes instead of 32$"):
        require_length("seed", bytes(31), 32)


def test_provider_refuses_to_encapsulate_to_malformed_keys(provider: PqcProvider) -> None:
    """Wrong lengths and coefficients out of range are the peer's fault, and said to be."""
    good = provider.generate_kem_key_pair().public_key
    malformed = [b"", good[:-1], good + b"\0", *(encapsulation_key({index: Q}) for index in POSITIONS)]
    for key in malformed:
        with pytest.raises(KeyShareDecodeError):
            provider.encapsulate(key)


def test_key_pair_refuses_a_ciphertext_of_another_length(provider: PqcProvider) -> None:
    """A ciphertext that is cut short or too long is the peer's fault."""
    key_pair = provider.generate_kem_key_pair()
    for ciphertext in (b"", bytes(1087), bytes(1089)):
        with pytest.raises(KeyShareDecodeError):
            key_pair.decapsulate(ciphertext)


def test_encapsulated_secret_is_the_decapsulated_one(provider: PqcProvider, other: PqcProvider) -> None:
    """Whoever made the key pair and whoever answers it agree on the secret."""
    key_pair = provider.generate_kem_key_pair()
    ciphertext, secret = other.encapsulate(key_pair.public_key)
    assert (len(key_pair.public_key), len(ciphertext), len(secret)) == (1184, 1088, 32)
    assert key_pair.decapsulate(ciphertext) == secret
    assert other.encapsulate(key_pair.public_key)[1] != secret


def test_key_pairs_are_fresh_without_a_seed_and_equal_with_one(provider: PqcProvider, other: PqcProvider) -> None:
    """Without a seed two key pairs differ; with one all providers make the same."""
    assert provider.generate_kem_key_pair().public_key != provider.generate_kem_key_pair().public_key
    seed = bytes(range(64))
    assert provider.generate_kem_key_pair(seed).public_key == other.generate_kem_key_pair(seed).public_key


@pytest.mark.parametrize("position", [0, 500, 959, 960, 1087])
def test_altered_ciphertext_is_rejected_implicitly(provider: PqcProvider, other: PqcProvider, position: int) -> None:
    """An altered ciphertext yields another secret, the same each time and from each provider, and no error."""
    seed = bytes(range(64))
    key_pair = provider.generate_kem_key_pair(seed)
    ciphertext, secret = provider.encapsulate(key_pair.public_key)
    altered = bytearray(ciphertext)
    altered[position] ^= 1
    rejected = key_pair.decapsulate(bytes(altered))
    assert rejected != secret
    assert rejected == other.generate_kem_key_pair(seed).decapsulate(bytes(altered))
    assert key_pair.decapsulate(ciphertext) == secret


def test_closed_key_pair_refuses_to_decapsulate(provider: PqcProvider) -> None:
    """Closing is final, may be repeated, and keeps the public key readable."""
    key_pair = provider.generate_kem_key_pair()
    ciphertext, _ = provider.encapsulate(key_pair.public_key)
    key_pair.close()
    key_pair.close()
    assert len(key_pair.public_key) == 1184
    with pytest.raises(PqcError, match="closed"):
        key_pair.decapsulate(ciphertext)


def test_signature_verifies_at_every_provider(provider: PqcProvider, other: PqcProvider) -> None:
    """Keys of one seed are the same key, and a signature of one provider is good at the other."""
    seed = bytes(range(32))
    key = provider.signing_key(seed)
    assert key.public_key == other.signing_key(seed).public_key
    for message in (b"", b"m", b"\0" * 130, bytes(70_000)):
        signature = key.sign(message)
        assert (len(key.public_key), len(signature)) == (1952, 3309)
        assert other.verify(key.public_key, message, signature)


def test_signatures_are_hedged(provider: PqcProvider) -> None:
    """Two signatures over the same message differ."""
    key = provider.signing_key(bytes(32))
    assert key.sign(b"message") != key.sign(b"message")


def test_verify_refuses_what_was_altered(provider: PqcProvider) -> None:
    """A change of one bit in signature, message or key, or a context, makes a signature bad."""
    key = provider.signing_key(bytes(32))
    signature = key.sign(b"message")
    assert provider.verify(key.public_key, b"message", signature)
    assert not provider.verify(key.public_key, b"message", signature, b"context")
    assert not provider.verify(key.public_key, b"massage", signature)
    assert not provider.verify(key.public_key, b"message\0", signature)
    for position in (0, 47, 48, 3247, 3248, 3308):
        altered = bytearray(signature)
        altered[position] ^= 1
        assert not provider.verify(key.public_key, b"message", bytes(altered))
    for position in (0, 31, 32, 1951):
        altered = bytearray(key.public_key)
        altered[position] ^= 1
        assert not provider.verify(bytes(altered), b"message", signature)


def test_verify_refuses_wrong_lengths(provider: PqcProvider) -> None:
    """A key or signature of another length is no error, just not good."""
    key = provider.signing_key(bytes(32))
    signature = key.sign(b"m")
    for wrong in (b"", signature[:-1], signature + b"\0", bytes(4627)):
        assert not provider.verify(key.public_key, b"m", wrong)
    for wrong in (b"", key.public_key[:-1], key.public_key + b"\0", bytes(2592)):
        assert not provider.verify(wrong, b"m", signature)
    assert not provider.verify(key.public_key, b"m", signature, bytes(256))


def test_seeds_of_another_length_are_refused(provider: PqcProvider) -> None:
    """A seed of the wrong length is our own fault."""
    for length_bytes in (0, 32, 63, 65):
        with pytest.raises(PqcError, match="ML-KEM-768 seed"):
            provider.generate_kem_key_pair(bytes(length_bytes))
    for length_bytes in (0, 31, 33, 64):
        with pytest.raises(PqcError, match="ML-DSA-65 seed"):
            provider.signing_key(bytes(length_bytes))


def test_context_signs_and_verifies(provider: PqcProvider) -> None:
    """A context does all operations, one after the other, and is done with after closing."""
    context = provider.new_context()
    key = provider.signing_key(bytes(32))
    signature = context.sign(key, b"m")
    key_pair = context.generate_kem_key_pair()
    ciphertext, secret = context.encapsulate(key_pair.public_key)
    assert context.verify(key.public_key, b"m", signature)
    assert key_pair.decapsulate(ciphertext) == secret
    context.wipe()
    context.close()
    context.close()


@pytest.mark.parametrize(("name", "foreign"), [("cryptography", "liboqs"), ("liboqs", "cryptography")])
def test_context_refuses_the_key_of_another_provider(name: ProviderName, foreign: ProviderName) -> None:
    """A signing key belongs to the provider that expanded it."""
    key = load_or_skip(foreign).signing_key(bytes(32))
    with pytest.raises(PqcError, match=f"not a key of the {name} provider"):
        load_or_skip(name).new_context().sign(key, b"m")


def test_ml_kem_known_answers(provider: PqcProvider) -> None:
    """All vectors: the key of a seed, the secret of a ciphertext, and implicit rejection of a random one."""
    vectors = read_vectors(ML_KEM_VECTORS)
    assert len(vectors) == 1000
    context = provider.new_context()
    for vector in vectors:
        key_pair = context.generate_kem_key_pair(vector["d"] + vector["z"])
        assert key_pair.public_key == vector["pk"]
        if isinstance(context, LiboqsContext):
            assert context._secrets.raw[:2400] == vector["sk"]
        assert key_pair.decapsulate(vector["ct"]) == vector["ss"]
        assert key_pair.decapsulate(vector["ct_n"]) == vector["ss_n"]


def test_ml_dsa_known_answers(provider: PqcProvider) -> None:
    """All vectors: the key of a seed, a good signature, and the same with one bit changed."""
    vectors = read_vectors(ML_DSA_VECTORS)
    assert len(vectors) == 100
    for vector in vectors:
        signature, message = vector["sm"][:3309], vector["sm"][3309:]
        assert message == vector["msg"]
        key = provider.signing_key(vector["xi"])
        assert key.public_key == vector["pk"]
        assert provider.verify(vector["pk"], message, signature, vector["ctx"])
        altered = bytes([signature[0] ^ 1]) + signature[1:]
        assert not provider.verify(vector["pk"], message, altered, vector["ctx"])
        assert not provider.verify(vector["pk"], message, signature, vector["ctx"] + b"\0")
