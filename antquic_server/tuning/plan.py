"""What is to be done: every setting of some topics beside what the kernel has, without changing anything."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from antquic_server.config.model import Settings
from antquic_server.errors import ConfigurationError
from antquic_server.protocol.address import SocketAddress
from antquic_server.tuning.bootfile import BOOT_FILE, values_at_boot
from antquic_server.tuning.catalogue import Setting, Topic
from antquic_server.tuning.kernel import FixedHereError, Kernel, KernelError, NoSuchKeyError
from antquic_server.tuning.modulefile import MODULE, comes_with_module, is_loaded_at_boot
from antquic_server.tuning.record import Record
from antquic_server.tuning.rules import RuleError, RuleKind, normal, port_text, ports_of, target

__all__ = ["FOLLOWED", "Outcome", "Verdict", "choose_topics", "examine", "follow"]

_LEAST_FREE_PORTS = 4096
"""What reserving ports must leave for the outgoing connections of everything else on the machine."""


class Verdict(StrEnum):
    """What is known or was done about one setting, as it is shown."""

    FINE = "fine"
    TO_DO = "to do"
    LOST_AT_BOOT = "lost at boot"
    MISSING = "not there"
    FIXED_HERE = "not from here"
    UNREADABLE = "unreadable"
    CHANGED = "changed"
    FAILED = "failed"
    RESTORED = "restored"
    AS_FOUND = "as found"
    KEPT = "kept"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """
    One setting and what came of it.

    ``now`` is the value before any change, ``wanted`` the one to be written, which is ``now`` where that will do;
    both are empty where there is none. ``asked`` is the rule with its value, ``note`` a sentence for people.
    """

    key: str
    topic: str
    now: str = ""
    wanted: str = ""
    asked: str = ""
    verdict: Verdict
    note: str = ""


def _listen_ports(settings: Settings) -> str:
    ports = {SocketAddress.parse(text).port for text in settings.endpoint.listen}
    return port_text(frozenset(ports - {0}))


def _relay_ports(settings: Settings) -> str:
    first, last = settings.relay.port_range
    return f"{first}-{last}"


FOLLOWED: Mapping[str, Callable[[Settings], str]] = {
    "endpoint.listen": _listen_ports,
    "relay.port_range": _relay_ports,
}
"""Settings of the node that ``follows`` may name, each with the ports that it means."""


def choose_topics(topics: Iterable[Topic], names: Iterable[str]) -> tuple[Topic, ...]:
    """
    Return the topics that are named; those that apply by default if none is.

    Raises:
        ConfigurationError: There is no topic of that name.
    """
    known = {topic.name: topic for topic in topics}
    chosen = list(dict.fromkeys(names))
    for name in chosen:
        if name not in known:
            raise ConfigurationError("command line", "--topic", name, "one of " + ", ".join(known))
    return tuple(topic for topic in known.values() if (topic.name in chosen if chosen else topic.by_default))


def follow(topics: Iterable[Topic], settings: Settings) -> tuple[Topic, ...]:
    """
    Return the topics with the ports of this node's configuration in the place of the default ones.

    Raises:
        ConfigurationError: So many ports would be reserved that the machine could hardly connect to anything.
    """
    followed = []
    for topic in topics:
        theirs = tuple(_followed(setting, settings) for setting in topic.settings)
        ranges = [one.value.split() for one in theirs if one.rule.kind is RuleKind.COVERS]
        reserved = {port for one in theirs if one.rule.kind is RuleKind.INCLUDES for port in ports_of(one.value)}
        for first, last in ranges:
            free = len(set(range(int(first), int(last) + 1)) - reserved)
            if free < _LEAST_FREE_PORTS:
                value = list(settings.relay.port_range)
                expected = f"{_LEAST_FREE_PORTS} ports left from {first} to {last} (--topic leaves out {topic.name})"
                raise ConfigurationError("configuration", "relay.port_range", value, expected)
        followed.append(replace(topic, settings=theirs))
    return tuple(followed)


def _followed(setting: Setting, settings: Settings) -> Setting:
    if not setting.follows:
        return setting
    ports = frozenset(port for name in setting.follows for port in ports_of(FOLLOWED[name](settings)))
    return replace(setting, value=port_text(ports))


def examine(kernel: Kernel, topics: Iterable[Topic], record: Record) -> list[Outcome]:
    """Compare every setting with what the kernel has now and will be told at the next start."""
    boot, is_loaded = values_at_boot(kernel.root), is_loaded_at_boot(kernel.root)
    outcomes = []
    for topic in topics:
        for setting in topic.settings:
            outcome = _examine(kernel, topic, setting)
            if outcome.verdict is Verdict.FINE:
                outcome = _at_boot(kernel.root, outcome, setting, record, boot.get(setting.key))
            outcomes.append(outcome if is_loaded else _without_module(outcome, record))
    return outcomes


def _examine(kernel: Kernel, topic: Topic, setting: Setting) -> Outcome:
    outcome = Outcome(
        key=setting.key, topic=topic.name, wanted=normal(setting.value), asked=_asked(setting), verdict=Verdict.FINE
    )
    try:
        now = kernel.read(setting.key)
        outcome = replace(outcome, now=now)
        aim = target(setting.rule, found=now, wanted=setting.value)
    except NoSuchKeyError as error:
        return replace(outcome, verdict=Verdict.MISSING, note=setting.missing or error.reason)
    except KernelError as error:
        return replace(outcome, verdict=Verdict.UNREADABLE, note=error.reason)
    except RuleError as error:
        return replace(outcome, verdict=Verdict.UNREADABLE, note=str(error))
    if aim is None:
        return replace(outcome, wanted=normal(now))
    outcome = replace(outcome, wanted=aim, verdict=Verdict.TO_DO)
    try:
        kernel.require_writable(setting.key)
    except FixedHereError as error:
        return replace(outcome, verdict=Verdict.FIXED_HERE, note=error.reason)
    except KernelError as error:
        return replace(outcome, verdict=Verdict.UNREADABLE, note=error.reason)
    return outcome


def _asked(setting: Setting) -> str:
    """The rule in words that stand before no other number: ``at least 600``, ``20 to 60``."""
    if setting.rule.kind is RuleKind.RANGE:
        return f"{setting.rule.low} to {setting.rule.high}"
    return f"{setting.rule} {normal(setting.value)}"


def _at_boot(root: Path, outcome: Outcome, setting: Setting, record: Record, boot: tuple[str, Path] | None) -> Outcome:
    """Look whether a value that is fine now will be after the next start, which sets ``boot``."""
    if boot is None:
        if record.entry(setting.key) is None:
            return outcome
        note = f"{root / BOOT_FILE} does not set it"
    else:
        value, path = boot
        try:
            if target(setting.rule, found=value, wanted=setting.value) is None:
                return outcome
        except RuleError:
            pass
        note = f"{path} sets it to {value}"
    return replace(outcome, verdict=Verdict.LOST_AT_BOOT, note=note)


def _without_module(outcome: Outcome, record: Record) -> Outcome:
    """The same where no file has the module loaded before the files for the next start are read."""
    if outcome.verdict is not Verdict.FINE or record.entry(outcome.key) is None or not comes_with_module(outcome.key):
        return outcome
    return replace(outcome, verdict=Verdict.LOST_AT_BOOT, note=f"{MODULE} is not loaded in time to have it set")
