"""A machine on which nothing is wrong, in a directory and in attributes, for tests to plant faults in."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from antquic_server.config.model import Settings
from antquic_server.doctor.case import Case
from antquic_server.doctor.examination import examine
from antquic_server.doctor.finding import Finding, Verdict
from antquic_server.doctor.kernel_clock import KernelClock
from antquic_server.doctor.machine import Interpreter, Machine
from antquic_server.doctor.pqc_probe import PqcFacts
from antquic_server.doctor.socket_probes import STEERED_DATAGRAMS
from antquic_server.errors import CannotTellError

__all__ = ["HEALTHY_STATUS", "NODE_PID", "PlantedMachine", "findings", "healthy_case", "not_ok", "planted"]

NODE_PID = 4711
NODE_UID = 997

HEALTHY_FILES = {
    "/proc/sys/net/core/rmem_max": "26214400\n",
    "/proc/sys/net/core/wmem_max": "26214400\n",
    "/proc/sys/net/core/netdev_max_backlog": "16384\n",
    "/proc/net/snmp": "Udp: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors\nUdp: 1000000 5 3 900000 3\n",
    "/proc/net/softnet_stat": "0000ffff 00000000 00000000\n0000ffff 00000000 00000000\n",
    "/proc/self/cgroup": "0::/system.slice/antquic-server.service\n",
    "/sys/fs/cgroup/system.slice/antquic-server.service/cpu.max": "max 100000\n",
    "/sys/fs/cgroup/system.slice/antquic-server.service/memory.max": "max\n",
    "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "performance\n",
    "/sys/devices/system/cpu/cpu1/cpufreq/scaling_governor": "performance\n",
    "/proc/net/route": "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n"
    "eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\n",
    "/sys/class/net/eth0/queues/rx-0/rps_cpus": "0\n",
    "/sys/class/net/eth0/queues/rx-1/rps_cpus": "0\n",
    "/sys/class/net/eth0/mtu": "1500\n",
    "/proc/sys/kernel/osrelease": "6.12.30-amd64\n",
    "/proc/cpuinfo": "processor\t: 0\nflags\t\t: fpu sse2 avx avx2\n",
    "/sys/devices/system/clocksource/clocksource0/current_clocksource": "tsc\n",
    "/sys/devices/system/clocksource/clocksource0/available_clocksource": "tsc hpet acpi_pm\n",
    "/proc/sys/net/netfilter/nf_conntrack_max": "262144\n",
    "/proc/sys/net/netfilter/nf_conntrack_count": "120\n",
    "/proc/sys/net/netfilter/nf_conntrack_udp_timeout_stream": "120\n",
    "/proc/sys/net/ipv6/conf/all/disable_ipv6": "0\n",
    "/proc/net/if_inet6": "20010db8000000000000000000000001 02 40 00 80     eth0\n",
    "/proc/sys/net/ipv4/ip_local_port_range": "32768\t60999\n",
    "/proc/sys/net/ipv4/ip_local_reserved_ports": "49152-65535\n",
    "/proc/meminfo": "MemTotal:  8000000 kB\nSwapTotal:  1000000 kB\nSwapFree:  1000000 kB\n",
    "/proc/vmstat": "nr_free_pages 1\noom_kill 0\n",
    "/var/lib/antquic-server/node.pem": "a key\n",
    f"/proc/{NODE_PID}/limits": "Max open files            1024                 524288               files\n",
    f"/proc/{NODE_PID}/environ": "PATH=/usr/bin\0LANG=C\0",
    f"/proc/{NODE_PID}/status": f"Name:\tantquic-server\nUid:\t{NODE_UID}\t{NODE_UID}\t{NODE_UID}\t{NODE_UID}\n",
}

HEALTHY_STATUS: dict[str, Any] = {
    "node": {"healthy": True, "draining": False, "steered": True, "uptime_s": 86_400.0},
    "workers": [{"slot": slot, "state": "ready", "loop_lag_s": 0.001} for slot in (0, 1)],
    "totals": {"loop_lag_s": 0.002, "worker_restarts|crashed": 0},
    "directory": {},
    "relay": {
        "enabled": True,
        "canary": {"channel": {"ok": 17_000, "latency_s": 0.001}, "stream": {"ok": 17_000, "latency_s": 0.001}},
    },
}

HEALTHY_RULES = json.dumps({"nftables": [{"metainfo": {"json_schema_version": 1}}]})


class PlantedMachine(Machine):
    """Answers from ``root`` and from its attributes, which tests change."""

    def __init__(self, root: Path) -> None:
        super().__init__(root=root, environment={"PATH": "/usr/bin"})
        self.platform = "linux"
        self.uid = NODE_UID
        self.cpu_numbers: tuple[int, ...] = (0, 1)
        self.cpu_numbers_of: dict[int, tuple[int, ...]] = {}
        """Of other processes than this one; empty for one that does not say. Not planted: as this one's."""
        self.cpu_total = 2
        self.memory = 8_000_000_000
        self.descriptors = (1024, 524_288)
        self.python = Interpreter(
            version="3.11.2",
            debug_build=False,
            dev_mode=False,
            optimize=0,
            asyncio_debug=False,
            tracing_memory=False,
            uvloop="0.21.0",
        )
        self.pqc_facts = PqcFacts(version="0.14.0", speedup=4.4, sees_avx2=True)
        self.clock_s: float | None = None
        self.clock = KernelClock(synchronised=True, max_error_s=0.01)
        self.buffer_limit: int | None = None
        self.may_force_buffers = False
        self.trains = (True, True)
        self.steered = (True, STEERED_DATAGRAMS)
        self.refusals: dict[str, int] = {}
        self.ports: dict[int, int | None] = {}
        self.commands: dict[str, str] = {"nft": HEALTHY_RULES}
        self.waiting: dict[str, str] = {}
        """Files that change while a check waits."""
        for path, text in HEALTHY_FILES.items():
            self.plant(path, text)
        self._at("/var/lib/antquic-server").chmod(0o700)
        self._at("/var/lib/antquic-server/node.pem").chmod(0o600)

    def plant(self, path: str, text: str) -> None:
        """Write a file."""
        place = self._at(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)

    def remove(self, path: str) -> None:
        """Take a file away."""
        self._at(path).unlink()

    def chmod(self, path: str, mode: int) -> None:
        """Change the rights of a file."""
        self._at(path).chmod(mode)

    def facts_of(self, path: str) -> Any:
        """As in reality, but everything belongs to the node's account: tests run as anybody."""
        facts = super().facts_of(path)
        return None if facts is None else replace(facts, uid=self.owners.get(path, NODE_UID))

    owners: Mapping[str, int] = {}

    def run(self, *command: str) -> str:
        """As planted."""
        if command[0] not in self.commands:
            raise CannotTellError(command[0], "not installed")
        return self.commands[command[0]]

    def affinity(self, pid: int | None = None) -> tuple[int, ...]:
        """As planted."""
        numbers = self.cpu_numbers if pid is None else self.cpu_numbers_of.get(pid, self.cpu_numbers)
        if not numbers:
            raise CannotTellError(f"the CPUs of process {pid}", "Operation not permitted")
        return numbers

    def cpu_count(self) -> int:
        """As planted."""
        return self.cpu_total

    def memory_bytes(self) -> int:
        """As planted."""
        return self.memory

    def descriptor_limits(self) -> tuple[int, int]:
        """As planted."""
        return self.descriptors

    def interpreter(self) -> Interpreter:
        """As planted."""
        return self.python

    def pqc(self) -> PqcFacts:
        """As planted."""
        return self.pqc_facts

    def now_s(self) -> float:
        """As planted, else the real one."""
        return super().now_s() if self.clock_s is None else self.clock_s

    def wait(self, seconds: float) -> None:
        """Nothing but what was planted for it."""
        for path, text in self.waiting.items():
            self.plant(path, text)

    def kernel_clock(self) -> KernelClock:
        """As planted."""
        return self.clock

    def granted_buffer(self, *, receive: bool, wanted_bytes: int, forced: bool) -> int:
        """As the planted sysctl says."""
        limit = self.buffer_limit
        if limit is None:
            limit = self.sysctl("net.core.rmem_max" if receive else "net.core.wmem_max")
        return wanted_bytes if forced and self.may_force_buffers else min(limit, wanted_bytes)

    def passes_trains(self) -> tuple[bool, bool]:
        """As planted."""
        return self.trains

    def steering(self) -> tuple[bool, int]:
        """As planted."""
        return self.steered

    def bind_error(self, address: str) -> int:
        """As planted, by address."""
        return self.refusals.get(address, 0)

    def tcp_bind_error(self, host: str, port: int) -> int:
        """As planted, by address."""
        return self.refusals.get(f"tcp {host}:{port}", 0)

    def udp_ports(self) -> dict[int, int | None]:
        """As planted."""
        return self.ports

    def process_name(self, pid: int) -> str:
        """A made-up name."""
        return f"named (process {pid})"


def healthy_case(root: Path, *, settings: Settings | None = None, running: bool = True) -> Case:
    """Return the case of a healthy machine, with a healthy node on it if ``running``."""
    return Case(
        machine=PlantedMachine(root),
        settings=settings or Settings(),
        node_key="/var/lib/antquic-server/node.pem",
        node_pid=NODE_PID if running else None,
        status=HEALTHY_STATUS if running else None,
        admin_port=10_001,
        status_error="" if running else "no node answers at http://127.0.0.1:10001: Connection refused",
    )


def planted(case: Case) -> PlantedMachine:
    """Return the machine of a case to plant something on."""
    assert isinstance(case.machine, PlantedMachine)
    return case.machine


def findings(case: Case) -> dict[str, Finding]:
    """Examine, and return every finding by the name of its check."""
    return {result.check.name: result.finding for result in examine(case)}


def not_ok(case: Case) -> dict[str, Verdict]:
    """Examine, and return the verdicts that are worse than ok: what was planted, and nothing else."""
    return {name: finding.verdict for name, finding in findings(case).items() if finding.verdict is not Verdict.OK}
