"""Tests of ``antquic_server.protocol.profiles``: what a ClientHello is worth, as tables."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antquic_server.protocol.codepoints import CertificateType, NamedGroup, SignatureScheme
from antquic_server.protocol.profiles import (
    CLASSICAL_GROUPS,
    POST_QUANTUM_GROUPS,
    ClientOffer,
    GroupChoice,
    HandshakeProfile,
    choose_authentication,
    choose_group,
)

HYBRID = int(NamedGroup.X25519_ML_KEM_768)
ML_KEM = int(NamedGroup.ML_KEM_768)
X25519 = int(NamedGroup.X25519)
P256 = int(NamedGroup.SECP256R1)
GREASE = 0x8A8A
RAW = int(CertificateType.RAW_PUBLIC_KEY)
CERTIFICATE = int(CertificateType.X509)
ML_DSA = int(SignatureScheme.ML_DSA_65)
ECDSA = int(SignatureScheme.ECDSA_SECP256R1_SHA256)

OFFER = ClientOffer(
    supported_groups=(ML_KEM,),
    key_share_groups=(ML_KEM,),
    signature_algorithms=(ML_DSA,),
    client_certificate_types=None,
    server_certificate_types=None,
)
POST_QUANTUM = GroupChoice(group=ML_KEM, retry=False)


def offer_groups(supported: tuple[int, ...], shares: tuple[int, ...]) -> ClientOffer:
    """An offer of these groups."""
    return replace(OFFER, supported_groups=supported, key_share_groups=shares)


@pytest.mark.parametrize(
    ("supported", "shares", "group", "retry"),
    [
        ((ML_KEM,), (ML_KEM,), ML_KEM, False),
        ((HYBRID, ML_KEM), (HYBRID,), HYBRID, False),
        # The client's order does not matter, and of two shares ours of the hybrid wins.
        ((ML_KEM, HYBRID), (ML_KEM, HYBRID), HYBRID, False),
        # A share that is there beats a preferred group that costs a round trip.
        ((HYBRID, ML_KEM), (ML_KEM,), ML_KEM, False),
        ((HYBRID, ML_KEM), (), HYBRID, True),
        ((ML_KEM,), (), ML_KEM, True),
        # Post-quantum, even if only the classical share is there.
        ((X25519, ML_KEM), (X25519,), ML_KEM, True),
        ((GREASE, X25519, HYBRID), (GREASE, X25519), HYBRID, True),
    ],
)
@pytest.mark.parametrize("allow_classical", [False, True])
def test_post_quantum_group_is_chosen(
    supported: tuple[int, ...], shares: tuple[int, ...], group: int, retry: bool, allow_classical: bool
) -> None:
    """A post-quantum group wins, with a share if possible, whether or not classical clients are admitted."""
    choice = choose_group(offer_groups(supported, shares), allow_classical=allow_classical)
    assert choice == GroupChoice(group=group, retry=retry)
    assert choice.is_post_quantum


@pytest.mark.parametrize(
    ("supported", "shares", "group", "retry"),
    [
        ((X25519,), (X25519,), X25519, False),
        ((X25519, P256), (P256,), P256, False),
        ((int(NamedGroup.SECP384R1), P256), (), P256, True),
    ],
)
def test_classical_group_needs_permission(
    supported: tuple[int, ...], shares: tuple[int, ...], group: int, retry: bool
) -> None:
    """A classical client is refused unless the operator admits it."""
    offer = offer_groups(supported, shares)
    assert choose_group(offer, allow_classical=False) is None
    choice = choose_group(offer, allow_classical=True)
    assert choice == GroupChoice(group=group, retry=retry)
    assert not choice.is_post_quantum


@pytest.mark.parametrize("supported", [(), (GREASE,), (int(NamedGroup.ML_KEM_512), int(NamedGroup.ML_KEM_1024))])
def test_no_group_in_common(supported: tuple[int, ...]) -> None:
    """Groups we do not speak lead to no choice at all."""
    assert choose_group(offer_groups(supported, supported), allow_classical=True) is None


@pytest.mark.parametrize("group", [ML_KEM, HYBRID, X25519])
def test_share_of_a_group_that_is_not_supported_does_not_count(group: int) -> None:
    """A share alone is no offer (RFC 8446, section 4.2.8 wants each share's group in supported_groups)."""
    assert choose_group(offer_groups((), (group,)), allow_classical=True) is None


groups = st.lists(st.sampled_from([*POST_QUANTUM_GROUPS, *CLASSICAL_GROUPS, GREASE]), unique=True).map(tuple)


@given(supported=groups, shares=groups, allow_classical=st.booleans())
def test_group_choice_follows_the_offer(
    supported: tuple[int, ...], shares: tuple[int, ...], allow_classical: bool
) -> None:
    """Whatever is offered: the choice is supported, ``retry`` tells the truth, and nobody is talked down."""
    choice = choose_group(offer_groups(supported, shares), allow_classical=allow_classical)
    has_post_quantum = bool(set(supported) & set(POST_QUANTUM_GROUPS))
    if choice is None:
        assert not has_post_quantum
        assert not (allow_classical and set(supported) & set(CLASSICAL_GROUPS))
    else:
        assert choice.group in supported
        assert choice.retry == (choice.group not in shares)
        assert choice.is_post_quantum == has_post_quantum
        assert choice.is_post_quantum or allow_classical


@pytest.mark.parametrize(
    ("client_types", "server_types", "algorithms", "profile"),
    [
        ((RAW,), None, (ML_DSA,), HandshakeProfile.ANT_QUIC),
        ((CERTIFICATE, RAW), None, (ECDSA, ML_DSA), HandshakeProfile.ANT_QUIC),
        ((RAW,), (RAW,), (ML_DSA,), HandshakeProfile.RAW_PUBLIC_KEY),
        (None, (RAW,), (ML_DSA,), HandshakeProfile.RAW_PUBLIC_KEY),
        ((CERTIFICATE,), (CERTIFICATE, RAW), (ML_DSA,), HandshakeProfile.RAW_PUBLIC_KEY),
        (None, None, (ML_DSA, ECDSA), HandshakeProfile.X509),
        (None, None, (ECDSA,), HandshakeProfile.X509),
        # Raw keys are no use to somebody who cannot check our signature.
        ((RAW,), None, (ECDSA,), HandshakeProfile.X509),
        ((RAW,), (RAW,), (ECDSA,), HandshakeProfile.X509),
        # An extension that offers X.509 only is there, but offers no raw key.
        ((CERTIFICATE,), None, (ML_DSA,), HandshakeProfile.X509),
        ((RAW,), (CERTIFICATE,), (ML_DSA,), HandshakeProfile.X509),
    ],
)
def test_profile_by_certificate_types(
    client_types: tuple[int, ...] | None,
    server_types: tuple[int, ...] | None,
    algorithms: tuple[int, ...],
    profile: HandshakeProfile,
) -> None:
    """The certificate-type extensions and ML-DSA-65 decide the profile."""
    offer = replace(
        OFFER,
        client_certificate_types=client_types,
        server_certificate_types=server_types,
        signature_algorithms=algorithms,
    )
    authentication = choose_authentication(offer, POST_QUANTUM)
    assert authentication.profile is profile
    assert authentication.uses_raw_public_key == (profile is not HandshakeProfile.X509)


def test_ant_quic_profile_answers_asymmetrically() -> None:
    """An ant-quic peer gets client_certificate_type only, and must authenticate."""
    authentication = choose_authentication(replace(OFFER, client_certificate_types=(RAW,)), POST_QUANTUM)
    assert authentication.answer_client_certificate_type
    assert not authentication.answer_server_certificate_type
    assert authentication.request_client_certificate
    assert authentication.require_client_certificate


@pytest.mark.parametrize("offers_own_key", [False, True])
def test_raw_public_key_profile_answers_what_was_offered(offers_own_key: bool) -> None:
    """RFC 7250: a client is asked for a key only if it offered one, and need not have it."""
    offer = replace(
        OFFER,
        client_certificate_types=(RAW,) if offers_own_key else None,
        server_certificate_types=(RAW,),
    )
    authentication = choose_authentication(offer, POST_QUANTUM)
    assert authentication.answer_server_certificate_type
    assert authentication.answer_client_certificate_type is offers_own_key
    assert authentication.request_client_certificate is offers_own_key
    assert not authentication.require_client_certificate


@pytest.mark.parametrize(("group", "profile"), [(HYBRID, HandshakeProfile.X509), (X25519, HandshakeProfile.CLASSICAL)])
def test_x509_profiles_ask_nothing_of_the_client(group: int, profile: HandshakeProfile) -> None:
    """A client without raw keys is anonymous; without ML-KEM it is counted as classical."""
    authentication = choose_authentication(OFFER, GroupChoice(group=group, retry=False))
    assert authentication.profile is profile
    assert not authentication.answer_client_certificate_type
    assert not authentication.answer_server_certificate_type
    assert not authentication.request_client_certificate
    assert not authentication.require_client_certificate
