"""
Opens what a node needs before its first worker starts.

In order: the UDP sockets of all slots (which also tells whether somebody else serves the ports), the channels
between slots, the admin socket. All of it stays open until the node ends; workers only borrow it.
"""

import contextlib
import errno
import os
import secrets
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import antquic_server
from antquic_server.config.model import Settings, to_plain
from antquic_server.config.rules import split_listen_address
from antquic_server.errors import CannotBootError, PortInUseError, PrivilegeError
from antquic_server.identity import Identity
from antquic_server.ipc.messages import Assign, SocketDescriptor
from antquic_server.net.sockets import ListenGroup, bind_slots
from antquic_server.net.stray import StrayPair, make_stray_pairs
from antquic_server.supervisor.cpus import UsableCpus, usable_cpus
from antquic_server.supervisor.privileges import Account

MAX_WORKERS = 64
ROOT_SECRET_BYTES = 32
ADMIN_BACKLOG = 64

WORKER_COMMAND = (sys.executable, "-P", "-m", "workers")
"""``-P``: the directory somebody happens to start the node in must not provide the package ``workers``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Everything that is open: the slots' sockets and stray channels, and the admin socket."""

    worker_count: int
    groups: list[ListenGroup]
    strays: list[StrayPair]
    admin: socket.socket

    @property
    def inherited_fds(self) -> list[int]:
        """
        Descriptors that every worker inherits, whatever its slot.

        A spare does not know its slot when it is started.
        """
        udp = [sock.fileno() for group in self.groups for sock in group.sockets]
        stray = [sock.fileno() for pair in self.strays for sock in (pair.receiver, pair.sender)]
        return udp + stray

    @property
    def listen(self) -> list[str]:
        """Addresses the node is reached at, with real port numbers."""
        return [group.address for group in self.groups]

    @property
    def admin_url(self) -> str:
        """Where the admin endpoint answers."""
        host, port = self.admin.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def close(self) -> None:
        """Close everything; for the very end of the node."""
        self.admin.close()
        for pair in self.strays:
            pair.receiver.close()
            pair.sender.close()
        for group in self.groups:
            group.close()


def open_endpoint(settings: Settings, cpus: UsableCpus) -> Endpoint:
    """
    Open everything; whatever was opened is closed again if a later step fails.

    Raises:
        CannotBootError: A port is taken, an address does not exist or a right is missing.
    """
    worker_count = settings.endpoint.workers or min(MAX_WORKERS, cpus.count)
    with contextlib.ExitStack() as on_failure:
        groups = bind_slots(settings.endpoint.listen, worker_count)
        for group in groups:
            on_failure.callback(group.close)
        try:
            strays = make_stray_pairs(worker_count)
        except OSError as error:
            raise CannotBootError(f"cannot open channels between workers: {error.strerror}") from error
        for pair in strays:
            on_failure.callback(pair.receiver.close)
            on_failure.callback(pair.sender.close)
        admin = open_admin_socket(settings.admin.listen)
        on_failure.pop_all()
    return Endpoint(worker_count=worker_count, groups=groups, strays=strays, admin=admin)


def open_admin_socket(listen: str) -> socket.socket:
    """
    Open the listening TCP socket of the admin endpoint; port 0 takes a free one.

    Raises:
        CannotBootError: The port is taken, the address does not exist or a right is missing.
    """
    address, port = split_listen_address("settings", "admin.listen", listen)
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        sock = socket.create_server((str(address), port), family=family, backlog=ADMIN_BACKLOG)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortInUseError(listen, "the admin port is in use by another process") from error
        if error.errno in (errno.EACCES, errno.EPERM):
            raise PrivilegeError(f"cannot listen on {listen}: no right to use this admin port") from error
        reason = os.strerror(error.errno or 0)
        raise CannotBootError(f"cannot listen on {listen} for admin requests: {reason}") from error
    sock.setblocking(False)
    return sock


def worker_environment(account: Account | None) -> dict[str, str]:
    """
    Return the environment of workers: ours, and where to find the packages of a source tree.

    ``account`` is the one that was changed to: libraries look for files in the home directory, and would meet
    root's, which they may not even look into.
    """
    environment = dict(os.environ)
    if account is not None:
        environment |= {"HOME": account.home, "USER": account.user, "LOGNAME": account.user}
    home = Path(antquic_server.__file__).resolve().parents[1]
    # An installed package is found anyway, and a site directory named here would come before the standard
    # library.
    if home.name not in ("site-packages", "dist-packages"):
        others = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = f"{home}{os.pathsep}{others}" if others else str(home)
    return environment


class AssignmentWriter:
    """
    Writes what the worker of a slot is told.

    The secret for Retry tokens is made here, once per node, so that all slots and all generations share it.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        identity: Identity,
        certificate: tuple[bytes, bytes],
        endpoint: Endpoint,
        cpus: UsableCpus | None = None,
        echo: bool,
    ) -> None:
        self._settings = to_plain(settings)
        self._identity_seed = identity.seed
        self._certificate = certificate
        self._endpoint = endpoint
        self._cpus = (cpus or usable_cpus()) if settings.endpoint.pin_workers else None
        self._echo = echo
        self._root_secret = secrets.token_bytes(ROOT_SECRET_BYTES)

    def change(self, settings: Settings) -> None:
        """Tell workers that are assigned from now on other settings."""
        self._settings = to_plain(settings)

    def renew(self, certificate: tuple[bytes, bytes]) -> bool:
        """Give workers that are assigned from now on this certificate and key; False if they are those in force."""
        if certificate == self._certificate:
            return False
        self._certificate = certificate
        return True

    def __call__(self, slot: int, generation: int) -> Assign:
        """Return the assignment for the ``generation``-th worker of ``slot``."""
        return Assign(
            slot=slot,
            worker_count=self._endpoint.worker_count,
            generation=generation,
            cpu=-1 if self._cpus is None else self._cpus.cpu_of(slot),
            settings=self._settings,
            identity_seed=self._identity_seed,
            root_secret=self._root_secret,
            certificate_pem=self._certificate[0],
            certificate_key_pem=self._certificate[1],
            sockets=_descriptors(self._endpoint.groups, slot),
            steering_fd=self._endpoint.strays[slot].receiver.fileno(),
            steering_fds=[pair.sender.fileno() for pair in self._endpoint.strays],
            echo=self._echo,
        )


def _descriptors(groups: Sequence[ListenGroup], slot: int) -> list[SocketDescriptor]:
    return [
        SocketDescriptor(fd=group.sockets[slot].fileno(), family=int(group.family), host=group.host, port=group.port)
        for group in groups
    ]
