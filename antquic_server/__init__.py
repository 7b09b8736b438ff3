"""Post-quantum QUIC bootstrap, coordination and relay node for ant-quic networks."""

__version__ = "0.1.0"
