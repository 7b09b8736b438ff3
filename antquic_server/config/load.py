"""
Makes the settings of a node from a TOML file, the environment, command line flags and ``--set`` options.

Later sources win: defaults, then the file, then ``ANTQUIC_LOG``, then flags, then ``--set``. Levels of single modules
that come from the environment or from flags are added to those of before, module by module. Every error names where
the value was found, the key, the value and what was expected. Where two settings contradict each other, the one given
last is blamed: a default is never at fault.
"""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from ipaddress import IPv6Address
from pathlib import Path

from antquic_server.config.log_levels import LEVELS_VARIABLE, LevelChange, check_modules, parse_levels
from antquic_server.config.model import Settings, rules_of, section_types
from antquic_server.config.rules import split_listen_address
from antquic_server.errors import ConfigurationError

__all__ = ["CONFIG_VARIABLE", "ConfigurationSyntaxError", "FlagValue", "load_settings"]

CONFIG_VARIABLE = "ANTQUIC_CONFIG"
"""Environment variable that names the configuration file when the command line does not."""

MAX_FILE_BYTES = 1 << 20
"""A complete file is about 10 kB; the bound keeps a mistaken path (a device, an image) from being read."""

_BEFORE = (
    ("mtu.min", "mtu.max", "<="),
    ("mtu.min", "mtu.initial", "<="),
    ("mtu.initial", "mtu.max", "<="),
    ("endpoint.keep_alive_s", "endpoint.idle_timeout_s", "<"),
    ("endpoint.heartbeat_interval_s", "endpoint.heartbeat_timeout_s", "<"),
    ("relay.max_sessions_per_peer", "relay.max_sessions", "<="),
    ("relay.bandwidth_per_peer_bytes_per_s", "relay.bandwidth_bytes_per_s", "<="),
    ("limits.handshakes_per_address_per_s", "limits.handshakes_per_prefix_per_s", "<="),
    ("limits.stream_window_bytes", "limits.connection_window_bytes", "<="),
)
"""Pairs of settings of which the first must not exceed (``<=``) or must stay below (``<``) the second."""

_TOGETHER = (
    ("tls.certificate", "tls.private_key"),
    ("tls.private_key", "tls.certificate"),
    ("endpoint.group", "endpoint.user"),
)
"""Pairs of settings of which the first makes no sense without the second."""


_LEVELS_KEY = "log.modules"
"""A flag for this key holds levels as ``config.log_levels`` reads them, of modules or of everything."""


class ConfigurationSyntaxError(ConfigurationError):
    """The file or a ``--set`` value is not TOML; ``key`` is the position, ``value`` the text found there."""

    def __str__(self) -> str:
        return f"{self.source}: {self.key}: not TOML near {self.value!r}: {self.expected}"


@dataclass(frozen=True, slots=True, kw_only=True)
class FlagValue:
    """A setting given by a flag of its own: ``source`` is the flag, ``key`` is ``section.key``."""

    source: str
    key: str
    value: object


@dataclass(slots=True)
class _Draft:
    """Values accepted so far, by ``section.key``, with where each came from and as the how many-th."""

    values: dict[str, object] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    turns: dict[str, int] = field(default_factory=dict)
    count: int = 0

    def put(self, source: str, key: str, value: object) -> None:
        section, _, name = key.partition(".")
        self.values[key] = rules_of(section)[name].accept(source, key, value)
        self.sources[key] = source
        self.count += 1
        self.turns[key] = self.count

    def blame(self, key: str, expected: str) -> ConfigurationError:
        return ConfigurationError(self.sources.get(key, "defaults"), key, self.values[key], expected)


