"""
Every number this project puts on the wire or recognises there.

One ``IntEnum`` per registry; the comment beside a member names where the number is defined. "ant-quic" means
the published behaviour of that implementation, release 0.27.44 (``docs/wire.md``). A number that is retired
stays here, marked, so that it is never given a second meaning.
"""

from enum import IntEnum

__all__ = [
    "ApplicationErrorCode",
    "CertificateType",
    "FrameType",
    "NamedGroup",
    "SignatureScheme",
    "TlsExtensionType",
    "TransportErrorCode",
    "TransportParameterId",
    "TryConnectToError",
]


class NamedGroup(IntEnum):
    """TLS named groups: what ``supported_groups`` and ``key_share`` carry (RFC 8446, section 4.2.7)."""

    SECP256R1 = 0x0017  # RFC 8446, section 4.2.7
    SECP384R1 = 0x0018  # RFC 8446, section 4.2.7
    SECP521R1 = 0x0019  # RFC 8446, section 4.2.7
    X25519 = 0x001D  # RFC 8446, section 4.2.7
    X448 = 0x001E  # RFC 8446, section 4.2.7
    ML_KEM_512 = 0x0200  # draft-ietf-tls-mlkem
    ML_KEM_768 = 0x0201  # draft-ietf-tls-mlkem; the only group ant-quic sends a share for
    ML_KEM_1024 = 0x0202  # draft-ietf-tls-mlkem; offered by ant-quic without a share
    SECP256R1_ML_KEM_768 = 0x11EB  # draft-ietf-tls-ecdhe-mlkem
    X25519_ML_KEM_768 = 0x11EC  # draft-ietf-tls-ecdhe-mlkem; ML-KEM part first
    SECP384R1_ML_KEM_1024 = 0x11ED  # draft-ietf-tls-ecdhe-mlkem


class SignatureScheme(IntEnum):
    """TLS signature schemes (RFC 8446, section 4.2.3)."""

    RSA_PKCS1_SHA1 = 0x0201  # RFC 8446, section 4.2.3; never accepted in CertificateVerify
    RSA_PKCS1_SHA256 = 0x0401  # RFC 8446, section 4.2.3; certificates only
    ECDSA_SECP256R1_SHA256 = 0x0403  # RFC 8446, section 4.2.3
    RSA_PKCS1_SHA384 = 0x0501  # RFC 8446, section 4.2.3; certificates only
    ECDSA_SECP384R1_SHA384 = 0x0503  # RFC 8446, section 4.2.3
    RSA_PKCS1_SHA512 = 0x0601  # RFC 8446, section 4.2.3; certificates only
    ECDSA_SECP521R1_SHA512 = 0x0603  # RFC 8446, section 4.2.3
    RSA_PSS_RSAE_SHA256 = 0x0804  # RFC 8446, section 4.2.3
    RSA_PSS_RSAE_SHA384 = 0x0805  # RFC 8446, section 4.2.3
    RSA_PSS_RSAE_SHA512 = 0x0806  # RFC 8446, section 4.2.3
    ED25519 = 0x0807  # RFC 8446, section 4.2.3
    ED448 = 0x0808  # RFC 8446, section 4.2.3
    RSA_PSS_PSS_SHA256 = 0x0809  # RFC 8446, section 4.2.3
    RSA_PSS_PSS_SHA384 = 0x080A  # RFC 8446, section 4.2.3
    RSA_PSS_PSS_SHA512 = 0x080B  # RFC 8446, section 4.2.3
    ML_DSA_44 = 0x0904  # draft-ietf-tls-mldsa
    ML_DSA_65 = 0x0905  # draft-ietf-tls-mldsa; the only scheme ant-quic offers
    ML_DSA_87 = 0x0906  # draft-ietf-tls-mldsa


class CertificateType(IntEnum):
    """TLS certificate types (RFC 7250, section 3)."""

    X509 = 0  # RFC 6091, section 3
    OPENPGP = 1  # RFC 6091, section 3; retired by RFC 8446, section 4.4.2
    RAW_PUBLIC_KEY = 2  # RFC 7250, section 3


