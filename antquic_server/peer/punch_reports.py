"""
Tells a node how a hole punch has ended that it made possible.

The node cannot see it, and whoever runs it wants to know (``supervisor.punches``). Only nodes of this package are told,
which is seen by their transport parameter: to ant-quic's it would be a message for the program.
"""

from collections.abc import Callable

from antquic_server.peer.link import Link
from antquic_server.peer.nat_behaviour import NatObserver
from antquic_server.peer.relays import offers_channels
from antquic_server.protocol.punch_report import PunchReport, encode_punch_report

__all__ = ["report_punch"]


def report_punch(
    node: Link | None,
    other: bytes,
    succeeded: bool,
    nat: NatObserver,
    send: Callable[[Link, bytes], bool],
) -> bool:
    """
    Send a report to the node that has introduced us, and return whether it went out.

    Args:
        node: The connection on which the introduction has come; None if it is gone, and so is the report.
        other: Peer id of the other side.
        succeeded: Whether there is a direct connection.
        nat: What is known of our own NAT.
        send: Sends a message on a connection.
    """
    if node is None or not node.ready or not node.is_node or not offers_channels(node):
        return False
    ipv4 = node.dialled is None or node.dialled.is_ipv4
    report = PunchReport(other=other, succeeded=succeeded, nat_mapping=nat.mapping(ipv4=ipv4))
    return send(node, encode_punch_report(report))