def load_settings(
    path: Path | None,
    *,
    overrides: Sequence[str] = (),
    flags: Sequence[FlagValue] = (),
    environment: Mapping[str, str] | None = None,
    defaults: Settings | None = None,
) -> Settings:
    """
    Read and check the whole configuration.

    Args:
        path: Configuration file, or None for the one that ``ANTQUIC_CONFIG`` names, or none at all.
        overrides: ``section.key=VALUE`` texts of ``--set``, VALUE in TOML syntax.
        flags: Settings that have a flag of their own; ``--set`` wins over them.
        environment: Environment variables; only ``ANTQUIC_CONFIG`` and ``ANTQUIC_LOG`` are looked at.
        defaults: What counts where nothing else is said, ``Settings()`` if None.

    Raises:
        ConfigurationError: Something is wrong; only the first finding is reported, in one line.
    """
    defaults = defaults or Settings()
    draft = _Draft()
    for section in section_types():
        for key in rules_of(section):
            draft.values[f"{section}.{key}"] = getattr(getattr(defaults, section), key)
    named = (environment or {}).get(CONFIG_VARIABLE, "")
    if path is not None:
        _put_file(draft, path, ("command line", "--config"))
    elif named:
        _put_file(draft, Path(named), ("environment", CONFIG_VARIABLE))
    levels = (environment or {}).get(LEVELS_VARIABLE, "")
    if levels:
        _put_levels(draft, parse_levels("environment", LEVELS_VARIABLE, [levels]), "environment")
    for flag in flags:
        if flag.key == _LEVELS_KEY:
            change = parse_levels(flag.source, "log.level", [str(flag.value)], modules_key=_LEVELS_KEY)
            _put_levels(draft, change, flag.source)
        else:
            draft.put(flag.source, flag.key, flag.value)
    for text in overrides:
        _put_override(draft, text)
    _check_together(draft)
    return _build(draft)


def _put_file(draft: _Draft, path: Path, origin: tuple[str, str]) -> None:
    source = str(path)
    for section, table in _read_toml(path, origin).items():
        known = section_types()
        if section not in known:
            expected = "a section, one of " + ", ".join(f"[{name}]" for name in known)
            raise ConfigurationError(source, section, table, _suggest(section, known, "[{}]") or expected)
        if not isinstance(table, dict):
            raise ConfigurationError(source, section, table, f"a table, begun by a line [{section}]")
        for name, value in table.items():
            _check_key(source, section, name, value)
            draft.put(source, f"{section}.{name}", value)


def _put_levels(draft: _Draft, change: LevelChange, source: str) -> None:
    """Take over levels, on top of those that are there."""
    if change.level is not None:
        draft.put(source, "log.level", change.level)
    if change.modules:
        before = draft.values[_LEVELS_KEY]
        # By its rule; said for the type checker.
        assert isinstance(before, dict)
        draft.put(source, _LEVELS_KEY, before | change.modules)


def _put_override(draft: _Draft, text: str) -> None:
    source = "--set"
    key, separator, value_text = text.partition("=")
    key = key.strip()
    section, dot, name = key.partition(".")
    if not (separator and dot and section and name):
        raise ConfigurationError(source, key or "(empty)", text, "section.key=VALUE, like endpoint.workers=4")
    if section not in section_types():
        known = section_types()
        expected = "a section, one of " + ", ".join(known)
        raise ConfigurationError(source, key, value_text, _suggest(section, known, "{}") or expected)
    _check_key(source, section, name, value_text)
    draft.put(source, key, _parse_value(source, key, value_text))


def _check_key(source: str, section: str, name: str, value: object) -> None:
    known = rules_of(section)
    if name not in known:
        near = _suggest(name, known, section + ".{}")
        expected = near or f"a key of [{section}], one of " + ", ".join(known)
        raise ConfigurationError(source, f"{section}.{name}", value, expected)


def _suggest(word: str, known: Mapping[str, object], form: str) -> str | None:
    """What to expect instead of an unknown word, if one of the known is near enough."""
    near = get_close_matches(word.lower(), known, n=1, cutoff=0.6)
    return f"a known name (did you mean {form.format(near[0])}?)" if near else None


def _parse_value(source: str, key: str, text: str) -> object:
    try:
        document = _parse_toml(f"value = {text}")
    except ValueError:
        document = {}
    # More than one entry means that the text held a line break and smuggled in keys of its own.
    if document.keys() != {"value"}:
        quoted = f'{key}="{text}"'
        hint = f" (a string needs quotes: --set '{quoted}')" if re.fullmatch(r"[\w./:-]+", text) else ""
        raise ConfigurationError(source, key, text, f"a value in TOML syntax{hint}")
    return document["value"]


def _parse_toml(text: str) -> dict[str, object]:
    """Parse TOML; raises ValueError for whatever is wrong with it, with tomllib's text and position."""
    try:
        document = tomllib.loads(text)
        # Values are shown in error messages later. TOML's integers have 64 bits, but tomllib reads
        # hexadecimal ones of any length, and Python refuses to print more than 4300 digits.
        repr(document)
    except tomllib.TOMLDecodeError:
        raise
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except ValueError:
        raise ValueError("a number has thousands of digits") from None
    return document