class TlsExtensionType(IntEnum):
    """TLS extension numbers this project reads, writes or must leave alone (RFC 8446, section 4.2)."""

    SERVER_NAME = 0  # RFC 6066, section 3
    STATUS_REQUEST = 5  # RFC 6066, section 8
    SUPPORTED_GROUPS = 10  # RFC 8446, section 4.2.7
    SIGNATURE_ALGORITHMS = 13  # RFC 8446, section 4.2.3
    APPLICATION_LAYER_PROTOCOL_NEGOTIATION = 16  # RFC 7301, section 3.1
    SIGNED_CERTIFICATE_TIMESTAMP = 18  # RFC 6962, section 3.3.1
    CLIENT_CERTIFICATE_TYPE = 19  # RFC 7250, section 3
    SERVER_CERTIFICATE_TYPE = 20  # RFC 7250, section 3
    PADDING = 21  # RFC 7685, section 3
    EXTENDED_MASTER_SECRET = 23  # RFC 7627, section 5.1; sent by ant-quic, without meaning in TLS 1.3
    COMPRESS_CERTIFICATE = 27  # RFC 8879, section 3
    SESSION_TICKET = 35  # RFC 5077, section 3.2; may be sent by ant-quic, without meaning in TLS 1.3
    PRE_SHARED_KEY = 41  # RFC 8446, section 4.2.11
    EARLY_DATA = 42  # RFC 8446, section 4.2.10
    SUPPORTED_VERSIONS = 43  # RFC 8446, section 4.2.1
    COOKIE = 44  # RFC 8446, section 4.2.2
    PSK_KEY_EXCHANGE_MODES = 45  # RFC 8446, section 4.2.9
    CERTIFICATE_AUTHORITIES = 47  # RFC 8446, section 4.2.4
    POST_HANDSHAKE_AUTH = 49  # RFC 8446, section 4.2.6; forbidden in QUIC (RFC 9001, section 4.4)
    SIGNATURE_ALGORITHMS_CERT = 50  # RFC 8446, section 4.2.3
    KEY_SHARE = 51  # RFC 8446, section 4.2.8
    QUIC_TRANSPORT_PARAMETERS = 57  # RFC 9001, section 8.2
    ENCRYPTED_CLIENT_HELLO = 0xFE0D  # RFC 9849
    RENEGOTIATION_INFO = 0xFF01  # RFC 5746, section 3.2; without meaning in TLS 1.3


class FrameType(IntEnum):
    """QUIC frame types beyond RFC 9000; the standard ones are handled by the QUIC stack."""

    IMMEDIATE_ACK = 0x1F  # draft-ietf-quic-ack-frequency, section 5
    ACK_FREQUENCY = 0xAF  # draft-ietf-quic-ack-frequency, section 4
    ADD_ADDRESS_IPV4 = 0x3D7E90  # draft-seemann-quic-nat-traversal
    ADD_ADDRESS_IPV6 = 0x3D7E91  # draft-seemann-quic-nat-traversal
    PUNCH_ME_NOW_IPV4 = 0x3D7E92  # draft-seemann-quic-nat-traversal
    PUNCH_ME_NOW_IPV6 = 0x3D7E93  # draft-seemann-quic-nat-traversal
    REMOVE_ADDRESS = 0x3D7E94  # draft-seemann-quic-nat-traversal
    TRY_CONNECT_TO_IPV4 = 0x3D7E95  # ant-quic
    TRY_CONNECT_TO_IPV6 = 0x3D7E96  # ant-quic
    TRY_CONNECT_TO_RESPONSE_IPV4 = 0x3D7E97  # ant-quic
    TRY_CONNECT_TO_RESPONSE_IPV6 = 0x3D7E98  # ant-quic
    OBSERVED_ADDRESS_IPV4 = 0x9F81A6  # draft-ietf-quic-address-discovery
    OBSERVED_ADDRESS_IPV6 = 0x9F81A7  # draft-ietf-quic-address-discovery


