"""docs/nat-traversal.md, configuration.md and relay.md explain why peers are not introduced, connected or relayed."""

import re
from pathlib import Path

import pytest

from antquic_server.peer.endpoint import LocalFailure
from antquic_server.peer.punching import Failure
from antquic_server.protocol.address_discovery import Mapping
from antquic_server.protocol.coordination import RejectionReason
from antquic_server.protocol.relay_limits import STATUS, Refusal, RelayEnd
from antquic_server.protocol.relay_targets import TargetVerdict
from antquic_server.supervisor.target_limits import Limit
from workers.coordination import OUTCOMES

CONFIGURATION = (Path(__file__).resolve().parents[1] / "docs" / "configuration.md").read_text()
PAGE = (Path(__file__).resolve().parents[1] / "docs" / "nat-traversal.md").read_text()
RELAY_PAGE = (Path(__file__).resolve().parents[1] / "docs" / "relay.md").read_text()
UNANSWERED = {"malformed", "not_a_request", "forged_initiator"}
"""Outcomes that are no reason of the protocol."""


def table(first_column: str) -> list[list[str]]:
    """Return the rows of the table whose first column has this heading, as their cells."""
    head = f"| {first_column} |"
    lines = PAGE[PAGE.index(head) :].partition("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def words(first_column: str) -> list[str]:
    """Return the words that a table explains, each of which stands in backquotes."""
    return [re.sub(r"^`(.*)`$", r"\1", row[0]) for row in table(first_column)]


def test_every_failure_of_the_library_is_explained_once() -> None:
    """With what it means and what to do; nothing is explained that no longer exists."""
    assert sorted(words("reason")) == sorted([*Failure, *LocalFailure])
    assert all(len(row) == 3 and all(row) for row in table("reason"))


def test_every_outcome_of_the_coordinator_is_explained_once() -> None:
    """By its word in the metrics, with what the initiator hears."""
    assert sorted(words("outcome")) == sorted([*OUTCOMES.values(), *UNANSWERED])
    heard = {row[1] for row in table("outcome")}
    assert heard == {*RejectionReason, "CoordinationAccepted", "nothing"}


@pytest.mark.parametrize("word", [f"`{limit}`" for limit in Limit])
def test_every_limit_of_the_hub_is_named(word: str) -> None:
    """Where the outcome that it leads to is explained."""
    (row,) = [row for row in table("outcome") if row[0] == "`rate_limited`"]
    assert word in row[3]


@pytest.mark.parametrize("word", [f"`{refusal}`" for refusal in (*Refusal, RelayEnd.WORKER_LOST)])
def test_every_refusal_of_the_relay_is_explained_once(word: str) -> None:
    """In docs/configuration.md, beside the setting that it comes from."""
    section = CONFIGURATION.partition("| reason | what refuses |")[2].partition("\n\n")[0]
    assert section.count(word) == 1


def test_every_nat_mapping_is_explained() -> None:
    """As the admin endpoint shows it."""
    assert sorted(words("`nat_mapping`")) == sorted(Mapping)


def test_every_status_of_the_relay_is_listed_with_its_words() -> None:
    """In docs/relay.md: what an ant-quic peer is answered."""
    listed: dict[str, int] = {}
    for line in RELAY_PAGE.partition("| status | words |")[2].partition("\n\n")[0].splitlines()[2:]:
        status, words = line.strip("|").split("|")
        listed |= dict.fromkeys(re.findall(r"`(\w+)`", words), int(status))
    assert listed == {refusal.value: int(status) for refusal, status in STATUS.items()}


@pytest.mark.parametrize(
    "word",
    [
        *(verdict for verdict in TargetVerdict if verdict is not TargetVerdict.ALLOWED),
        "queue_full",
        "rate",
        "new_targets",
    ],
)
def test_every_drop_of_the_stream_relay_is_explained(word: str) -> None:
    """In docs/relay.md, by its word in the metrics."""
    assert f"`{word}`" in RELAY_PAGE.partition("## Datagrams that are not passed on")[2].partition("## ")[0]
