"""
A running NAT lab: namespaces, wires and rules that exist as long as the ``with`` block.

::

    with Lab() as lab:
        lab.nat("A", Nat(mapping=Mapping.ENDPOINT_INDEPENDENT))
        peer = lab.popen("a", ["peer", "--listen", "0.0.0.0:0"])
        lab.rebind("A")

Whatever ends the block takes everything away again: an exception, Ctrl-C, SIGTERM, SIGHUP. Only SIGKILL leaves
something behind, and names then tell whose it was (``antquic-server natlab clean``).
"""

import atexit
import random
import re
import socket
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from antquic_server.natlab import topology
from antquic_server.natlab.conntrack import flush_connections
from antquic_server.natlab.model import Kind, Nat
from antquic_server.natlab.namespaces import (
    LabError,
    NamespaceName,
    Tools,
    find_tools,
    in_namespace,
    new_run_number,
    own_run,
    remove,
    run_tool,
    write_sysctls,
)
from antquic_server.natlab.rules import (
    SEQUENCE_PORTS,
    block_udp_rules,
    firewall_rules,
    forget_rules,
    loss_rules,
    nat_rules,
    rebinding_rules,
)
from antquic_server.natlab.signals import SIGNALS
from antquic_server.natlab.topology import HOSTS, SITES, Addresses, Site, carrier_role

__all__ = ["Lab"]

_STOP_TIMEOUT_S = 5.0
_IPV6 = Path("/proc/sys/net/ipv6")
_SEQUENCES = (20000, 60000 - SEQUENCE_PORTS)
"""Where a sequence of ports may begin: a prediction must not get by on knowing the first port."""

_FORWARDING = {"ipv4/ip_forward": 1, "ipv6/conf/all/forwarding": 1}

_T = TypeVar("_T")


