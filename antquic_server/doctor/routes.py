"""Which interface leads to the world."""

from antquic_server.doctor.machine import Machine
from antquic_server.errors import CannotTellError

__all__ = ["default_interface"]

_ROUTE_UP = 1
_REJECT = 0x0200


def default_interface(machine: Machine) -> str:
    """
    Return the interface of the default route, IPv4 before IPv6.

    Raises:
        CannotTellError: There is none, or the system does not say.
    """
    for find in (_ipv4, _ipv6):
        try:
            name = find(machine)
        except CannotTellError:
            continue
        if name:
            return name
    raise CannotTellError("the default route", "there is none")


def _ipv4(machine: Machine) -> str:
    """Columns of ``/proc/net/route``: interface, destination, gateway, flags, …, mask at 7, in hexadecimal."""
    for line in machine.read("/proc/net/route").splitlines()[1:]:
        words = line.split()
        if len(words) >= 8 and words[1] == words[7] == "00000000" and int(words[3], 16) & _ROUTE_UP:
            return words[0]
    return ""


def _ipv6(machine: Machine) -> str:
    """Columns of ``/proc/net/ipv6_route``: destination, its length, …, flags at 8, interface at 9."""
    for line in machine.read("/proc/net/ipv6_route").splitlines():
        words = line.split()
        if len(words) >= 10 and set(words[0]) == {"0"} and words[1] == "00":
            flags = int(words[8], 16)
            if flags & _ROUTE_UP and not flags & _REJECT and words[9] != "lo":
                return words[9]
    return ""
