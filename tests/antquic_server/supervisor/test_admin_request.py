"""What clients of the admin endpoint may call it, and the one thing they may ask for."""

import pytest

from antquic_server.supervisor.admin_request import after_untrusted, names_us_untrusted, split_target_untrusted

NAMES = ("node.example.org",)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.0.0.1:10001",
        "192.0.2.7:10001",
        "[::1]",
        "[2001:db8::7]:10001",
        "localhost",
        "LocalHost:10001",
        "localhost.",
        "node.localhost:1",
        "node.example.org",
        "NODE.example.org.:10001",
        " 127.0.0.1 ",
    ],
)
def test_names_that_cannot_be_a_strangers(host: str) -> None:
    """Addresses, loopback names, configured names; with or without port, in any case."""
    assert names_us_untrusted(host, NAMES)


@pytest.mark.parametrize(
    "host",
    [
        "",
        ":10001",
        "elsewhere.example",
        "127.0.0.1.elsewhere.example",
        "localhost.elsewhere.example",
        "notlocalhost",
        "xnode.example.org",
        "a.node.example.org",
        "localhost:10001@elsewhere.example",
        "elsewhere.example:localhost",
        "127.0.0.1:x",
        "127.0.0.1:²",
        "[127.0.0.1]",
        "::1",
        "[::1",
        "[elsewhere.example]",
        "2130706433",
        "0x7f.1",
    ],
)
def test_names_that_may_be_a_strangers(host: str) -> None:
    """Whatever a browser or resolver might take for this machine, but nobody has vouched for."""
    assert not names_us_untrusted(host, NAMES)


@pytest.mark.parametrize(
    ("query", "after_s"),
    [
        ("", 0.0),
        ("x=1", 0.0),
        ("after=12.5", 12.5),
        ("after=1e3", 1000.0),
        ("after=-1", -1.0),
        ("after=1&after=2", 2.0),
        ("after=", None),
        ("after=soon", None),
        ("after=nan", None),
        ("after=inf", None),
        ("&".join("a=1" for _ in range(9)), None),
    ],
)
def test_after_is_a_number_of_seconds(query: str, after_s: float | None) -> None:
    """Anything else is the client's mistake; the last of several counts."""
    assert after_untrusted(query) == after_s


@pytest.mark.parametrize(
    ("target", "parts"),
    [
        ("/peers/ab?x=http://a/b", (None, "/peers/ab?x=http://a/b")),
        ("http://a:1/b?c", ("a:1", "/b?c")),
        ("http://a", ("a", "/")),
        ("http://a?b/c", ("a", "/?b/c")),
        ("http://", ("", "/")),
        ("", (None, "")),
        ("*", (None, "*")),
    ],
)
def test_target_is_split(target: str, parts: tuple[str | None, str]) -> None:
    """Into who is asked, if it says so, and for what."""
    assert split_target_untrusted(target) == parts