class Lab:
    """
    Two sites behind routers and a node, all on one public segment (see ``topology``).

    Roles are ``node``, the routers ``A`` and ``B``, and the hosts ``a``, ``a2`` and ``b``. Both routers begin as
    port-restricted NATs. With ``ipv6`` there is IPv6 as well, without translation but behind a stateful firewall.

    Raises:
        LabUnavailableError: Rights or programs are missing; nothing has been made then.
        LabError: The kernel refused something; everything made so far has been removed.
    """

    def __init__(self, *, ipv6: bool = False) -> None:
        self.addresses: Addresses = topology.addresses(ipv6=ipv6)
        self._ipv6 = ipv6
        self._number = new_run_number()
        self._names: dict[str, NamespaceName] = {}
        self._carriers: set[str] = set()
        self._nats: dict[str, Nat] = {}
        self._processes: list[subprocess.Popen[Any]] = []
        self._sockets: list[socket.socket] = []
        self._starting = threading.RLock()
        """Held while a program is started: another thread may be closing the lab."""
        self._random = random.Random()  # noqa: S311 - picks where a sequence of ports begins
        self._tools = Tools(ip="", nft="")

    def __enter__(self) -> Self:
        """Build the lab."""
        self._tools = find_tools()
        if self._ipv6 and not _IPV6.exists():
            raise LabError("this kernel has no IPv6")
        SIGNALS.enter(self._number)
        # An interrupt between the last statement of the block and __exit__ would get past __exit__.
        atexit.register(self.close)
        try:
            self._build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Take everything away again."""
        self.close()

    def close(self) -> None:
        """End what runs in the lab and remove it; signals wait until that is done. Calling it again is harmless."""
        with SIGNALS.leaving(self._number):
            with self._starting:
                names = list(self._names.values())
                self._names.clear()
            # From here on nothing new is started inside: every program needs a name.
            _end(self._processes)
            for sock in self._sockets:
                sock.close()
            remove(names, self._tools)
            self._processes.clear()
            self._sockets.clear()
            atexit.unregister(self.close)

    def name(self, role: str) -> NamespaceName:
        """
        Return the namespace of a role.

        Raises:
            LabError: There is no such role, or no lab at this time.
        """
        if role not in self._names:
            raise LabError(f"the lab has no {role!r}, only {', '.join(self._names) or 'nothing: it is closed'}")
        return self._names[role]

    def nat(self, router: str, nat: Nat) -> None:
        """Make a router behave like ``nat`` from now on; mappings and flows it had are forgotten."""
        site = self._site(router)
        wan = site.inner_wan if router in self._carriers else site.wan
        self._translate(router, nat, wan=wan, lan=site.lan_network)

    def carrier(self, router: str, nat: Nat) -> None:
        """
        Put a carrier's NAT around a site, or change the one it has.

        The carrier takes the site's public address. The site has no IPv6 from then on.
        """
        site = self._site(router)
        role = carrier_role(router)
        if router not in self._carriers:
            self._names[role] = self._new_name(role)
            for where, script in topology.carrier_scripts(site, self._texts()).items():
                self._ip(where or None, script)
                if where == role:
                    self._prepare(role)
                    write_sysctls(self.name(role), _FORWARDING)
            self._ip(router, topology.behind_carrier_script(site))
            self._carriers.add(router)
            self.nat(router, self._nats[router])
        self._translate(role, nat, wan=site.wan, lan=f"{site.carrier_prefix}.0/24")

    def kind(self, router: str, kind: Kind) -> None:
        """Give a site everything that a named kind of NAT consists of."""
        self.nat(router, kind.nat)
        if kind.carrier is not None:
            self.carrier(router, kind.carrier)
        if kind.udp_blocked:
            self.block_udp(router)
        elif kind.direct_udp_blocked:
            others = [address for name, address in self.addresses.routers.items() if name != router]
            for address in others:
                self.block_udp(router, remote=address)

    def rebind(self, router: str) -> None:
        """
        Make a router forget its mappings, as after a reboot: flows that go on come from new ports.

        A NAT that preserves ports gives the same ones again. Behind a carrier it is the carrier that forgets.
        """
        role = carrier_role(router) if router in self._carriers else self._site(router).router
        # Nothing may pass meanwhile: a packet of a flow still known teaches the tables its old port, and one that finds
        # its port in the tables makes that flow known again.
        self._nft(role, rebinding_rules(rebinding=True))
        self._nft(role, forget_rules(self._nats[role]))
        flush_connections(self.name(role))
        self._nft(role, rebinding_rules(rebinding=False))

    def block_udp(self, router: str, *, remote: str | None = None) -> None:
        """Drop UDP in both directions: all of it, or only what concerns the public IPv4 address ``remote``."""
        self._nft(self._site(router).router, block_udp_rules(remote=remote, blocked=True))

    def unblock_udp(self, router: str) -> None:
        """Let UDP pass again."""
        self._nft(self._site(router).router, block_udp_rules(remote=None, blocked=False))

    def loss(self, router: str, *, per_mille: int) -> None:
        """Drop that many of a thousand UDP packets at random, in each direction; 0 ends it."""
        if not 0 <= per_mille <= 1000:
            raise LabError(f"cannot lose {per_mille} of 1000 packets")
        self._nft(self._site(router).router, loss_rules(per_mille))

    def firewall_v6(self, router: str, *, enabled: bool) -> None:
        """Switch the IPv6 firewall of a site, which is on at first."""
        self._nft(self._site(router).router, firewall_rules(enabled=enabled))

    def contacts(self, router: str) -> set[str]:
        """
        Return every IPv4 address outside that hosts of a site have sent UDP to since the router got its NAT.

        It tells a peer that was stopped by a NAT from one that never tried.
        """
        listed = self._nft(self._site(router).router, "list set ip nat contacts\n")
        return set(re.findall(r"\b\d+\.\d+\.\d+\.\d+\b", listed))

    def run(self, role: str, command: Sequence[str], *, timeout_s: float = 30.0) -> str:
        """
        Run a program inside and return its standard output.

        Raises:
            LabError: It failed or took longer than ``timeout_s``.
        """
        try:
            done = subprocess.run(
                self._inside(role, command),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                timeout=timeout_s,
            )
        except subprocess.TimeoutExpired as error:
            raise LabError(f"{' '.join(command)} in {role} took longer than {timeout_s} s") from error
        if done.returncode != 0:
            raise LabError(f"{' '.join(command)} in {role} failed: {done.stderr.strip() or done.returncode}")
        return done.stdout

    def popen(self, role: str, command: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """
        Start a program inside; options are those of ``subprocess.Popen``.

        The lab ends it if it still runs when the lab is closed. Ctrl-C does not reach it directly.
        """
        options.setdefault("stdin", subprocess.DEVNULL)
        with self._starting:
            process = subprocess.Popen(self._inside(role, command), start_new_session=True, **options)
            self._processes.append(process)
        return process

    def call(self, role: str, action: Callable[[], _T]) -> _T:
        """Call a function inside, in a thread of its own, and return its result."""
        return in_namespace(self.name(role), action)

    def udp_socket(self, role: str, address: tuple[str, int] = ("0.0.0.0", 0)) -> socket.socket:  # noqa: S104
        """Return a bound UDP socket inside, usable from anywhere in this process; the lab closes it."""
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET

        def make() -> socket.socket:
            sock = socket.socket(family, socket.SOCK_DGRAM)
            try:
                sock.bind(address)
            except OSError:
                sock.close()
                raise
            return sock

        sock = self.call(role, make)
        self._sockets.append(sock)
        return sock

    def _build(self) -> None:
        self._names = {role: self._new_name(role) for role in topology.ROLES}
        self._ip(None, topology.namespaces_script(self._texts()))
        for role in topology.ROLES:
            self._prepare(role)
        self._ip(None, topology.wires_script(self._texts()))
        self._ip("core", topology.core_script(ipv6=self._ipv6))
        self._ip("node", topology.node_script(ipv6=self._ipv6))
        for router, site in SITES.items():
            write_sysctls(self.name(router), _FORWARDING)
            self._ip(router, topology.router_script(site, ipv6=self._ipv6))
            self.nat(router, Nat())
        for host, site in HOSTS.items():
            self._ip(host, topology.host_script(site, host, ipv6=self._ipv6))

    def _prepare(self, role: str) -> None:
        """Set what interfaces inherit when they are made, so before there are any."""
        settings = {
            # Bridged frames would pass the translation rules a second time.
            "bridge/bridge-nf-call-iptables": 0,
            "bridge/bridge-nf-call-ip6tables": 0,
            "ipv4/conf/all/rp_filter": 0,
            "ipv6/conf/all/disable_ipv6": 0 if self._ipv6 else 1,
            "ipv6/conf/default/disable_ipv6": 0 if self._ipv6 else 1,
            # Looking for duplicates of link-local addresses keeps routers from asking for neighbours for a second.
            "ipv6/conf/default/accept_dad": 0,
        }
        write_sysctls(self.name(role), settings)

    def _translate(self, role: str, nat: Nat, *, wan: str, lan: str) -> None:
        first_port = self._random.randint(*_SEQUENCES)
        self._nft(role, nat_rules(nat, wan=wan, lan=lan, first_port=first_port))
        if self._ipv6 and role in SITES:
            self._nft(role, firewall_rules(enabled=True))
        timeouts = ("netfilter/nf_conntrack_udp_timeout", "netfilter/nf_conntrack_udp_timeout_stream")
        write_sysctls(self.name(role), dict.fromkeys(timeouts, nat.lifetime_s))
        flush_connections(self.name(role))
        self._nats[role] = nat

    def _site(self, router: str) -> Site:
        if router not in SITES:
            raise LabError(f"{router!r} is no router, only {', '.join(SITES)} are")
        return SITES[router]

    def _new_name(self, role: str) -> NamespaceName:
        pid, started_ticks = own_run()
        return NamespaceName(pid=pid, started_ticks=started_ticks, number=self._number, role=role)

    def _texts(self) -> Mapping[str, str]:
        return {role: str(name) for role, name in self._names.items()}

    def _inside(self, role: str, command: Sequence[str]) -> list[str]:
        return [self._tools.ip, "netns", "exec", str(self.name(role)), *command]

    def _ip(self, role: str | None, script: str) -> None:
        inside = [] if role is None else ["-n", str(self.name(role))]
        run_tool([self._tools.ip, *inside, "-batch", "-"], stdin=script)

    def _nft(self, role: str, script: str) -> str:
        return run_tool(self._inside(role, [self._tools.nft, "-f", "-"]), stdin=script)


def _end(processes: Sequence[subprocess.Popen[Any]]) -> None:
    running = [process for process in processes if process.poll() is None]
    for process in running:
        process.terminate()
    for process in running:
        try:
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
