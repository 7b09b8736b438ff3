"""Whether an address is one of this machine's own."""

import socket
from ipaddress import IPv4Address, IPv6Address
from typing import Final

__all__ = ["is_local_address"]

_DISCARD_PORT: Final = 9


def is_local_address(host: IPv4Address | IPv6Address) -> bool:
    """
    Tell whether this machine has the address now.

    The routing table is asked which address of ours would be used to reach it: for one of our own that is the address
    itself. Nothing is sent. To try to bind to it would say the same, but not where ``ip_nonlocal_bind`` is set.
    """
    family = socket.AF_INET if host.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.connect((str(host), _DISCARD_PORT))
            return bool(sock.getsockname()[0] == str(host))
    except OSError:
        return False
