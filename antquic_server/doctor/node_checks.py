"""Do configuration, key, account and memory suit the node?"""

import pwd
from ipaddress import ip_address
from pathlib import PurePosixPath

from antquic_server.config.rules import split_listen_address
from antquic_server.doctor.case import Case, Check, Topic
from antquic_server.doctor.finding import Finding, fault, note, ok, warning
from antquic_server.doctor.remedies import setting, unit
from antquic_server.errors import CannotTellError

__all__ = ["CHECKS"]

CONNECTION_BYTES = 56_000
SESSION_BYTES = 4_000
PROCESS_BYTES = 60_000_000
"""Supervisor, worker or spare without a connection, see ``rss_bytes`` in ``antquic-server status --json``."""

_OTHERS = 0o077
_OTHERS_WRITE = 0o022
_STICKY = 0o1000


def configuration(case: Case) -> Finding:
    """Say whether what was asked for can be loaded."""
    if case.configuration_error is not None:
        fix = "antquic-server serve --help   # docs/configuration.md has every key and what it accepts"
        return fault(f"{case.configuration_error}; the rest is examined with the defaults", fix)
    user = case.settings.endpoint.user
    if user is not None and _uid_of(user) is None:
        return fault(f"endpoint.user: there is no user {user}", f"useradd --system --shell /usr/sbin/nologin {user}")
    tls = case.settings.tls
    for path in filter(None, (tls.certificate, tls.private_key)):
        if case.machine.facts_of(path) is None:
            return fault(f"{path}: no such file", setting("tls.certificate", '""'))
    return ok("that of the running node, as its /status tells" if case.settings_told else "it loads")


def admin_exposure(case: Case) -> Finding:
    """Look who can reach the admin endpoint."""
    listen = case.settings.admin.listen
    host = split_listen_address("settings", "admin.listen", listen)[0]
    if ip_address(str(host)).is_loopback:
        return ok(f"{listen}: this machine only")
    return warning(
        f"{listen}: whoever reaches it sees every peer's address, without a password",
        setting("admin.listen", '"127.0.0.1:10001"'),
        "ssh -L 10001:127.0.0.1:10001 HOST   # to look at it from elsewhere",
    )


def node_key(case: Case) -> Finding:
    """Look at rights and owner of the node key and of its directory."""
    machine, path = case.machine, case.node_key
    facts = machine.facts_of(path)
    if facts is None:
        return note(f"{path} will be made at the first start", "antquic-server identity new")
    if facts.mode & _OTHERS:
        return fault(
            f"{path} has mode {facts.mode:04o}: others may read the key and pass for this node", f"chmod 600 {path}"
        )
    account = _account(case)
    if account is not None and facts.uid not in (0, account):
        found = f"{path} belongs to {_name_of(facts.uid)}, not to {_name_of(account)}"
        return fault(found, f"chown {_name_of(account)} {path}")
    directory = str(PurePosixPath(path).parent)
    above = machine.facts_of(directory)
    if above is not None and above.mode & _OTHERS_WRITE and not above.mode & _STICKY:
        return warning(f"others may replace files in {directory} (mode {above.mode:04o})", f"chmod go-w {directory}")
    return ok(f"{path}, readable by its owner only")


def _account(case: Case) -> int | None:
    """User id of the account that reads the key; None where any owner will do: root reads every file."""
    uid = _node_uid(case)
    if uid is None and case.machine.is_root:
        return None
    return case.machine.uid if uid is None else uid or None


def _node_uid(case: Case) -> int | None:
    """Effective user id of the running node, None if there is none to see."""
    if case.node_pid is None:
        return None
    try:
        for line in case.machine.read(f"/proc/{case.node_pid}/status").splitlines():
            if line.startswith("Uid:"):
                return int(line.split()[2])
    except (CannotTellError, ValueError, IndexError):
        pass
    return None


def _uid_of(user: str) -> int | None:
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        return None


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def account(case: Case) -> Finding:
    """Look whether the node is, or would be, root."""
    fixes = (
        "useradd --system --shell /usr/sbin/nologin antquic-server",
        setting("endpoint.user", '"antquic-server"'),
        unit("User=antquic-server"),
    )
    if (uid := _node_uid(case)) is not None:
        if uid == 0:
            return warning(f"the running node (process {case.node_pid}) is root", *fixes)
        return ok(f"the running node (process {case.node_pid}) is {_name_of(uid)}")
    user = case.settings.endpoint.user
    if user is not None:
        return ok(f"the node would become {user}")
    if case.machine.is_root:
        return note("a node started from here would be root and stay it", *fixes)
    return ok(f"a node started from here would be {_name_of(case.machine.uid)}")


