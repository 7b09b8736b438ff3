"""
Every command that the documentation shows is executed, on a machine where it can do no harm.

Most run to their end and must succeed. Some go on until they are ended, so that their output is waited for. What needs
a machine of its own is executed by a test that has one, which must exist and name the command.
"""

import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.doc_blocks import REPOSITORY, Snippet, commands, shown_commands
from support.doc_stage import ADDRESS, Stage, stage
from support.waiting import wait_until

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow]

COMMAND_TIMEOUT_S = 240.0
OUTPUT_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Until:
    """A command that goes on: ``output`` (a regular expression) must appear on it, then it is ended."""

    output: str
    own_stage: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A command that says by its exit code what it has found; both are success here."""

    codes: tuple[int, ...] = (0, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Elsewhere:
    """A command that the named file executes, in which ``words`` stand."""

    file: str
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DryRun:
    """A target of the Makefile that would change the tree: that it exists is all that is tried."""


Recipe = Until | Verdict | DryRun | Elsewhere

RECIPES: list[tuple[str, Recipe]] = [
    (r"make run\b", Elsewhere(file=".ci/run", words="make --no-print-directory run")),
    (r"make test\b", Elsewhere(file=".ci/run", words='make --no-print-directory -C "$clone" test')),
    (r"make check\b", Elsewhere(file=".ci/run", words="make --no-print-directory check")),
    (r"make (peers|liboqs)\b", Elsewhere(file=".ci/run", words="make --no-print-directory peers")),
    (r"make (lint|fmt|docs)", DryRun()),
    (r"ant-quic ", Elsewhere(file="tests/support/ant_quic.py", words="--no-default-bootstrap")),
    (r"antquic-server (doctor|tune (check|apply --dry-run))", Verdict()),
    (r"antquic-server peer (receive|listen)", Until(output="[0-9a-f]{64}")),
    (r"antquic-server serve", Until(output='"event": "ready"', own_stage=True)),
]
"""What is not simply run, by how the command begins."""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One machine for all commands, with a node, a peer that receives files, and a file to send."""
    directory = tmp_path_factory.mktemp("stage")
    with stage(directory) as made:
        (directory / "photo.jpg").write_bytes(bytes(range(256)) * 64)
        for name in ("inbox", "received"):
            (directory / name).mkdir()
        made.run("nft add table inet filter", timeout_s=OUTPUT_TIMEOUT_S)
        made.run("nft 'add chain inet filter input { type filter hook input priority 0; }'", timeout_s=OUTPUT_TIMEOUT_S)
        yield made


@pytest.fixture(scope="module")
def peer_id(shared: Stage) -> str:
    """Id of a peer of the node that takes whatever is sent to it."""
    receiver = shared.start(f"antquic-server peer receive ./received --via {ADDRESS}:10000 --count 100 --json")
    ready = receiver.wait_for(lambda message: "peer_id" in message, timeout_s=OUTPUT_TIMEOUT_S, what="peer id")
    return str(ready["peer_id"])


def _recipe(command: str) -> Recipe | None:
    return next((recipe for pattern, recipe in RECIPES if re.match(pattern, command)), None)


@pytest.mark.parametrize("command", list(commands()), ids=lambda command: f"{command.place} {command.text}")
def test_command_of_the_documentation(
    command: Snippet, shared: Stage, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """It does what the page says it does: succeeds, or goes on with the output that shows it."""
    text = command.text.removeprefix("sudo ")
    recipe = _recipe(text)
    if isinstance(recipe, Elsewhere):
        assert recipe.words in (REPOSITORY / recipe.file).read_text()
        return
    if "PEER_ID" in text:
        text = text.replace("PEER_ID", request.getfixturevalue("peer_id"))
    if isinstance(recipe, Until):
        if recipe.own_stage:
            with stage(tmp_path, node=False) as own:
                _watch(own, text, recipe.output)
        else:
            _watch(shared, text, recipe.output)
        return
    if isinstance(recipe, DryRun):
        text = f"{text} --dry-run"
    codes = recipe.codes if isinstance(recipe, Verdict) else (0,)
    done = shared.run(text, timeout_s=COMMAND_TIMEOUT_S)
    assert done.returncode in codes, f"{text}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    assert "Traceback" not in done.stderr


def _watch(where: Stage, text: str, output: str) -> None:
    child = where.start(text)
    try:
        # Before that stands the command itself, which is no output.
        wait_until(
            lambda: re.search(output, child.describe().partition("exit status: None\n")[2]),
            timeout_s=OUTPUT_TIMEOUT_S,
            what=f"{output} of {text}",
        )
    finally:
        assert child.stop(timeout_s=OUTPUT_TIMEOUT_S) in (0, -signal.SIGTERM, 128 + signal.SIGTERM), child.describe()


LOG_FILTERS = [each for each in shown_commands() if re.match(r"(journalctl .*\| )?jq ", each.text)]
PERF = [each.text for each in shown_commands() if each.text.startswith("perf ")]


@pytest.mark.parametrize("command", LOG_FILTERS, ids=lambda command: f"{command.place} {command.text}")
def test_filter_of_the_documentation(command: Snippet, shared: Stage, request: pytest.FixtureRequest) -> None:
    """Each way to read a log or a trace with jq reads a real one."""
    log = shared.directory / "node.log"
    log.write_text((shared.directory / "stderr-0.log").read_text() + "a line of somebody else\n")
    text = re.sub(r"^journalctl [^|]*\|", f"cat {log} |", command.text)
    if "FILE.qlog" in text:
        traced = shared.run(
            f"antquic-server qlog {request.getfixturevalue('peer_id')} --seconds 1 --output .", timeout_s=60
        )
        assert traced.returncode == 0, traced.stderr
        text = text.replace("FILE.qlog", str(next(shared.directory.glob("*.qlog"))))
    done = shared.run(text, timeout_s=OUTPUT_TIMEOUT_S)

    assert (done.returncode, done.stderr) == (0, ""), text


def test_perf_sees_what_is_busy(shared: Stage) -> None:
    """The commands of the page, for a tenth of their time, on handshakes in memory: perf reports where they are."""
    busy = shared.start("antquic-server bench handshake --option rounds=2000 --option live_s=0 --option dials=0")
    record, report = [text.replace("PID", str(busy.pid)).replace("sleep 10", "sleep 1") for text in PERF]

    def sampled() -> bool:
        recorded = shared.run(record, timeout_s=OUTPUT_TIMEOUT_S)
        assert recorded.returncode == 0, recorded.stderr
        return "Samples" in shared.run(report, timeout_s=OUTPUT_TIMEOUT_S).stdout

    wait_until(sampled, timeout_s=OUTPUT_TIMEOUT_S, what="samples of a busy process")
    busy.process.send_signal(signal.SIGTERM)
