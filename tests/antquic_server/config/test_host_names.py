"""Host names as a setting."""

import pytest

from antquic_server.config.host_names import MAX_HOST_NAMES, HostNames
from antquic_server.errors import ConfigurationError


def test_names_are_kept_in_lower_case_and_once() -> None:
    """DNS does not tell cases apart."""
    names = ["Node.Example.org", "node.example.org", "relay-1", "my_container", "a" * 63 + ".example"]
    kept = ("node.example.org", "relay-1", "my_container", "a" * 63 + ".example")

    assert HostNames().accept("file", "admin.names", names) == kept
    assert HostNames().accept("file", "admin.names", []) == ()


@pytest.mark.parametrize(
    "name",
    ["", "a..b", ".a", "a.", "-a", "a-", "node:10001", "*", "http://node", "nö.de", "a" * 64, "a." * 130 + "a", 7],
)
def test_what_is_no_name_is_refused_by_its_place(name: object) -> None:
    """With the index in the list."""
    with pytest.raises(ConfigurationError, match=r"admin\.names\[1\].*a host name like") as caught:
        HostNames().accept("file", "admin.names", ["fine", name])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", ["node", None, 5, {"a": 1}, ["a"] * (MAX_HOST_NAMES + 1)])
def test_what_is_no_list_or_too_long_is_refused(value: object) -> None:
    """A single name needs brackets as well."""
    with pytest.raises(ConfigurationError, match="a list of at most 64 host names"):
        HostNames().accept("file", "admin.names", value)