class TransportParameterId(IntEnum):
    """QUIC transport parameters beyond RFC 9000; the standard ones are handled by the QUIC stack."""

    GREASE_QUIC_BIT = 0x2AB2  # RFC 9287, section 3
    PQC_ALGORITHMS = 0x50C0  # ant-quic; never sent: it makes the peer pad packets to 4096 bytes
    ACK_RECEIVE_V2 = 0x50C2  # ant-quic
    ADDRESS_DISCOVERY = 0x9F81A176  # draft-ietf-quic-address-discovery
    MIN_ACK_DELAY = 0xFF04DE1B  # draft-ietf-quic-ack-frequency, section 3
    NAT_TRAVERSAL = 0x3D7E9F0BCA12FEA6  # draft-seemann-quic-nat-traversal
    RFC_NAT_TRAVERSAL = 0x3D7E9F0BCA12FEA8  # ant-quic; "my frames have the layouts of the draft"
    RELAY_CHANNELS = 0x3D7E9F0BCA12FEC0  # antquic-server: "I know relay channels" (protocol.relay_control)


class TransportErrorCode(IntEnum):
    """QUIC transport error codes (RFC 9000, section 20.1)."""

    NO_ERROR = 0x00  # RFC 9000, section 20.1
    INTERNAL_ERROR = 0x01  # RFC 9000, section 20.1
    CONNECTION_REFUSED = 0x02  # RFC 9000, section 20.1
    FLOW_CONTROL_ERROR = 0x03  # RFC 9000, section 20.1
    STREAM_LIMIT_ERROR = 0x04  # RFC 9000, section 20.1
    STREAM_STATE_ERROR = 0x05  # RFC 9000, section 20.1
    FINAL_SIZE_ERROR = 0x06  # RFC 9000, section 20.1
    FRAME_ENCODING_ERROR = 0x07  # RFC 9000, section 20.1
    TRANSPORT_PARAMETER_ERROR = 0x08  # RFC 9000, section 20.1
    CONNECTION_ID_LIMIT_ERROR = 0x09  # RFC 9000, section 20.1
    PROTOCOL_VIOLATION = 0x0A  # RFC 9000, section 20.1
    INVALID_TOKEN = 0x0B  # RFC 9000, section 20.1
    APPLICATION_ERROR = 0x0C  # RFC 9000, section 20.1
    CRYPTO_BUFFER_EXCEEDED = 0x0D  # RFC 9000, section 20.1
    KEY_UPDATE_ERROR = 0x0E  # RFC 9000, section 20.1
    AEAD_LIMIT_REACHED = 0x0F  # RFC 9000, section 20.1
    NO_VIABLE_PATH = 0x10  # RFC 9000, section 20.1
    VERSION_NEGOTIATION_ERROR = 0x11  # RFC 9368, section 10.2
    CRYPTO_ERROR = 0x0100  # RFC 9000, section 20.1; a TLS alert is added to it


class ApplicationErrorCode(IntEnum):
    """Codes in an application close between ant-quic peers; any other code counts as a generic close."""

    NONE = 0x00  # ant-quic: endpoint shutdown, or duplicate suppression
    SUPERSEDED = 0x4E5B00  # ant-quic: a newer connection to the same peer won
    READER_EXIT = 0x4E5B01  # ant-quic: the peer's reader ended on an error
    PEER_SHUTDOWN = 0x4E5B02  # ant-quic: orderly shutdown
    BANNED = 0x4E5B03  # ant-quic: trust policy
    LIFECYCLE_CLEANUP = 0x4E5B04  # ant-quic: generic local disconnect
    LIVENESS_TIMEOUT = 0x4E5B05  # ant-quic: acknowledged sends kept failing
    NO_READER = 0x4E5B06  # ant-quic: nobody ever read this connection


class TryConnectToError(IntEnum):
    """Error byte of TRY_CONNECT_TO_RESPONSE."""

    TIMEOUT = 0  # ant-quic; also the value beside success
    REFUSED = 1  # ant-quic
    NETWORK_UNREACHABLE = 2  # ant-quic
    HOST_UNREACHABLE = 3  # ant-quic
    RATE_LIMITED = 4  # ant-quic
    INVALID_ADDRESS = 5  # ant-quic
    INTERNAL = 255  # ant-quic
