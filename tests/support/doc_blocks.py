"""The fenced code blocks of the documentation."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["REPOSITORY", "Snippet", "commands", "pages", "shown_commands", "snippets"]

REPOSITORY = Path(__file__).resolve().parents[2]

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_PROGRAMS = "ansible-playbook|antquic-server|jq|journalctl|nft|perf|pip|podman|promtool|systemctl|tshark"
_PROGRAM = re.compile(rf"(?:\$ )?(?:sudo )?((?:{_PROGRAMS}) .*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Snippet:
    """One block, or one command of it: where it stands (``docs/x.md:17``), its language and its text."""

    place: str
    language: str
    text: str


def pages() -> list[Path]:
    """Every page a reader is sent to: the README files and all of docs/."""
    return sorted([*REPOSITORY.glob("*.md"), *REPOSITORY.glob("*/README.md"), *REPOSITORY.glob("docs/**/*.md")])


def snippets(language: str) -> Iterator[Snippet]:
    """Every block of one language."""
    for page in pages():
        text = page.read_text()
        for found in _FENCE.finditer(text):
            if found[1] == language:
                line = text.count("\n", 0, found.start()) + 2
                place = f"{page.relative_to(REPOSITORY)}:{line}"
                yield Snippet(place=place, language=language, text=found[2])


def commands() -> Iterator[Snippet]:
    """Every line of every ``sh`` block that is a command; a comment behind it is no part of it."""
    for block in snippets("sh"):
        page, _, first = block.place.rpartition(":")
        lines = block.text.replace("\\\n", "\0").splitlines()
        number = int(first)
        for line in lines:
            text = re.sub(r"\s+#\s.*$", "", line).replace("\0", " ").strip()
            if text and not text.startswith("#"):
                yield Snippet(place=f"{page}:{number}", language="sh", text=text)
            number += 1 + line.count("\0")


def shown_commands() -> Iterator[Snippet]:
    """Every command in a block that is not ``sh``: a line that begins with a program, after a prompt or without one."""
    for block in snippets(""), snippets("text"), snippets("console"):
        for snippet in block:
            for line in snippet.text.splitlines():
                if line.startswith("antquic-server: "):
                    continue
                found = _PROGRAM.match(re.sub(r"\s{2,}#\s.*$", "", line))
                if found is not None:
                    yield Snippet(place=snippet.place, language=snippet.language, text=found[1].rstrip())
