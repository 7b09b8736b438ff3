"""
What each setting does, in the words of the configuration reference.

The reason for a default stands beside it in ``config.model``; what a key accepts is said by its rule. Together they
make ``docs/configuration.md`` (``config.reference``). Markdown, one line each.
"""

from typing import Final

__all__ = ["MEANINGS"]

MEANINGS: Final[dict[str, str]] = {
    "endpoint.listen": (
        "Addresses and ports of the node. Port 0 takes a free one. Two that overlap (a wildcard and an address of "
        "the same family and port) are refused."
    ),
    "endpoint.workers": (
        "Worker processes; 0 stands for one per CPU that this process may use (affinity and cgroup quota)."
    ),
    "endpoint.max_connections": "Connections of the whole node.",
    "endpoint.idle_timeout_s": (
        "A connection is dropped when nothing arrives for this long; the smaller value of both sides counts."
    ),
    "endpoint.keep_alive_s": "Interval of pings; 0 sends none. Must be less than `idle_timeout_s`.",
    "endpoint.alpn": "Application protocols to accept, the preferred one first. Empty: any, and none.",
    "endpoint.user": "Account to change to after binding, when started as root.",
    "endpoint.group": "Group to change to; needs `user`. Empty: the user's primary group.",
    "endpoint.standby_workers": "Loaded processes that wait to replace a dead worker.",
    "endpoint.heartbeat_interval_s": (
        "How often a worker's event loop reports. Must be less than `heartbeat_timeout_s`."
    ),
    "endpoint.heartbeat_timeout_s": "A worker silent for this long is killed and replaced.",
    "endpoint.shutdown_deadline_s": "Time for closing all connections after SIGTERM.",
    "endpoint.pin_workers": "Pin every worker to a CPU of its own.",
    "pqc.provider": "Library for ML-KEM and ML-DSA. `auto` takes liboqs where it is installed.",
    "pqc.mode": "`require` refuses clients without post-quantum key exchange; `any` admits them.",
    "pqc.memory_pool_size": "Ready contexts per worker.",
    "pqc.handshake_timeout_multiplier": "Factor on handshake deadlines.",
    "nat.max_candidates": (
        "Node: addresses kept of those a peer advertises for itself, on each connection; further ones are refused. "
        "Peer: addresses dialled in one round of punching, guessed ports included, and given to a coordinator."
    ),
    "nat.discovery_timeout_s": "Peer: time from asking for another peer until it counts as unreachable.",
    "nat.hole_punch_retries": (
        "Peer: rounds of punching after the first, as far as they fit into that time, at least 2.2 s apart."
    ),
    "nat.enable_symmetric_nat": (
        "Peer: from the second round on, dial also the ports that a symmetric NAT which counts gives out next. A "
        "node introduces peers behind symmetric NATs in any case."
    ),
    "nat.coordination_rate_per_s": (
        "Coordination requests per second and peer that are looked up; more are refused as RateLimited. Counted over "
        "all workers."
    ),
    "nat.coordination_burst": "Coordination requests of a peer at once.",
    "nat.introductions_per_target_per_s": (
        "Introductions per second to one peer, by all others together; more are refused as RateLimited. At most half "
        "of them for those who ask from one address (IPv6: one /48)."
    ),
    "nat.introductions_per_target_burst": "Introductions to one peer at once.",
    "mtu.initial": (
        "Datagrams of the handshake; between `min` and `max`. More than 1200 fails on paths that carry less."
    ),
    "mtu.min": "What a connection falls back to when its path changes or stops carrying what it did.",
    "mtu.max": "Upper bound of path MTU discovery; nothing larger is sent, probes included.",
    "relay.enabled": "Carry traffic for peers that cannot reach each other.",
    "relay.public_address": (
        "Address of relay sessions, told to peers. Empty: the one that the peer which asks has reached the node at. "
        "Needs a restart."
    ),
    "relay.port_range": (
        "UDP ports of ant-quic peers' sessions, one each; the firewall must let them in. Not with one of the node's "
        "own ports. Needs a restart."
    ),
    "relay.max_sessions": "Sessions of the whole node, both ways to relay together.",
    "relay.max_sessions_per_peer": (
        "Sessions of one peer; at most `max_sessions`. A channel counts for the peer that asked for it. A peer may "
        "open as many in 10 s, and twice as many at once."
    ),
    "relay.max_sessions_per_prefix": (
        "Sessions of all peers of one IPv4 address or one IPv6 /48, the last that each has proven to receive at. "
        "They may open as many in 10 s, and twice as many at once."
    ),
    "relay.bandwidth_bytes_per_s": (
        "Bandwidth of the whole node, shared among the workers by what they need. A datagram counts at least 100 bytes."
    ),
    "relay.bandwidth_per_peer_bytes_per_s": (
        "Bandwidth of one peer, shared evenly among its sessions; at most `bandwidth_bytes_per_s`. A datagram "
        "counts at least 100 bytes."
    ),
    "relay.burst_s": (
        "What may pass at once after a silence, in seconds at the full rate. A peer has this once: a new session "
        "begins with half of what is left of it, and it comes back with a tenth of the peer's bandwidth."
    ),
    "relay.max_bytes": (
        "Bytes of the whole node in each quota period; 0: no limit. All sessions end when they are used up."
    ),
    "relay.max_bytes_per_peer": (
        "Bytes of one peer in each quota period; 0: no limit. Its sessions end when they are used up."
    ),
    "relay.quota_period_s": "Length of a quota period. The first begins with the node.",
    "relay.allowed_peers": "Peers that may ask for sessions. Empty: all that have authenticated themselves.",
    "relay.denied_peers": "Peers that may not, whatever `allowed_peers` says. They can still be reached by others.",
    "relay.allowed_targets": "Networks relayed to although they are private, local or special.",
    "relay.denied_targets": "Networks not relayed to although they are public.",
    "relay.queue_bytes": "Bytes that wait for the peer of one session to read; beyond them datagrams are dropped.",
    "relay.canary_interval_s": (
        "How often each worker sends itself bytes through each way to relay, to show that it forwards; 0: never. "
        "Needs a restart."
    ),
    "limits.retry": "Address proof (Retry) before the handshake: `auto` while busy.",
    "limits.half_open_retry_threshold": (
        "With `auto`: unfinished handshakes of a worker from which on it asks for the proof."
    ),
    "limits.handshakes_per_address_per_s": "Handshakes from one address; at most `handshakes_per_prefix_per_s`.",
    "limits.handshakes_per_prefix_per_s": "Handshakes from one prefix (IPv4 /32, IPv6 /56 and /48).",
    "limits.handshake_burst_s": "Seconds' worth of handshakes that may come at once.",
    "limits.stateless_resets_per_s": "Stateless resets of one worker.",
    "limits.stream_window_bytes": "Flow control window of a stream; at most `connection_window_bytes`.",
    "limits.connection_window_bytes": "Flow control window of a connection.",
    "limits.max_message_bytes": "Longest message on a unidirectional stream.",
    "limits.echo_buffer_bytes": "With `--echo`: bytes waiting to be sent back on one connection.",
    "log.level": "The least important level that is written.",
    "log.format": "`auto` writes for people on a terminal, and JSON otherwise.",
    "log.modules": (
        "Levels of single modules: `supervisor` means `antquic_server.supervisor` and all below it; `quic` is "
        "aioquic. A module that does not exist is a mistake."
    ),
    "log.repeat_burst": (
        "Lines of one event (logger, level and text) that are written in `repeat_window_s`; the rest is summed up in "
        "one line with `repeated`. 0: every line is written."
    ),
    "log.repeat_window_s": "Length of that window.",
    "log.keylog": (
        "File for the TLS secrets of every connection, for Wireshark; whoever has it can read the traffic. Empty: none."
    ),
    "log.stats_interval_s": (
        "How often a line with the figures of the whole node is logged; 0 never "
        "([monitoring.md](monitoring.md#the-statistics-line))."
    ),
    "admin.listen": (
        "Health, status and metrics over HTTP, without a password. A loopback address, unless `allow_remote`."
    ),
    "admin.allow_remote": "Allow `listen` to be an address that others can reach.",
    "admin.control": (
        "Unix socket through which `antquic-server log` and `qlog` act on the node; only its owner and root may. "
        "Empty: `control-PID.sock` in the runtime directory, see [logging.md](logging.md#the-control-socket)."
    ),
    "admin.names": (
        "Names by which clients may call the endpoint, besides addresses and `localhost`; all others get status 421 "
        "([why](status-page.md#security))."
    ),
    "tls.certificate": (
        "X.509 certificate chain (PEM) for clients without raw public keys; needs `private_key`. On SIGHUP the two "
        "files are read again. Empty: self-signed for ten years, anew at every start."
    ),
    "tls.private_key": "Key of `certificate` (PEM).",
    "identity.file": (
        "Node key, made when missing. Empty: `/var/lib/antquic-server/node.pem` for root, `antquic-server/node.pem` "
        "in `$XDG_STATE_HOME` (or `~/.local/state`) for others."
    ),
}
"""Meaning of every setting by ``section.key``, in the order of the model."""
