"""Every setting beside what the kernel has, and what is chosen and followed."""

import dataclasses
from pathlib import Path

import pytest

from antquic_server.config.model import EndpointSettings, RelaySettings, Settings
from antquic_server.errors import ConfigurationError
from antquic_server.tuning.bootfile import BOOT_FILE
from antquic_server.tuning.kernel import Kernel
from antquic_server.tuning.plan import Outcome, Verdict, choose_topics, examine, follow
from antquic_server.tuning.record import Entry, Record
from support.tuned_system import STOCK, catalogue, key_file, make_system, settings_of

RMEM = "net.core.rmem_max"
LATER = "etc/sysctl.d/99-sysctl.conf"


def look(root: Path, record: Record | None = None) -> dict[str, Outcome]:
    """Examine every setting below ``root``; outcomes by key."""
    return {one.key: one for one in examine(Kernel(root=root), catalogue(), record or Record())}


def test_on_an_old_and_small_machine_everything_is_to_do(tmp_path: Path) -> None:
    """Each setting has a value that is wanted, and none is written."""
    outcomes = look(make_system(tmp_path))

    assert {one.verdict for one in outcomes.values()} == {Verdict.TO_DO}
    assert outcomes[RMEM] == Outcome(
        key=RMEM,
        topic="buffers",
        now="212992",
        wanted="26214400",
        asked="at least 26214400",
        verdict=Verdict.TO_DO,
    )
    assert outcomes["net.netfilter.nf_conntrack_udp_timeout"].asked == "20 to 60"
    assert {path.name: path.read_text() for path in tmp_path.rglob("rmem_max")} == {"rmem_max": "212992\n"}


def test_a_larger_value_is_fine(tmp_path: Path) -> None:
    """And is what is wanted, so that nobody lowers it."""
    outcome = look(make_system(tmp_path, {**STOCK, RMEM: "67108864"}))[RMEM]

    assert (outcome.verdict, outcome.wanted) == (Verdict.FINE, "67108864")


def test_a_missing_key_is_named_with_what_it_means(tmp_path: Path) -> None:
    """A module that is not loaded is no fault."""
    outcomes = look(make_system(tmp_path, {RMEM: "26214400"}))

    assert outcomes["net.netfilter.nf_conntrack_max"].verdict is Verdict.MISSING
    assert "no stateful firewall" in outcomes["net.netfilter.nf_conntrack_max"].note
    assert outcomes["net.core.wmem_max"].note == "not there"


def test_a_key_of_the_machine_is_not_promised_inside_a_container(tmp_path: Path) -> None:
    """Unless its value will do as it is."""
    make_system(tmp_path, {RMEM: "212992", "net.core.wmem_max": "26214400"})
    for key in (RMEM, "net.core.wmem_max"):
        key_file(tmp_path, key).chmod(0o444)
    outcomes = look(tmp_path)

    assert outcomes[RMEM].verdict is Verdict.FIXED_HERE
    assert "outside this container" in outcomes[RMEM].note
    assert outcomes["net.core.wmem_max"].verdict is Verdict.FINE


def test_what_cannot_be_understood_is_not_judged(tmp_path: Path) -> None:
    """A directory, or a value of another form."""
    make_system(tmp_path, {RMEM: "plenty", "net.core.wmem_max.below": "1"})
    outcomes = look(tmp_path)

    assert outcomes[RMEM].verdict is outcomes["net.core.wmem_max"].verdict is Verdict.UNREADABLE
    assert outcomes[RMEM].note == "'plenty': expected whole numbers"


@pytest.mark.parametrize(
    ("files", "verdict", "note"),
    [
        ({}, Verdict.LOST_AT_BOOT, f"{BOOT_FILE} does not set it"),
        ({str(BOOT_FILE): "26214400"}, Verdict.FINE, ""),
        (
            {str(BOOT_FILE): "26214400", LATER: "212992"},
            Verdict.LOST_AT_BOOT,
            "sets it to 212992",
        ),
        ({str(BOOT_FILE): "26214400", LATER: "99999999"}, Verdict.FINE, ""),
        ({LATER: "junk"}, Verdict.LOST_AT_BOOT, "sets it to junk"),
    ],
)
def test_a_value_that_the_next_start_undoes_is_not_fine(
    tmp_path: Path, files: dict[str, str], verdict: Verdict, note: str
) -> None:
    """Whether our own file is missing or another one comes later; its path is told."""
    make_system(tmp_path, {RMEM: "26214400"})
    for name, value in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{RMEM} = {value}\n")
    record = Record(entries=(Entry(key=RMEM, topic="buffers", found="212992", applied="26214400"),))
    outcome = look(tmp_path, record)[RMEM]

    assert outcome.verdict is verdict
    assert outcome.note.endswith(note)


def test_a_value_that_nobody_has_applied_need_not_be_in_a_file(tmp_path: Path) -> None:
    """It is the kernel's own."""
    assert look(make_system(tmp_path, {RMEM: "26214400"}))[RMEM].verdict is Verdict.FINE


def test_topics_are_chosen_by_name() -> None:
    """Those by default, unless some are named; in the order of the catalogue, each once."""
    topics = catalogue()

    assert "busy-polling" not in [topic.name for topic in choose_topics(topics, [])]
    chosen = choose_topics(topics, ["ports", "busy-polling", "ports"])
    assert [topic.name for topic in chosen] == ["ports", "busy-polling"]
    with pytest.raises(ConfigurationError, match=r"--topic = 'buffer': expected one of backlog, buffers, conntrack"):
        choose_topics(topics, ["buffer"])


def test_the_ports_are_those_of_the_configuration() -> None:
    """Listen ports and the relay's; port 0 stands for any and reserves none."""
    settings = dataclasses.replace(
        Settings(),
        endpoint=EndpointSettings(listen=("192.0.2.1:4433", "[::]:4434", "0.0.0.0:0")),
        relay=RelaySettings(port_range=(50000, 50999)),
    )
    followed = settings_of(follow(catalogue(), settings))

    assert followed["net.ipv4.ip_local_reserved_ports"].value == "4433-4434,50000-50999"
    assert followed[RMEM].value == "26214400"


def test_ports_for_everybody_else_must_be_left() -> None:
    """A relay that takes nearly all would cut the machine off from its resolver."""
    settings = dataclasses.replace(Settings(), relay=RelaySettings(port_range=(33000, 65535)))

    with pytest.raises(ConfigurationError, match=r"relay\.port_range = \[33000, 65535\]: expected 4096 ports left"):
        follow(catalogue(), settings)
    follow(choose_topics(catalogue(), ["buffers"]), settings)
