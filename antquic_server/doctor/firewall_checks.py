"""Does this machine's own firewall let strangers in?"""

from antquic_server.doctor.case import Case, Check, Topic
from antquic_server.doctor.finding import Finding, cannot_tell, fault, ok
from antquic_server.doctor.nft_rules import Decision, Outcome, Ruleset
from antquic_server.doctor.routes import default_interface
from antquic_server.errors import CannotTellError

__all__ = ["CHECKS"]

_SEEN = "rules of this machine; what a provider's firewall does only --reach from another machine can tell"


def firewall_listen(case: Case) -> Finding:
    """Follow a stranger's first datagram to each port the node listens on."""
    ports = [port for port in case.listen_ports() if port]
    if not ports:
        return cannot_tell("the node takes a free port, which is not known before it starts")
    return _through(case, ports, ", ".join(map(str, ports)))


def firewall_relay(case: Case) -> Finding:
    """Likewise to the ends and the middle of the relay's range."""
    relay = case.settings.relay
    if not relay.enabled:
        return ok("the relay is off")
    first, last = relay.port_range
    return _through(case, sorted({first, (first + last) // 2, last}), f"{first}-{last}")


def _through(case: Case, ports: list[int], shown: str) -> Finding:
    machine = case.machine
    if machine.platform != "linux":
        return cannot_tell(f"the firewall of {machine.platform} is not read")
    legacy = _legacy_tables(case)
    outside = f"antquic-server doctor --reach HOST:{case.listen_ports()[0]}   # from another machine"
    try:
        rules = Ruleset(machine.run("nft", "-j", "list", "ruleset"))
    except CannotTellError as error:
        return cannot_tell(str(error), "sudo antquic-server doctor firewall-listen firewall-relay", outside)
    try:
        interface = default_interface(machine)
    except CannotTellError:
        interface = ""
    worst = [(port, decision) for port in ports for decision in rules.first_datagram(port, interface)]
    for port, decision in worst:
        if decision.outcome is Outcome.DROPPED:
            found = f"UDP port {port} is closed: {decision.reason} of chain {decision.chain} drops what strangers send"
            return fault(found, _opening(decision, shown), outside)
    for port, decision in worst:
        if decision.outcome is Outcome.UNDECIDED:
            return cannot_tell(f"UDP port {port} may be closed: {decision.chain} has {decision.reason}", outside)
    if legacy:
        return cannot_tell(f"iptables-legacy has rules ({', '.join(legacy)}), which nft does not show", outside)
    if not worst:
        return ok(f"no rules for UDP {shown} on this machine")
    return ok(f"UDP {shown} is let in by {len({decision.chain for _, decision in worst})} chains of nftables")


def _legacy_tables(case: Case) -> list[str]:
    """Names of the tables of the old iptables; being there does not mean that they have rules."""
    found = []
    for path in ("/proc/net/ip_tables_names", "/proc/net/ip6_tables_names"):
        try:
            found += case.machine.read(path).split()
        except CannotTellError:
            continue
    return sorted(set(found))


def _opening(decision: Decision, ports: str) -> str:
    ports = f"'{{ {ports} }}'" if "," in ports else ports
    return f"nft insert rule {decision.chain} udp dport {ports} accept"


CHECKS = (
    Check(
        name="firewall-listen",
        topic=Topic.NETWORK,
        looks_at="nftables, followed for a stranger's first datagram to each port of endpoint.listen",
        why=f"a peer that gets no answer goes on to the next node. Seen are the {_SEEN}",
        examine=firewall_listen,
    ),
    Check(
        name="firewall-relay",
        topic=Topic.NETWORK,
        looks_at="nftables, likewise for the first, middle and last port of relay.port_range",
        why="stream relay sessions open and carry nothing: the other peer's datagrams never arrive",
        examine=firewall_relay,
    ),
)
"""In the order in which they are shown."""
