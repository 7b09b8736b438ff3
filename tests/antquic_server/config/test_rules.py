"""Rules: what each kind of setting accepts, and in which form it is kept."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antquic_server.config.rules import (
    Account,
    Choice,
    Flag,
    IpAddress,
    Levels,
    ListenAddress,
    ListenAddresses,
    Networks,
    Number,
    PathText,
    PeerIds,
    PortRange,
    ProtocolNames,
    Rule,
    Whole,
    split_listen_address,
)
from antquic_server.errors import ConfigurationError

LEVELS = Levels(("debug", "info"))

EVERY_RULE: list[Rule] = [
    Account(),
    Choice(("a", "b")),
    Flag(),
    IpAddress(),
    LEVELS,
    ListenAddress(),
    ListenAddresses(),
    Networks(),
    Number(0.5, 2),
    PathText(),
    PeerIds(),
    PortRange(1024, 65535),
    ProtocolNames(),
    Whole(-1, 3),
]

TOML_VALUES = st.recursive(
    st.booleans() | st.integers() | st.floats() | st.text(max_size=30) | st.dates() | st.none(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("rule", "value", "kept"),
    [
        (Flag(), False, False),
        (Whole(0, 64), 0, 0),
        (Whole(0, 64), 64, 64),
        (Number(0.1, 3600), 30, 30.0),
        (Number(0.1, 3600), 0.1, 0.1),
        (Choice(("a", "b")), "b", "b"),
        (PathText(), "~/node.pem", "~/node.pem"),
        (Account(), "", None),
        (Account(), "antquic-server", "antquic-server"),
        (IpAddress(), "", ""),
        (IpAddress(), "2001:DB8:0::1", "2001:db8::1"),
        (ListenAddress(), "[0:0::0]:443", "[::]:443"),
        (ListenAddress(), "127.0.0.1:00443", "127.0.0.1:443"),
        (ListenAddresses(), ["0.0.0.0:1", "[::]:1"], ("0.0.0.0:1", "[::]:1")),
        (ListenAddresses(), ("127.0.0.1:1", "127.0.0.1:2"), ("127.0.0.1:1", "127.0.0.1:2")),
        (Networks(), ["10.0.0.0/8", "2001:db8::1"], ("10.0.0.0/8", "2001:db8::1/128")),
        (ProtocolNames(), ["h3", "hq-interop"], ("h3", "hq-interop")),
        (PeerIds(), [], ()),
        (PeerIds(), ["AB" * 32, "ab" * 32, "0" * 64], ("ab" * 32, "0" * 64)),
        (PortRange(1024, 65535), [2000, 2000], (2000, 2000)),
        (LEVELS, {"a": {"b": "info"}, "c.d": "debug"}, {"a.b": "info", "c.d": "debug"}),
    ],
)
def test_good_value_is_kept_in_canonical_form(rule: Rule, value: object, kept: object) -> None:
    """A value within the limits is accepted; spellings of the same address become one."""
    accepted = rule.accept("file", "section.key", value)

    assert accepted == kept
    assert type(accepted) is type(kept)


@pytest.mark.parametrize(
    ("rule", "value"),
    [
        (Account(), "1000"),
        (Account(), "two words"),
        (IpAddress(), "10.0.0.1:443"),
        (ListenAddress(), "[127.0.0.1]:443"),
        (ListenAddress(), "127.0.0.1:٤٤٣"),
        (ListenAddress(), "[::ffff:127.0.0.1]:443"),
        (ListenAddress(), "255.255.255.255:443"),
        (ListenAddress(), ":443"),
        (ListenAddress(), 443),
        (ListenAddresses(), [f"127.0.0.1:{port}" for port in range(1, 10)]),
        (ListenAddresses(), ["[::]:443", "[::1]:443"]),
        (Networks(), ["anywhere"]),
        (Networks(), [7]),
        (Networks(), ["10.0.0.0/8"] * 1025),
        (Number(0, 1), 10**400),
        (PathText(), "nul\0"),
        (PeerIds(), "ab" * 32),
        (PeerIds(), ["ab" * 31]),
        (PeerIds(), ["ab" * 33]),
        (PeerIds(), ["xy" * 32]),
        (PeerIds(), ["0x" + "ab" * 31]),
        (PeerIds(), [7]),
        (PeerIds(), ["ab" * 32] * 1025),
        (PortRange(1024, 65535), [True, 2000]),
        (PortRange(1024, 65535), [2000]),
        (PortRange(1024, 65535), 2000),
        (ProtocolNames(), ["h3", "h3"]),
        (ProtocolNames(), [""]),
        (ProtocolNames(), ["x" * 256]),
        (LEVELS, {"not a name": "info"}),
        (LEVELS, "info"),
    ],
)
def test_bad_value_is_refused(rule: Rule, value: object) -> None:
    """A value outside the limits is an error that names the source and the key."""
    with pytest.raises(ConfigurationError) as raised:
        rule.accept("file", "section.key", value)

    assert raised.value.source == "file"
    assert raised.value.key.startswith("section.key")


@pytest.mark.parametrize("rule", EVERY_RULE, ids=lambda rule: type(rule).__name__)
@given(value=TOML_VALUES)
def test_any_value_is_accepted_or_refused(rule: Rule, value: Any) -> None:
    """Whatever the value, only ConfigurationError comes out, and what was accepted is accepted again."""
    try:
        accepted = rule.accept("file", "section.key", value)
    except ConfigurationError:
        return
    assert rule.accept("file", "section.key", "" if accepted is None else accepted) == accepted


@given(address=st.ip_addresses(), port=st.integers(0, 65535))
def test_listen_address_splits_into_what_it_was_made_of(address: Any, port: int) -> None:
    """Host and port come back from the text; the few unusable addresses are refused."""
    text = f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"
    try:
        assert split_listen_address("file", "key", text) == (address, port)
    except ConfigurationError:
        mapped = getattr(address, "ipv4_mapped", None)
        assert address.is_multicast or mapped is not None or str(address) == "255.255.255.255"
