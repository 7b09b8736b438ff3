"""What a lab refuses; what it does is tested in tests/natlab with real packets."""

from collections.abc import Callable

import pytest

from antquic_server.natlab import lab as module
from antquic_server.natlab.lab import Lab
from antquic_server.natlab.model import Nat
from antquic_server.natlab.namespaces import LabError, LabUnavailableError


def test_without_rights_nothing_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason comes before the first namespace."""

    def refuse() -> None:
        raise LabUnavailableError("no rights")

    monkeypatch.setattr(module, "find_tools", refuse)
    with pytest.raises(LabUnavailableError), Lab():
        pass


def test_a_closed_lab_says_so() -> None:
    """Before and after its block a lab has nothing to offer; closing it again is harmless."""
    lab = Lab()

    with pytest.raises(LabError, match="it is closed"):
        lab.name("a")
    lab.close()
    lab.close()


CALLS: dict[str, Callable[[Lab, str], object]] = {
    "nat": lambda lab, router: lab.nat(router, Nat()),
    "carrier": lambda lab, router: lab.carrier(router, Nat()),
    "rebind": lambda lab, router: lab.rebind(router),
    "block_udp": lambda lab, router: lab.block_udp(router),
    "unblock_udp": lambda lab, router: lab.unblock_udp(router),
    "loss": lambda lab, router: lab.loss(router, per_mille=1),
    "firewall_v6": lambda lab, router: lab.firewall_v6(router, enabled=True),
}


@pytest.mark.parametrize("router", ["a", "C", "core", ""])
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_only_routers_have_nats(call: Callable[[Lab, str], object], router: str) -> None:
    """A host or an unknown name is refused in every call that means a router."""
    with pytest.raises(LabError, match="is no router, only A, B are"):
        call(Lab(), router)


@pytest.mark.parametrize("per_mille", [-1, 1001])
def test_loss_is_a_part_of_a_thousand(per_mille: int) -> None:
    """Fewer than none or more than all cannot be lost."""
    with pytest.raises(LabError, match="of 1000 packets"):
        Lab().loss("A", per_mille=per_mille)
