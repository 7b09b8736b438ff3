"""
What the node tells the service manager that started it: sd_notify(3), without a library.

systemd names a datagram socket in ``NOTIFY_SOCKET`` and, when the unit has ``WatchdogSec=``, a period in
``WATCHDOG_USEC``. Messages are lines ``NAME=VALUE``. Without ``NOTIFY_SOCKET`` nothing here does anything.

The watchdog message comes from the supervisor's own event loop and only while the supervisor does its work, so a
loop that hangs and a fleet that is no longer looked after both end with the manager's restart.
"""

import os
import socket
from collections.abc import MutableMapping
from typing import Final

from antquic_server.logs import get_logger

__all__ = ["ServiceManager"]

WATCHDOG_SHARE: Final = 0.5
"""Of the manager's period: sd_watchdog_enabled(3) recommends half, so that one lost message is no death."""

_VARIABLES: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
_MICROSECONDS: Final = 1_000_000
_MAX_PATH_BYTES: Final = 107
"""Of a Unix socket address, ``sun_path`` less its last byte."""

log = get_logger(__name__)


class ServiceManager:
    """
    The service manager, as far as the node talks to it.

    Args:
        address: ``NOTIFY_SOCKET``: a path, or ``@`` and an abstract name. None: there is no manager.
        watchdog_s: Period within which the manager wants a sign of life; None if it wants none.

    A message that cannot be delivered is logged once and then left: the node serves without a manager, too.
    """

    def __init__(self, address: str | None = None, watchdog_s: float | None = None) -> None:
        self._socket: socket.socket | None = None
        self._address = b""
        self._watchdog_s = watchdog_s
        self._alive_due_s = 0.0
        self._status = ""
        self._complained = False
        if address is not None:
            # Datagrams that the manager does not read must not stop the event loop.
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
            self._address = os.fsencode(address)
            if address.startswith("@"):
                self._address = b"\0" + self._address[1:]

    @classmethod
    def from_environment(cls, environment: MutableMapping[str, str], *, pid: int) -> "ServiceManager":
        """
        Return the manager that ``environment`` names, and take its variables out of there.

        Workers inherit the environment and must not be taken for the service. A watchdog that is meant for another
        process than ``pid`` is not ours to feed; an address or period that makes no sense is logged and ignored.
        """
        address, period, watched = (environment.pop(name, "") for name in _VARIABLES)
        if not address:
            return cls()
        if address[0] not in "/@" or not 1 < len(os.fsencode(address)) <= _MAX_PATH_BYTES:
            log.warning("no service manager", expected="NOTIFY_SOCKET: an absolute path or @name", found=address)
            return cls()
        watchdog_s = None
        if period and watched in ("", str(pid)):
            if period.isascii() and period.isdecimal() and int(period) > 0:
                watchdog_s = int(period) / _MICROSECONDS
            else:
                log.warning("no watchdog", expected="WATCHDOG_USEC: microseconds", found=period)
        return cls(address, watchdog_s)

    def __bool__(self) -> bool:
        """Whether there is a manager to talk to."""
        return self._socket is not None

    @property
    def watchdog_s(self) -> float | None:
        """Period of the manager's watchdog in seconds, None if it has none."""
        return self._watchdog_s

    def ready(self, status: str) -> None:
        """Say that the service has started, or has finished reading its configuration again; ``status`` is one line."""
        self._status = status
        self._send("READY=1", f"STATUS={status}")

    def reloading(self, now_s: float) -> None:
        """
        Say that the configuration is being read again; ``ready`` ends it.

        ``now_s`` is CLOCK_MONOTONIC in seconds, by which the manager tells an old answer from this one.
        """
        self._send("RELOADING=1", f"MONOTONIC_USEC={int(now_s * _MICROSECONDS)}")

    def stopping(self, within_s: float) -> None:
        """Say that the service ends, and ask for ``within_s`` seconds however short the unit's patience is."""
        self._status = "draining"
        self._send("STOPPING=1", "STATUS=draining", f"EXTEND_TIMEOUT_USEC={int(within_s * _MICROSECONDS)}")

    def status(self, line: str) -> None:
        """Show ``line`` in ``systemctl status``; says nothing when it has said the same last."""
        if line != self._status:
            self._status = line
            self._send(f"STATUS={line}")

    def alive(self, now_s: float) -> None:
        """Give the sign of life if it is due at ``now_s`` (seconds of any clock that never goes back)."""
        if self._watchdog_s is None or now_s < self._alive_due_s:
            return
        self._alive_due_s = now_s + self._watchdog_s * WATCHDOG_SHARE
        self._send("WATCHDOG=1")

    def close(self) -> None:
        """Close the socket; a second call does nothing."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, *lines: str) -> None:
        if self._socket is None:
            return
        try:
            self._socket.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:
            if not self._complained:
                self._complained = True
                log.warning("service manager not told", said=lines[0], error=str(error))
