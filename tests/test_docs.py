"""The documentation's snippets are of kinds that are tested, and say what the program understands."""

import json
import re
import shlex
from pathlib import Path

import pytest

from antquic_server import cli
from antquic_server.config.load import load_settings
from support.doc_blocks import REPOSITORY, Snippet, commands, pages, shown_commands, snippets

# What a block may be: sh is run (tests/end_to_end/test_docs_commands.py), toml and json are read, the rest is shown.
LANGUAGES = {"sh", "toml", "json", "python", "promql", "yaml", "text", "console", ""}

SHOWN = list(shown_commands())
PROGRAM_LINES = [each for each in commands() if re.match(r"(sudo )?antquic-server ", each.text)]
PROGRAM_LINES += [each for each in SHOWN if each.text.startswith("antquic-server ") and "…" not in each.text]

EXECUTED_BY = [
    (r"antquic-server bench --load", "tests/test_examples.py", "--load"),
    (r"antquic-server bench .*--profile", "tests/end_to_end/test_bench.py", "--profile"),
    (r"antquic-server bench", "tests/end_to_end/test_bench.py", "bench"),
    (r"antquic-server doctor --reach", "tests/end_to_end/test_doctor.py", "--reach"),
    (r"antquic-server doctor", "tests/end_to_end/test_doctor.py", "--strict"),
    (r"antquic-server natlab", "tests/natlab/test_matrices.py", "natlab"),
    (r"antquic-server peer connect", "tests/end_to_end/test_peer.py", "connect"),
    (r"antquic-server profile", "tests/end_to_end/test_profile.py", "profile"),
    (r"antquic-server qlog", "tests/end_to_end/test_qlog.py", "qlog"),
    (r"antquic-server serve --keylog|tshark", "tests/end_to_end/test_keylog.py", "keylog"),
    (r"antquic-server status", "tests/end_to_end/test_docs_commands.py", "commands()"),
    (r"antquic-server tune", "tests/end_to_end/test_tune.py", "revert"),
    (r"nft -f tuning/", "tests/tuning/test_queues.py", "notrack.nft"),
    (r"ansible-playbook (site|upgrade|rollback|uninstall)\.yml", "tests/deploy/test_deployment.py", "upgrade"),
    (r"jq|journalctl .*jq", "tests/end_to_end/test_docs_commands.py", "jq"),
    (r"promtool", "tests/end_to_end/test_prometheus.py", "promtool"),
    (r"perf", "tests/end_to_end/test_docs_commands.py", "perf"),
    (r"podman build|podman run", "tests/deploy/test_containerfile.py", "Containerfile"),
    (r"systemctl|journalctl -u antquic-server", "tests/deploy/test_deployment.py", "systemctl"),
    (r"pip install 'antquic-server\[(charts|profile)\]'", "pyproject.toml", "profile = ["),
]
"""What executes a command that is shown with its output, or that needs more than a line: a file, and words of it."""


def test_every_block_is_of_a_known_language() -> None:
    """A new kind needs a test, or is shown only."""
    found = {language for page in pages() for language in re.findall(r"^```(\w+)$", page.read_text(), re.MULTILINE)}

    assert found <= LANGUAGES


@pytest.mark.parametrize("command", PROGRAM_LINES, ids=lambda command: f"{command.place} {command.text}")
def test_the_program_understands_every_command(command: Snippet) -> None:
    """Its options exist, whoever runs it."""
    words = shlex.split(command.text.removeprefix("sudo "))[1:]
    words = words[: words.index("&")] if "&" in words else words
    if words and words[-1] in ("--help", "--version"):
        assert words[0] in cli.COMMANDS or words[0].startswith("--")
        return
    redirect = next(
        (index for index, word in enumerate(words) if word in (">", "|", "2>", "&&", "||", ";")), len(words)
    )

    assert cli._parse(words[:redirect]).command in cli.COMMANDS


@pytest.mark.parametrize("command", SHOWN, ids=lambda command: f"{command.place} {command.text}")
def test_every_command_that_is_shown_is_executed_by_a_test(command: Snippet) -> None:
    """The first entry that it matches names one that exists."""
    file, words = next((file, words) for pattern, file, words in EXECUTED_BY if re.match(pattern, command.text))

    assert words in (REPOSITORY / file).read_text()


@pytest.mark.parametrize("snippet", list(snippets("toml")), ids=lambda snippet: snippet.place)
def test_every_configuration_loads(snippet: Snippet, tmp_path: Path) -> None:
    """As it stands."""
    path = tmp_path / "node.toml"
    path.write_text(snippet.text)
    load_settings(path)


@pytest.mark.parametrize("snippet", list(snippets("json")), ids=lambda snippet: snippet.place)
def test_every_document_is_json(snippet: Snippet) -> None:
    """One document, or one a line as logs have them."""
    try:
        json.loads(snippet.text)
    except json.JSONDecodeError:
        for line in snippet.text.splitlines():
            json.loads(line)


@pytest.mark.parametrize("snippet", list(snippets("python")), ids=lambda snippet: snippet.place)
def test_every_program_compiles(snippet: Snippet) -> None:
    """At module level or, where it awaits, inside a coroutine; imports of ours exist."""
    body = "\n".join("    " + line for line in snippet.text.splitlines())
    compile(f"async def example():\n{body}\n", snippet.place, "exec")
    for line in re.findall(r"^(?:from|import) (?:antquic_server|workers).*$", snippet.text, re.MULTILINE):
        exec(line, {})


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_every_link_within_the_project_leads_somewhere(page: Path) -> None:
    """To a file that exists and, where it names one, to a heading of it; pictures too."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), target
        if anchor:
            assert anchor in _anchors(path), target


def _anchors(page: Path) -> set[str]:
    """Names that a page's headings have as targets of links."""
    titles = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
