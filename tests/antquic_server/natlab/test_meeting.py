"""The trial with programs: what it concludes from their events, with programs that only pretend."""

import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from antquic_server.natlab import meeting
from antquic_server.natlab.lab import Lab
from antquic_server.natlab.matrix import Cell, Outcome, TrialResult
from antquic_server.natlab.meeting import Coordinator, MeetingTrial, host_of, outcome_of
from antquic_server.natlab.model import KINDS
from antquic_server.natlab.programs import AntQuic, Library

CELL = Cell(kind_a=KINDS["full-cone"], kind_b=KINDS["symmetric"], initiator="b")
NODE = "198.18.0.1"
SILENT = "a (target) sent nothing to the other side"

PRETENDER = """
import json, os, signal, sys, time

def say(**facts):
    print(json.dumps(facts), flush=True)

def quit(*_):
    raise SystemExit(0)

signal.signal(signal.SIGINT, quit)
arguments = sys.argv[1:]
role = os.path.basename(os.environ["HOME"]).removeprefix("peer-")
own = {"node": "0", "a": "a", "b": "b"}[role] * 64
other = {"node": "", "a": "b", "b": "a"}[role] * 16
print("INFO starting")
say(event="local_identity", peer_id=own, addr="[::]:1")
say(event="peer_connected", peer_id="f" * 16, addr="udp://198.18.0.1:4433", direction="outbound",
    connection_type="direct")
say(event="external_address_discovered", addr="udp://198.18.0.11:30000")
with open(os.environ["HOME"] + "/../" + role + ".arguments", "w") as file:
    file.write(" ".join(arguments))
if role != "node":
    BEHAVIOUR
while True:
    time.sleep(600)
"""

PUNCHED = """
    say(event="peer_connected", peer_id=other, addr="udp://198.18.0.12:1", direction="inbound",
        connection_type="direct")
    say(event="peer_connected", peer_id=other, addr="udp://198.18.0.12:1", direction="outbound",
        connection_type="nat_traversed")
    say(event="counter_received", counter=1, peer="f" * 16)
    say(event="counter_received", counter=1, peer=other)
    say(event="counter_received", counter=2, peer=other)
"""