def memory(case: Case) -> Finding:
    """Compare what a full node takes with what there is."""
    settings = case.settings
    processes = 1 + case.workers() + settings.endpoint.standby_workers
    sessions = settings.relay.max_sessions if settings.relay.enabled else 0
    needed = settings.endpoint.max_connections * CONNECTION_BYTES + sessions * SESSION_BYTES + processes * PROCESS_BYTES
    there, whose = case.machine.memory_bytes(), "this machine has"
    limit = _memory_limit(case)
    if limit is not None and limit < there:
        there, whose = limit, f"{case.control_group_words()} allows"
    found = (
        f"{_megabytes(needed)} for {settings.endpoint.max_connections:,} connections, {sessions:,} relay sessions and "
        f"{processes} processes; {whose} {_megabytes(there)}"
    )
    left = there * 0.8 - (needed - settings.endpoint.max_connections * CONNECTION_BYTES)
    fixes = [setting("endpoint.max_connections", max(1, int(left // CONNECTION_BYTES)))]
    if whose != "this machine has":
        fixes.append(unit(f"MemoryMax={-(-needed * 5 // 4 // 1_000_000)}M"))
    if needed > there:
        return fault(found, *fixes)
    return warning(found, *fixes) if needed > 0.8 * there else ok(found)


def _memory_limit(case: Case) -> int | None:
    """Return the smallest memory limit of the control groups the node is in, bytes; versions 1 and 2."""
    limits = []
    for line in case.control_groups()[0]:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        first = "memory" in controllers.split(",")
        if controllers and not first:
            continue
        mount, name = ("/sys/fs/cgroup/memory", "memory.limit_in_bytes") if first else ("/sys/fs/cgroup", "memory.max")
        group = PurePosixPath("/", path.lstrip("/"))
        for each in (group, *group.parents):
            try:
                limits.append(case.machine.number(f"{mount}{each}/{name}".replace("//", "/")))
            except CannotTellError:
                continue
    return min(limits, default=None)


def swap(case: Case) -> Finding:
    """Look whether memory is being swapped out, and whether the kernel has had to kill."""
    values = {}
    for line in case.machine.read("/proc/meminfo").splitlines():
        name, _, rest = line.partition(":")
        values[name] = int(rest.split()[0]) if rest.split() else 0
    total, free = values.get("SwapTotal", 0), values.get("SwapFree", 0)
    killed = 0
    for line in case.machine.read("/proc/vmstat").splitlines():
        if line.startswith("oom_kill "):
            killed = int(line.split()[1])
    deaths = f"; the kernel has killed {killed} processes for lack of memory since the start" if killed else ""
    used = total - free
    if total and used / total > 0.5:
        fixes = ("swapoff -a   # if there is memory for it", unit("MemorySwapMax=0"), "sysctl -w vm.swappiness=1")
        return warning(f"{_megabytes(used * 1024)} of {_megabytes(total * 1024)} of swap are in use{deaths}", *fixes)
    if killed:
        return note(deaths.removeprefix("; "), "journalctl -k | grep -i 'out of memory'   # which, and why")
    return ok(f"{_megabytes(used * 1024)} of {_megabytes(total * 1024)} of swap are in use" if total else "no swap")


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:,.0f} MB"


CHECKS = (
    Check(
        name="configuration",
        topic=Topic.NODE,
        looks_at="the file, else what the running node tells, --set, and whether the account and the certificate they "
        "name exist",
        why="a node with a wrong configuration does not start (exit code 2)",
        examine=configuration,
    ),
    Check(
        name="admin-exposure",
        topic=Topic.NODE,
        looks_at="admin.listen",
        why="the admin endpoint asks nobody who they are",
        examine=admin_exposure,
    ),
    Check(
        name="node-key",
        topic=Topic.NODE,
        looks_at="mode and owner of the node key and of its directory",
        why="whoever has the key is this node to every peer; a node that cannot read it does not start (exit code 3)",
        examine=node_key,
    ),
    Check(
        name="account",
        topic=Topic.NODE,
        looks_at="who the running node is, else who would be one that is started from here",
        why="what parses the datagrams of strangers should not be root",
        examine=account,
    ),
    Check(
        name="memory",
        topic=Topic.NODE,
        looks_at="endpoint.max_connections and relay.max_sessions against memory and control group limit, of the "
        "running node if there is one",
        why="a node that fills up is killed by the kernel, and all its connections with it",
        effect="an idle connection costs about 56 kB, an idle stream relay session 4 kB "
        "(rss_bytes in antquic-server status --json)",
        examine=memory,
    ),
    Check(
        name="swap",
        topic=Topic.NODE,
        looks_at="swap in use, and the kernel's count of processes killed for lack of memory",
        why="a worker whose memory is on a disk misses its heartbeats and is taken for frozen",
        examine=swap,
    ),
)
"""In the order in which they are shown."""