def _read_toml(path: Path, origin: tuple[str, str]) -> dict[str, object]:
    data = _read_file(path, origin)
    source = str(path)
    try:
        # "-sig" because editors on Windows put a byte order mark in front.
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = error.object[: error.start].decode("utf-8")
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        shown = error.object[error.start : error.end].hex()
        raise ConfigurationSyntaxError(
            source, f"line {line}, column {column}", f"0x{shown}", "this is not UTF-8"
        ) from None
    try:
        return _parse_toml(text)
    except ValueError as error:
        raise _syntax_error(source, text, str(error)) from None


def _read_file(path: Path, origin: tuple[str, str]) -> bytes:
    """Read the file; ``origin`` (where the path was given, and by which name) is blamed for a bad one."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "not a path"
        raise ConfigurationError(*origin, str(path), f"a readable file ({reason})") from None
    if len(data) > MAX_FILE_BYTES:
        raise ConfigurationError(*origin, str(path), f"a file of at most {MAX_FILE_BYTES} bytes")
    return data


def _syntax_error(source: str, text: str, message: str) -> ConfigurationSyntaxError:
    """Turn tomllib's ``REASON (at line L, column C)`` or ``REASON (at end of document)`` into one line."""
    lines = text.split("\n")
    found = re.fullmatch(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", message, re.DOTALL)
    reason, line, column = found.groups() if found else (message, None, None)
    if found is None:
        # Ours, without a position: deep nesting and endless numbers make for the longest line of the file.
        line, column = max(range(1, len(lines) + 1), key=lambda number: len(lines[number - 1])), 1
    elif line is None:
        line, column = len(lines), len(lines[-1]) + 1
    shown = " ".join(lines[int(line) - 1].split())[:60]
    reason = " ".join(reason.split())
    return ConfigurationSyntaxError(source, f"line {line}, column {column}", shown, reason[:1].lower() + reason[1:])


def _check_together(draft: _Draft) -> None:
    for low, high, relation in _BEFORE:
        _check_order(draft, low, high, relation)
    for key, needed in _TOGETHER:
        if draft.values[key] and not draft.values[needed]:
            raise draft.blame(key, f"{needed} to be set too")
    host, _ = split_listen_address("defaults", "admin.listen", draft.values["admin.listen"])
    if not (host.is_loopback or draft.values["admin.allow_remote"]):
        loopback = "[::1]" if isinstance(host, IPv6Address) else "127.0.0.1"
        expected = f"a loopback address like {loopback}, or admin.allow_remote = true (it has no password)"
        raise draft.blame("admin.listen", expected)
    modules = draft.values[_LEVELS_KEY]
    # By its rule; said for the type checker.
    assert isinstance(modules, dict)
    check_modules(draft.sources.get(_LEVELS_KEY, "defaults"), _LEVELS_KEY, modules)
    _check_relay_ports(draft)


def _check_relay_ports(draft: _Draft) -> None:
    """
    Ask for a range without the node's own ports, of whoever has chosen it.

    A listen port inside the default range does no harm: no session gets a port that is taken.
    """
    if "relay.port_range" not in draft.turns:
        return
    ports, listen, admin = (draft.values[key] for key in ("relay.port_range", "endpoint.listen", "admin.listen"))
    # By their rules; said for the type checker.
    assert isinstance(ports, tuple)
    assert isinstance(listen, tuple)
    first, last = ports
    for key, address in [*(("endpoint.listen", each) for each in listen), ("admin.listen", admin)]:
        _, port = split_listen_address("defaults", key, address)
        if not first <= port <= last:
            continue
        if draft.turns["relay.port_range"] > draft.turns.get(key, 0):
            raise draft.blame("relay.port_range", f"a range without {port}, the port of {key}")
        raise draft.blame(key, f"a port outside relay.port_range, which is {first} to {last}")


def _check_order(draft: _Draft, low: str, high: str, relation: str) -> None:
    low_value, high_value = draft.values[low], draft.values[high]
    # By their rules; said for the type checker.
    assert isinstance(low_value, int | float)
    assert isinstance(high_value, int | float)
    if low_value < high_value or (relation == "<=" and low_value == high_value):
        return
    if draft.turns.get(high, 0) > draft.turns.get(low, 0):
        bound = "at least" if relation == "<=" else "more than"
        raise draft.blame(high, f"{bound} {low}, which is {low_value}")
    bound = "at most" if relation == "<=" else "less than"
    raise draft.blame(low, f"{bound} {high}, which is {high_value}")


def _build(draft: _Draft) -> Settings:
    sections: dict[str, object] = {}
    for section, section_type in section_types().items():
        values = {key: draft.values[f"{section}.{key}"] for key in rules_of(section)}
        sections[section] = section_type(**values)
    return Settings(**sections)  # type: ignore[arg-type]  # each section was made by the class of its name
