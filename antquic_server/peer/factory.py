"""Makes the QUIC connections of a peer, in either role, from its settings and its key."""

import os

from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.packet import QuicProtocolVersion
from aioquic.tls import load_pem_private_key, load_pem_x509_certificates

from antquic_server.certificates import self_signed_certificate
from antquic_server.identity import Identity, identity_from_seed
from antquic_server.peer.admission import CONNECTION_ID_BYTES
from antquic_server.peer.settings import PeerSettings
from antquic_server.pqc.pool import PqcPool
from antquic_server.pqc.select import load_provider
from antquic_server.protocol.codepoints import NamedGroup
from antquic_server.protocol.parameters import ExtensionParameters
from antquic_server.protocol.seam.connection import NodeQuicConnection
from antquic_server.protocol.seam.options import ConnectionOptions, Tally
from antquic_server.protocol.seam.tls_context import TlsOptions

__all__ = ["QuicFactory"]

SEED_BYTES = 32
MAX_NAT_TRAVERSAL = 100
"""Largest value of the transport parameter (``docs/wire.md``)."""
ADDRESS_DISCOVERY_BOTH = 2
MAX_DATAGRAM_FRAME_BYTES = 65535
STREAM_WINDOW_BYTES = 1_250_000
CONNECTION_WINDOW_BYTES = 10_000_000
MAX_BACKLOG_BYTES = 8 << 20
"""Unread and unacknowledged data of one connection beyond which the peer gets no more credit."""


class QuicFactory:
    """Knows everything about a connection but its peer."""

    def __init__(self, settings: PeerSettings) -> None:
        seed = settings.identity_seed
        self.identity: Identity = identity_from_seed(os.urandom(SEED_BYTES) if seed is None else seed)
        provider = load_provider(settings.pqc_provider)  # type: ignore[arg-type]  # checked by load_provider
        self._pool = PqcPool(provider, settings.pqc_pool_size)
        self._idle_timeout_s = settings.idle_timeout_s
        self._mtu_initial = settings.mtu_initial
        tls = TlsOptions(
            pqc=self._pool,
            node_key=self._pool.signing_key(self.identity.seed),
            # The one group an ant-quic server shares; its ClientHello then needs no second round trip.
            client_groups=(NamedGroup.ML_KEM_768,),
            allow_classical=settings.pqc_mode == "any",
        )
        self._options = ConnectionOptions(
            tls=tls,
            extensions=ExtensionParameters(
                nat_traversal=min(settings.max_candidates, MAX_NAT_TRAVERSAL),
                rfc_nat_traversal=True,
                address_discovery=ADDRESS_DISCOVERY_BOTH,
                relay_channels=settings.relay != "never",
            ),
            max_candidates=settings.max_candidates,
            stream_window_bytes=STREAM_WINDOW_BYTES,
            connection_window_bytes=CONNECTION_WINDOW_BYTES,
            max_backlog_bytes=MAX_BACKLOG_BYTES,
            mtu_initial=settings.mtu_initial,
            mtu_min=settings.mtu_min,
            mtu_max=settings.mtu_max,
        )
        self._server_configuration = self._configuration(is_client=False)
        certificate, key = self_signed_certificate("peer")
        # aioquic wants one; peers are shown the raw key.
        self._server_configuration.certificate = load_pem_x509_certificates(certificate)[0]
        self._server_configuration.private_key = load_pem_private_key(key)

    @property
    def tally(self) -> Tally:
        """What all connections made here have counted together."""
        return self._options.tally

    def client(self, server_name: str) -> NodeQuicConnection:
        """Make a connection that dials; ``server_name`` tells the other side what for (``docs/wire.md``)."""
        configuration = self._configuration(is_client=True)
        configuration.server_name = server_name
        return NodeQuicConnection(configuration=configuration, options=self._options)

    def server(self, destination_cid: bytes, retry_source_cid: bytes | None = None) -> NodeQuicConnection:
        """Make one for a client whose first Initial went to ``destination_cid``, and the next to our Retry's ID."""
        return NodeQuicConnection(
            configuration=self._server_configuration,
            options=self._options,
            original_destination_connection_id=destination_cid,
            retry_source_connection_id=retry_source_cid,
        )

    def close(self) -> None:
        """Give the pool's contexts back."""
        self._pool.close()

    def _configuration(self, *, is_client: bool) -> QuicConfiguration:
        return QuicConfiguration(
            is_client=is_client,
            connection_id_length=CONNECTION_ID_BYTES,
            idle_timeout=self._idle_timeout_s,
            max_datagram_size=self._mtu_initial,
            max_datagram_frame_size=MAX_DATAGRAM_FRAME_BYTES,
            supported_versions=[QuicProtocolVersion.VERSION_1],
        )
