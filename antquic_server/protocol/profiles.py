"""
Which handshake a ClientHello gets.

One port serves three kinds of client (``docs/wire.md``, "Handshake profiles"); nothing but the ClientHello tells
them apart:

=================  =====================================================================================
profile            recognised by
=================  =====================================================================================
ANT_QUIC           ``client_certificate_type`` offers raw keys, ``server_certificate_type`` is absent, and
                   ML-DSA-65 is accepted: the asymmetric use of RFC 7250 by ant-quic peers
RAW_PUBLIC_KEY     ``server_certificate_type`` offers raw keys and ML-DSA-65 is accepted: RFC 7250 by the book
X509               everything else that shares a post-quantum group with us
CLASSICAL          X509 without a post-quantum group; only when the operator admits it
=================  =====================================================================================

The functions here are pure: an offer in, a decision out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from antquic_server.protocol.codepoints import CertificateType, NamedGroup, SignatureScheme

POST_QUANTUM_GROUPS: tuple[int, ...] = (NamedGroup.X25519_ML_KEM_768, NamedGroup.ML_KEM_768)
"""In our order of preference: the hybrid first, since it holds if either half does."""

CLASSICAL_GROUPS: tuple[int, ...] = (NamedGroup.X25519, NamedGroup.SECP256R1, NamedGroup.SECP384R1)


class HandshakeProfile(StrEnum):
    """How one connection was authenticated; used as a metrics label."""

    ANT_QUIC = "ant_quic"
    RAW_PUBLIC_KEY = "raw_public_key"
    X509 = "x509"
    CLASSICAL = "classical"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientOffer:
    """
    What a ClientHello says about key exchange and authentication.

    A certificate-type list is None where the extension is absent, which RFC 7250 tells apart from a list.
    """

    supported_groups: tuple[int, ...]
    key_share_groups: tuple[int, ...]
    signature_algorithms: tuple[int, ...]
    client_certificate_types: tuple[int, ...] | None
    server_certificate_types: tuple[int, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupChoice:
    """The named group to use; ``retry`` when the client must be asked for a share of it first."""

    group: int
    retry: bool

    @property
    def is_post_quantum(self) -> bool:
        """Whether the group contains ML-KEM."""
        return self.group in POST_QUANTUM_GROUPS


@dataclass(frozen=True, slots=True, kw_only=True)
class Authentication:
    """Profile, and which certificate-type extensions EncryptedExtensions must carry."""

    profile: HandshakeProfile
    answer_client_certificate_type: bool
    answer_server_certificate_type: bool
    request_client_certificate: bool
    require_client_certificate: bool

    @property
    def uses_raw_public_key(self) -> bool:
        """Whether our Certificate message carries the node key rather than an X.509 chain."""
        return self.profile in (HandshakeProfile.ANT_QUIC, HandshakeProfile.RAW_PUBLIC_KEY)


def choose_group(offer: ClientOffer, *, allow_classical: bool) -> GroupChoice | None:
    """
    Choose the key exchange (RFC 8446, section 4.2.8), or None if there is no group in common.

    A group for which the client already sent a share wins over a preferred one without: a HelloRetryRequest
    costs a round trip, which an ant-quic peer pays out of its two seconds for a direct dial. Post-quantum groups
    come before any classical one all the same, share or not, so that nobody is talked down.
    """
    families = [POST_QUANTUM_GROUPS]
    if allow_classical:
        families.append(CLASSICAL_GROUPS)
    for family in families:
        supported = [group for group in family if group in offer.supported_groups]
        for group in supported:
            if group in offer.key_share_groups:
                return GroupChoice(group=group, retry=False)
        if supported:
            return GroupChoice(group=supported[0], retry=True)
    return None


def choose_authentication(offer: ClientOffer, choice: GroupChoice) -> Authentication:
    """
    Choose how we authenticate and what we ask of the client.

    ant-quic peers need ``client_certificate_type`` answered and ``server_certificate_type`` never sent, though they
    read our Certificate as a raw key; a client that follows RFC 7250 gets exactly what it offered.
    """
    accepts_node_key = SignatureScheme.ML_DSA_65 in offer.signature_algorithms
    has_raw_key = _offers_raw_key(offer.client_certificate_types)
    if accepts_node_key and has_raw_key and offer.server_certificate_types is None:
        return Authentication(
            profile=HandshakeProfile.ANT_QUIC,
            answer_client_certificate_type=True,
            answer_server_certificate_type=False,
            request_client_certificate=True,
            require_client_certificate=True,
        )
    if accepts_node_key and _offers_raw_key(offer.server_certificate_types):
        return Authentication(
            profile=HandshakeProfile.RAW_PUBLIC_KEY,
            answer_client_certificate_type=has_raw_key,
            answer_server_certificate_type=True,
            request_client_certificate=has_raw_key,
            require_client_certificate=False,
        )
    return Authentication(
        profile=HandshakeProfile.X509 if choice.is_post_quantum else HandshakeProfile.CLASSICAL,
        answer_client_certificate_type=False,
        answer_server_certificate_type=False,
        request_client_certificate=False,
        require_client_certificate=False,
    )


def _offers_raw_key(certificate_types: Sequence[int] | None) -> bool:
    return certificate_types is not None and CertificateType.RAW_PUBLIC_KEY in certificate_types