class HostLab:
    """Starts programs where it stands; ``commands`` remembers them by role."""

    addresses = SimpleNamespace(node=(NODE, "198.18.0.2"), routers={"A": "198.18.0.11", "B": "198.18.0.12"})

    def __init__(self) -> None:
        self.commands: dict[str, list[str]] = {}

    def contacts(self, router: str) -> set[str]:
        """Say that only the site of b sent anything to the other."""
        return {NODE, "198.18.0.11"} if router == "B" else {NODE}

    def popen(self, role: str, command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
        """Start a program."""
        self.commands[role] = list(command)
        return subprocess.Popen(command, **options)


def run(
    directory: Path, behaviour: str, monkeypatch: pytest.MonkeyPatch, *, meeting_timeout_s: float = 1.0
) -> tuple[TrialResult, HostLab]:
    """Run the trial with a pretender that behaves so."""
    monkeypatch.setattr(meeting, "_MEETING_TIMEOUT_S", meeting_timeout_s)
    monkeypatch.setattr(meeting, "_DELIVERY_TIMEOUT_S", 0.5)
    program = directory / "ant-quic"
    body = PRETENDER.replace("    BEHAVIOUR\n", textwrap.indent(textwrap.dedent(behaviour) or "pass", "    ") + "\n")
    program.write_text(f"#!{sys.executable}\n{body}")
    program.chmod(0o755)
    lab = HostLab()
    ant_quic = AntQuic(program=program)
    trial = MeetingTrial(
        a=ant_quic, b=ant_quic, coordinator=Coordinator.ANT_QUIC, ant_quic=ant_quic, log_directory=directory / "logs"
    )
    return trial(cast("Lab", lab), CELL), lab


def test_a_meeting_that_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The initiator is given the target's id, both only the node; counters of the peer count, those of others not."""
    result, lab = run(tmp_path, PUNCHED, monkeypatch)

    assert result.outcome is Outcome.PUNCHED
    assert result.reason == ""
    assert result.delivered_bytes % 8 == 0
    assert 16 <= result.delivered_bytes <= 32
    assert lab.commands["b"][-2:] == ["--connect-peer-id", "a" * 64]
    assert "--connect-peer-id" not in lab.commands["a"]
    for peer in "ab":
        known = lab.commands[peer].index("--known-peers") + 1
        assert lab.commands[peer][known] == f"{NODE}:4433"
    assert "--known-peers" not in lab.commands["node"]


def test_logs_are_kept_where_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each cell has a directory with the log of each process."""
    run(tmp_path, PUNCHED, monkeypatch)

    kept = tmp_path / "logs" / "full-cone-symmetric-b"
    assert {log.name for log in kept.iterdir()} == {"peer-a.log", "peer-b.log", "peer-node.log"}
    assert (kept / "peer-a.log").read_text().startswith("INFO starting\n")


def test_what_the_peer_says_of_its_failure_is_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line of the peer itself wins over what did not come, and who never tried is told apart."""
    result, _ = run(tmp_path, 'print("ERROR Failed to connect to peer aaaa: no way: really", flush=True)', monkeypatch)

    assert result == TrialResult(
        outcome=Outcome.FAILED, reason=f"no way: really; {SILENT}", seconds=result.seconds, delivered_bytes=0
    )
    assert result.seconds >= 1.0


def test_silence_is_a_reason_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a word of the peer, the reason is the event that did not come."""
    result, _ = run(tmp_path, "", monkeypatch)

    assert (result.outcome, result.delivered_bytes) == (Outcome.FAILED, 0)
    assert result.reason == f"no peer_connected from ant-quic on b within 1 s; {SILENT}"


def test_a_connection_that_delivers_nothing_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connected is not enough."""
    result, _ = run(tmp_path, PUNCHED.partition('    say(event="counter_received"')[0], monkeypatch)

    assert (result.outcome, result.delivered_bytes) == (Outcome.PUNCHED, 0)
    assert not result.is_direct_path
    assert result.reason.startswith("no counter_received")


@pytest.mark.parametrize(
    ("address", "kind", "outcome"),
    [
        ("udp://198.18.0.12:30000", "direct", Outcome.DIRECT),
        ("udp://[::ffff:198.18.0.12]:30000", "nat_traversed", Outcome.PUNCHED),
        ("udp://198.18.0.12:30000", "relayed", Outcome.RELAYED),
        ("udp://[::ffff:198.18.0.1]:49200", "direct", Outcome.RELAYED),
        ("udp://198.18.0.12:30000", "teleported", Outcome.FAILED),
    ],
)
def test_outcomes(address: str, kind: str, outcome: Outcome) -> None:
    """The peer's word counts, except that the node's own address is a relay whatever it is called."""
    assert outcome_of({"addr": address, "connection_type": kind}, (NODE,)) is outcome


def test_hosts_of_addresses() -> None:
    """Both families and mapped addresses are read; nonsense is nobody's address."""
    addresses = ["udp://198.18.0.1:1", "[2001:2::1]:1", "udp://[::ffff:198.18.0.1]:1", "relay", ""]

    assert list(map(host_of, addresses)) == ["198.18.0.1", "2001:2::1", "198.18.0.1", "", ""]


def test_who_says_that_it_has_failed_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the library does; its word and its sentence are the reason."""
    monkeypatch.setattr(AntQuic, "failure", lambda _, process: Library().failure(process))
    behaviour = 'say(event="connect_failed", peer_id=other * 4, reason="no_path", detail="in vain")'

    result, _ = run(tmp_path, behaviour, monkeypatch, meeting_timeout_s=60.0)

    assert (result.outcome, result.delivered_bytes) == (Outcome.FAILED, 0)
    assert result.reason == f"no_path: in vain; {SILENT}"
    assert result.seconds < 30.0


def test_theory_counts_on_prediction_only_where_both_predict() -> None:
    """Each side has to know where the other will come from."""
    ant_quic = AntQuic(program=Path("ant-quic"))
    for a, b, prediction in ((Library(), Library(), True), (ant_quic, Library(), False), (ant_quic, ant_quic, False)):
        assert MeetingTrial(a=a, b=b).prediction is prediction
