"""Tests of ``antquic_server.protocol.seam.options``."""

import dataclasses

import pytest

from antquic_server.protocol.seam.options import DEFAULT_OPTIONS, ConnectionOptions, Tally
from support.pair import Pair, server_connection


def test_default_options_change_nothing() -> None:
    """Every part that replaces a behaviour of aioquic is off unless asked for."""
    assert ConnectionOptions(tally=DEFAULT_OPTIONS.tally) == DEFAULT_OPTIONS
    switches = ("tls", "extensions", "new_connection_id", "stateless_reset_token")
    assert all(getattr(DEFAULT_OPTIONS, name) is None for name in switches)
    assert DEFAULT_OPTIONS.stream_window_bytes is DEFAULT_OPTIONS.connection_window_bytes is None
    assert DEFAULT_OPTIONS.mtu_initial is DEFAULT_OPTIONS.mtu_min is DEFAULT_OPTIONS.mtu_max is None


def test_options_are_shared_and_cannot_be_changed() -> None:
    """All connections of a process hold the same options, so none may change them."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        DEFAULT_OPTIONS.max_candidates = 1  # type: ignore[misc]


def test_tally_sums_over_connections() -> None:
    """Connections with the same tally count together, those with another do not disturb."""
    tally = Tally()
    for expected in (1, 2):
        Pair(make_server=lambda cid: server_connection(cid, options={"tally": tally})).handshake()
        assert tally.observed_addresses_sent == expected
    Pair().handshake()
    assert tally.observed_addresses_sent == 2
    assert ConnectionOptions().tally is not ConnectionOptions().tally
