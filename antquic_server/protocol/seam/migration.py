"""
Moving a live connection to another path, as its client (RFC 9000, section 9).

The new path is probed first, with a connection ID of the server's that has been used nowhere else, and taken only when
its PATH_RESPONSE has come: aioquic does so for the preferred address of a server, and does it here for an address of
our choice. A challenge that is lost is not repeated by itself on a path that is not in use; whoever has begun a move
calls :meth:`MigratingConnection.probe_path` again from time to time, and :meth:`MigratingConnection.abandon_path` when
it has waited long enough. The server follows the first packet that is more than a probe; what it had sent on the old
path is still taken.

Where another connection has proven the new path already, :meth:`MigratingConnection.use_path` goes on there at once, in
either role.
"""

from typing import Any

from aioquic.quic import connection as stock

from antquic_server.protocol.seam.mtu_probing import MtuProbingConnection


class MigratingConnection(MtuProbingConnection):
    """aioquic's connection, whose client can be told to move."""

    @property
    def can_migrate(self) -> bool:
        """Whether this side may move the connection now: it is the client, and has a spare connection ID."""
        return (
            self._is_client
            and self._handshake_confirmed
            and bool(self._peer_cid_available)
            and not self._close_pending
            and self._state not in stock.END_STATES
        )

    def is_on_path(self, addr: Any) -> bool:
        """Whether datagrams go to this address now."""
        return bool(self._network_paths) and self._network_paths[0].addr == addr

    def probe_path(self, addr: Any) -> bool:
        """
        Find out whether the server is reached at ``addr`` as well, and move there as soon as it has answered.

        Called again while that goes on, it repeats the challenge. False if it cannot be done now; flush afterwards.
        """
        path = self._find_path(addr)
        if path is not None and path.peer_cid is not None and not path.is_validated:
            path.local_challenge_sent = False
            return True
        if not self.can_migrate or self.is_on_path(addr):
            return False
        if path is not None:
            # One that we have left: as unknown as any other by now.
            self._network_paths.remove(path)
        path = stock.QuicNetworkPath(addr)
        path.peer_cid = self._peer_cid_available.pop(0)
        self._add_network_path(path)
        return True

    def abandon_path(self, addr: Any) -> None:
        """Give up a path that is being probed; the one in use is never given up."""
        path = self._find_path(addr)
        if path is None or self.is_on_path(addr):
            return
        self._network_paths.remove(path)
        if path.peer_cid is not None:
            self._retire_peer_cid(path.peer_cid)

    def use_path(self, addr: Any, now: float) -> None:
        """
        Go on, at once, at an address that the peer has proven to be its own on another connection.

        aioquic follows packets of this connection only, and those only as a server.
        """
        known = [path for path in self._network_paths if path.addr != addr]
        self._network_paths = [stock.QuicNetworkPath(addr, is_validated=True), *known]
        # The window is full of what was lost, and the next probe perhaps many seconds away.
        self._loss.reschedule_data(now=now)

    def _find_path(self, addr: Any) -> stock.QuicNetworkPath | None:
        return next((path for path in self._network_paths if path.addr == addr), None)
