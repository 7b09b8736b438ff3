"""
The settings files of ``tuning/``, read into values.

They are the one source of truth: the kernel's tools load them as they are, this package compares and applies
them, and the tables of ``docs/tuning.md`` are made of them. Facts stand in comments before each setting, one
field a line, continued by lines that are indented::

    # topic: buffers              the head of a file, up to the first empty line
    # title: Socket buffers
    # apply: by default           or: when named
    # about: ...

    # rule: at least              one setting: fields, then key = value
    # unit: bytes
    # stock: 212992
    # why: Text, which goes on
    #   in the next line.
    # effect: ...
    # undo: ...
    # kernels: ...
    net.core.rmem_max = 26214400

``follows`` names settings of the node that the value comes from, ``missing`` says what it means when the
system has no such key; both are optional.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from antquic_server.errors import AntQuicError
from antquic_server.tuning.rules import Rule, RuleError, parse_rule, target

__all__ = ["CatalogueError", "Setting", "Topic", "load_topic", "load_topics"]

_TOPIC_FIELDS = ("topic", "title", "apply", "about")
_SETTING_FIELDS = ("rule", "unit", "stock", "why", "effect", "undo", "kernels")
_OPTIONAL_FIELDS = ("follows", "missing")
_WHEN = {"by default": True, "when named": False}

_FIELD = re.compile(r"# ([a-z]+): (\S.*)")
_CONTINUED = re.compile(r"#   (\S.*)")
_ASSIGNMENT = re.compile(r"([a-zA-Z][a-zA-Z0-9_.-]*) = (\S.*)")


class CatalogueError(AntQuicError):
    """A settings file is missing or malformed; the text says where and what was expected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One key with the value it should have and everything an operator wants to know about it."""

    key: str
    value: str
    rule: Rule
    unit: str
    stock: str
    why: str
    effect: str
    undo: str
    kernels: str
    follows: tuple[str, ...] = ()
    missing: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """The settings of one file; ``by_default`` tells whether they are applied unless other topics are named."""

    name: str
    title: str
    by_default: bool
    about: str
    settings: tuple[Setting, ...]


def load_topics(directory: Path) -> tuple[Topic, ...]:
    """
    Read every ``*.conf`` of a directory, those that apply by default first, then by name.

    Raises:
        CatalogueError: One cannot be read, or is malformed, or two files set the same key.
    """
    topics = [load_topic(path) for path in sorted(directory.glob("*.conf"))]
    if not topics:
        raise CatalogueError(f"{directory}: expected settings files (*.conf)")
    keys = [setting.key for topic in topics for setting in topic.settings]
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice:
        raise CatalogueError(f"{directory}: {twice[0]}: expected in one file only")
    return tuple(sorted(topics, key=lambda topic: not topic.by_default))


def load_topic(path: Path) -> Topic:
    """
    Read one settings file.

    Raises:
        CatalogueError: It cannot be read or is malformed.
    """
    try:
        text = path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise CatalogueError(f"{path}: cannot be read: {error}") from None
    blocks = list(_blocks(path, text))
    if not blocks:
        raise CatalogueError(f"{path}: expected a head and settings, found nothing")
    head = blocks.pop(0)
    fields = _fields(path, head, wanted=_TOPIC_FIELDS)
    if fields["apply"] not in _WHEN:
        raise CatalogueError(f"{path}:{head.line}: apply: expected one of " + ", ".join(_WHEN))
    if fields["topic"] != path.stem:
        raise CatalogueError(f"{path}:{head.line}: topic: expected {path.stem}, as the file is called")
    if head.assignment is not None or not blocks:
        raise CatalogueError(f"{path}:{head.line}: expected a head without a setting, then settings")
    return Topic(
        name=fields["topic"],
        title=fields["title"],
        by_default=_WHEN[fields["apply"]],
        about=fields["about"],
        settings=tuple(_setting(path, block) for block in blocks),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Block:
    """What stands between two empty lines: comments, then at most one assignment."""

    line: int
    comments: tuple[str, ...]
    assignment: tuple[str, str] | None


def _blocks(path: Path, text: str) -> Iterator[_Block]:
    lines = text.splitlines()
    start = 0
    while start < len(lines):
        end = start
        while end < len(lines) and lines[end].strip():
            end += 1
        if end > start:
            yield _block(path, start + 1, lines[start:end])
        start = end + 1


def _block(path: Path, line: int, lines: Sequence[str]) -> _Block:
    comments = [item for item in lines if item.startswith("#")]
    assignments = lines[len(comments) :]
    match = _ASSIGNMENT.fullmatch(assignments[0]) if assignments else None
    if list(lines[: len(comments)]) != comments or len(assignments) > 1 or (assignments and match is None):
        raise CatalogueError(f"{path}:{line}: expected comments, then one line like net.core.rmem_max = 26214400")
    return _Block(
        line=line, comments=tuple(comments), assignment=None if match is None else (match[1], match[2].rstrip())
    )


def _fields(path: Path, block: _Block, *, wanted: Sequence[str], optional: Sequence[str] = ()) -> dict[str, str]:
    fields: dict[str, str] = {}
    name = ""
    for offset, comment in enumerate(block.comments):
        place = f"{path}:{block.line + offset}"
        if (match := _CONTINUED.fullmatch(comment)) is not None and name:
            fields[name] += " " + match[1].rstrip()
            continue
        match = _FIELD.fullmatch(comment)
        if match is None or match[1] not in (*wanted, *optional) or match[1] in fields:
            raise CatalogueError(f"{place}: expected one each of the fields " + ", ".join((*wanted, *optional)))
        name = match[1]
        fields[name] = match[2].rstrip()
    missing = [name for name in wanted if name not in fields]
    if missing:
        raise CatalogueError(f"{path}:{block.line}: expected the field {missing[0]}")
    return fields


def _setting(path: Path, block: _Block) -> Setting:
    if block.assignment is None:
        raise CatalogueError(f"{path}:{block.line}: expected a setting after its comments")
    fields = _fields(path, block, wanted=_SETTING_FIELDS, optional=_OPTIONAL_FIELDS)
    key, value = block.assignment
    try:
        rule = parse_rule(fields.pop("rule"))
        target(rule, found=value, wanted=value)
    except RuleError as error:
        raise CatalogueError(f"{path}:{block.line}: {key}: {error}") from None
    follows = tuple(filter(None, re.split(r",\s*", fields.pop("follows", ""))))
    return Setting(key=key, value=value, rule=rule, follows=follows, **fields)
