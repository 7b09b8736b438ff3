"""
Forgetting connections: the kernel's connection tracking table, emptied over netlink.

One message does it (``ctnetlink``, IPCTNL_MSG_CT_DELETE without attributes), which saves operators the
``conntrack`` program.
"""

import socket
import struct

from antquic_server.natlab.namespaces import LabError, NamespaceName, in_namespace

__all__ = ["flush_connections"]

_NETLINK_NETFILTER = 12
_CT_DELETE = (1 << 8) | 2  # subsystem ctnetlink, message delete
_NLM_F_REQUEST, _NLM_F_ACK = 1, 4
_NLMSG_ERROR = 2
_TIMEOUT_S = 5.0

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_NETFILTER_HEADER = struct.Struct("=BBH")  # family (0 for all), version, resource
_ERROR = struct.Struct("=i")


def flush_connections(name: NamespaceName) -> None:
    """
    Make a namespace forget every tracked connection.

    Raises:
        LabError: The kernel refused.
    """

    def flush() -> int:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as netlink:
            netlink.settimeout(_TIMEOUT_S)
            body = _NETFILTER_HEADER.pack(0, 0, 0)
            length = _HEADER.size + len(body)
            netlink.send(_HEADER.pack(length, _CT_DELETE, _NLM_F_REQUEST | _NLM_F_ACK, 1, 0) + body)
            return _error_of(netlink.recv(4096))

    code = in_namespace(name, flush)
    if code != 0:
        raise LabError(f"cannot flush connections in {name}: error {-code}")


def _error_of(answer: bytes) -> int:
    """Return the code of an acknowledgement: 0, or a negative errno."""
    if len(answer) < _HEADER.size + _ERROR.size or _HEADER.unpack_from(answer)[1] != _NLMSG_ERROR:
        raise LabError("netlink gave an answer that is no acknowledgement")
    return int(_ERROR.unpack_from(answer, _HEADER.size)[0])
