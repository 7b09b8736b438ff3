"""
A NAT's behaviour as nftables rules: text for ``nft -f``, nothing is run.

The kernel's own address translation is neither endpoint-independent nor symmetric: it keeps one mapping per inside
socket only while a flow lives, and moves a flow to another port as soon as a stranger's early packet has left a
trace. So mappings are kept in tables of our own, learned from the packets that leave:

    outside   inside address and port (and what the mapping depends on)  →  outside address and port
    inside    outside port                                               →  inside address and port
    talked    outside port and remote address: who may answer, for address-dependent filtering
    contacts  every remote address ever sent to: evidence, no rule looks at it

A packet that leaves takes its mapping from ``outside`` or gets a new port; a packet that arrives is led in through
``inside`` as far as filtering allows; anything else that is new from outside is dropped without an answer and leaves
no trace. Learning happens after translation (priority 110), where a packet shows its outside port while connection
tracking still knows the inside socket.
"""

from dataclasses import dataclass

from antquic_server.natlab.model import Filtering, Mapping, Nat, Ports

__all__ = [
    "SEQUENCE_PORTS",
    "block_udp_rules",
    "firewall_rules",
    "forget_rules",
    "loss_rules",
    "nat_rules",
    "rebinding_rules",
]

FIRST_PORT, LAST_PORT = 20000, 49999
"""Range of random ports, above the well-known ones that peers refuse as candidates."""

SEQUENCE_PORTS = 4096
"""Length of a sequence of ports before it begins again: flows of one mapping lifetime must fit."""

TABLE_SIZE = 65535

