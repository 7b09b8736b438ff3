"""The netlink message that empties connection tracking; its effect is seen in tests/natlab (rebinding)."""

import struct

import pytest

from antquic_server.natlab import conntrack
from antquic_server.natlab.namespaces import LabError, NamespaceName


def answer(kind: int, code: int) -> bytes:
    """Return a netlink answer of that kind."""
    return struct.pack("=IHHIIi", 36, kind, 0, 1, 0, code)


def test_acknowledgement_carries_the_error() -> None:
    """Zero is success, anything else a negative errno."""
    assert conntrack._error_of(answer(2, 0)) == 0
    assert conntrack._error_of(answer(2, -1)) == -1


@pytest.mark.parametrize("data", [b"", answer(3, 0), answer(2, 0)[:18]])
def test_anything_else_is_no_acknowledgement(data: bytes) -> None:
    """A short answer or one of another kind is an error of ours."""
    with pytest.raises(LabError, match="no acknowledgement"):
        conntrack._error_of(data)


def test_a_refusal_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the namespace and the code."""
    monkeypatch.setattr(conntrack, "in_namespace", lambda name, action: -1)
    name = NamespaceName(pid=1, started_ticks=2, number=3, role="A")

    with pytest.raises(LabError, match="antlab-1-2-3-A: error 1"):
        conntrack.flush_connections(name)
