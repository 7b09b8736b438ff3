"""The UDP sockets of a process, as the kernel knows them."""

import socket
from dataclasses import dataclass
from pathlib import Path

__all__ = ["OpenUdpSocket", "udp_sockets"]

_TABLES = {"udp": socket.AF_INET, "udp6": socket.AF_INET6}


@dataclass(frozen=True, slots=True)
class OpenUdpSocket:
    """One socket: its inode, which two processes that share it have in common, and what it is bound to."""

    inode: int
    family: socket.AddressFamily
    port: int


def udp_sockets(pid: int) -> list[OpenUdpSocket]:
    """Return the UDP sockets that a process has open, in its own network namespace."""
    every = [
        OpenUdpSocket(inode=int(fields[9]), family=family, port=int(fields[1].rpartition(":")[2], 16))
        for name, family in _TABLES.items()
        for fields in map(str.split, Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:])
    ]
    own: set[int] = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(link.readlink())
        except FileNotFoundError:
            continue
        if target.startswith("socket:["):
            own.add(int(target[8:-1]))
    return [item for item in every if item.inode in own]