_INSIDE_KEY = {
    Mapping.ENDPOINT_INDEPENDENT: "ipv4_addr . inet_service",
    Mapping.ADDRESS_DEPENDENT: "ipv4_addr . inet_service . ipv4_addr",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Terms:
    """Expressions that several rules share."""

    nat: Nat
    wan: str
    lan: str

    @property
    def remote(self) -> str:
        """The part of a key that a mapping depends on beside the inside socket."""
        return " . ip daddr" if self.nat.mapping is Mapping.ADDRESS_DEPENDENT else ""

    @property
    def keeps_mappings(self) -> bool:
        return self.nat.mapping is not Mapping.ADDRESS_AND_PORT_DEPENDENT


def nat_rules(nat: Nat, *, wan: str, lan: str, first_port: int) -> str:
    """
    Return the rules of a router whose interfaces are ``wan`` and ``lan``.

    Args:
        nat: The behaviour.
        wan: The router's outside address.
        lan: The inside network, ``10.11.0.0/24``.
        first_port: Where sequential ports begin; ``SEQUENCE_PORTS`` of them must fit below 65536.
    """
    terms = _Terms(nat=nat, wan=wan, lan=lan)
    return "\n".join(
        [
            "flush ruleset",
            "table ip nat {",
            *_tables(terms, first_port),
            *_chain("inbound", "nat hook prerouting priority dstnat", _inbound(terms)),
            *_chain("outbound", "nat hook postrouting priority srcnat", _outbound(terms)),
            *_chain("learn", "filter hook postrouting priority 110", _learn(terms)),
            "}",
            "table ip firewall {",
            *_chain("input", "filter hook input priority filter", _unasked(terms)),
            *_chain("forward", "filter hook forward priority filter", _strangers(terms)),
            "}",
            "",
        ]
    )


def forget_rules(nat: Nat) -> str:
    """Return the commands that empty every table of learned mappings."""
    maps = ["inside"] if nat.mapping is Mapping.ADDRESS_AND_PORT_DEPENDENT else ["inside", "outside"]
    return "".join([*(f"flush map ip nat {name}\n" for name in maps), "flush set ip nat talked\n"])


def rebinding_rules(*, rebinding: bool) -> str:
    """Return the rules that let no UDP pass while a router forgets, or those that take them away again."""
    rules = ["meta l4proto udp drop"] if rebinding else []
    return _replaced_table("inet", "rebinding", _chain("forward", "filter hook forward priority -20", rules))


def firewall_rules(*, enabled: bool) -> str:
    """Return the rules of an IPv6 firewall that lets in what was asked for, and nothing else; no translation."""
    rules = ['iifname "wan" meta l4proto udp ct state != { established, related } drop'] if enabled else []
    return _replaced_table("ip6", "firewall", _chain("forward", "filter hook forward priority filter", rules))


def loss_rules(per_mille: int) -> str:
    """Return the rules that drop that many of a thousand UDP packets, in each direction; 0 for none."""
    # Less than 1000 of 1000 is a comparison that nft refuses as always true.
    chance = "" if per_mille >= 1000 else f"numgen random mod 1000 < {per_mille} "
    rules = [f"meta l4proto udp {chance}drop"] if per_mille else []
    return _replaced_table("inet", "loss", _chain("forward", "filter hook forward priority -10", rules))


def block_udp_rules(*, remote: str | None, blocked: bool) -> str:
    """Return the rules that drop UDP, all of it or what goes to and comes from one IPv4 address."""
    addressed = [f"ip saddr {remote} ", f"ip daddr {remote} "] if remote is not None else [""]
    rules = [f"{which}meta l4proto udp drop" for which in addressed] if blocked else []
    # After translation for what arrives and before it for what leaves: both show the remote side's public address.
    return _replaced_table("inet", "blocked", _chain("forward", "filter hook forward priority -5", rules))


def _tables(terms: _Terms, first_port: int) -> list[str]:
    options = f"flags dynamic,timeout; timeout {terms.nat.lifetime_s}s; size {TABLE_SIZE};"
    lines = [
        f"map inside {{ type inet_service : ipv4_addr . inet_service; {options} }}",
        f"set talked {{ type inet_service . ipv4_addr; {options} }}",
        f"set contacts {{ type ipv4_addr; flags dynamic; size {TABLE_SIZE}; }}",
    ]
    if terms.keeps_mappings:
        key = _INSIDE_KEY[terms.nat.mapping]
        lines.append(f"map outside {{ type {key} : ipv4_addr . inet_service; {options} }}")
    if terms.nat.ports is Ports.SEQUENTIAL:
        # A counter by itself would be written into the packet in the machine's byte order: hence a table.
        elements = ", ".join(f"{number} : {first_port + number}" for number in range(SEQUENCE_PORTS))
        key = f"numgen inc mod {SEQUENCE_PORTS}"
        lines.append(f"map sequence {{ typeof {key} : udp sport; elements = {{ {elements} }} }}")
    return lines


def _inbound(terms: _Terms) -> list[str]:
    rules = []
    if terms.nat.hairpin:
        rules.append(f'iifname "lan" ip daddr {terms.wan} meta l4proto udp dnat to udp dport map @inside')
    match terms.nat.filtering:
        case Filtering.ENDPOINT_INDEPENDENT:
            rules.append('iifname "wan" meta l4proto udp dnat to udp dport map @inside')
        case Filtering.ADDRESS_DEPENDENT:
            rules.append('iifname "wan" meta l4proto udp udp dport . ip saddr @talked dnat to udp dport map @inside')
        case Filtering.ADDRESS_AND_PORT_DEPENDENT:
            pass  # Connection tracking itself lets in exactly the answers.
    return rules


def _outbound(terms: _Terms) -> list[str]:
    rules = []
    for where in _leaving(terms):
        if terms.keeps_mappings:
            rules.append(f"{where} meta l4proto udp snat to ip saddr . udp sport{terms.remote} map @outside")
        rules += [f"{where} meta l4proto udp {target}" for target in _new_port(terms)]
    rules.append('oifname "wan" masquerade')
    return rules


def _new_port(terms: _Terms) -> list[str]:
    any_port = f"snat to {terms.wan}:{FIRST_PORT}-{LAST_PORT} fully-random"
    match terms.nat.ports:
        case Ports.RANDOM:
            return [any_port]
        case Ports.SEQUENTIAL:
            return [f"snat to {terms.wan} : numgen inc mod {SEQUENCE_PORTS} map @sequence"]
        case Ports.PRESERVED:
            # A port that another inside socket holds cannot be had twice.
            return [f"udp sport @inside {any_port}", f"snat to {terms.wan}"]


def _learn(terms: _Terms) -> list[str]:
    timeout = f"timeout {terms.nat.lifetime_s}s"
    rules = []
    for where in _leaving(terms):
        # A flow that began outside is answered in the reply direction; its answers refresh the mapping as well.
        for direction in ("original", "reply"):
            this = f"{where} meta l4proto udp ct direction {direction}"
            source = f"ct {direction} ip saddr . ct {direction} proto-src"
            if terms.keeps_mappings:
                rules.append(f"{this} update @outside {{ {source}{terms.remote} {timeout} : ip saddr . udp sport }}")
            rules.append(f"{this} update @inside {{ udp sport {timeout} : {source} }}")
        rules.append(f"{where} meta l4proto udp update @talked {{ udp sport . ip daddr {timeout} }}")
    rules.append('oifname "wan" meta l4proto udp add @contacts { ip daddr }')
    return rules


def _leaving(terms: _Terms) -> list[str]:
    """Conditions for packets that leave through the NAT; a hairpin's do so without leaving the inside."""
    leaving = ['oifname "wan"']
    if terms.nat.hairpin:
        leaving.append(f'oifname "lan" ip saddr {terms.lan} ct status dnat')
    return leaving


def _unasked(terms: _Terms) -> list[str]:
    rules = ['iifname "wan" ct state new drop']
    if not terms.nat.hairpin:
        rules.append(f'iifname "lan" ip daddr {terms.wan} meta l4proto udp drop')
    return rules


def _strangers(terms: _Terms) -> list[str]:
    if terms.nat.filtering is not Filtering.ADDRESS_AND_PORT_DEPENDENT:
        return []
    return ['iifname "wan" ct state != { established, related } drop']


def _chain(name: str, hook: str, rules: list[str]) -> list[str]:
    return [f"chain {name} {{", f"type {hook};", *rules, "}"]


def _replaced_table(family: str, name: str, body: list[str]) -> str:
    # Declared first, because deleting what is not there is an error.
    head = [f"table {family} {name}", f"delete table {family} {name}"]
    return "\n".join([*head, f"table {family} {name} {{", *body, "}", ""])
