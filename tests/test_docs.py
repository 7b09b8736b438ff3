"""The documentation's snippets are of kinds that are tested, and say what the program understands."""

import json
import re
import shlex
from pathlib import Path

import pytest

from antquic_server import cli
from antquic_server.config.load import load_settings
from support.doc_blocks import REPOSITORY, Snippet, commands, pages, snippets

# What a block may be: sh is run (tests/end_to_end/test_docs_commands.py), toml and json are read, the rest is shown.
LANGUAGES = {"sh", "toml", "json", "python", "promql", "yaml", "text", "console", ""}

PROGRAM_LINES = [each for each in commands() if re.match(r"(sudo )?antquic-server ", each.text)]


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
    redirect = next((index for index, word in enumerate(words) if word in (">", "|", "2>", "&&", ";")), len(words))

    assert cli._parse(words[:redirect]).command in cli.COMMANDS


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
