"""Levels as people write them."""

import logging
from importlib import import_module

import pytest

from antquic_server.config.load import FlagValue, load_settings
from antquic_server.config.log_levels import LEVELS_VARIABLE, MAX_LEVELS, known_modules, parse_levels
from antquic_server.errors import ConfigurationError


@pytest.mark.parametrize(
    ("texts", "level", "modules"),
    [
        (["debug"], "debug", {}),
        (["DEBUG"], "debug", {}),
        (["net=debug"], None, {"net": "debug"}),
        (["info,workers.relay=debug"], "info", {"workers.relay": "debug"}),
        ([" info , net.udp = error "], "info", {"net.udp": "error"}),
        (["info", "error", "net=info", "net=debug"], "error", {"net": "debug"}),
        (["antquic_server.net=debug,quic=warning"], None, {"antquic_server.net": "debug", "quic": "warning"}),
    ],
)
def test_levels_of_everything_and_of_modules(texts: list[str], level: str | None, modules: dict[str, str]) -> None:
    """Separated by commas or given one by one; the later wins."""
    change = parse_levels("here", "log", texts)
    assert (change.level, change.modules) == (level, modules)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "here: log = '': expected LEVEL or MODULE=LEVEL, separated by commas, like info,workers.relay=debug"),
        ("info,", "log = '': expected LEVEL or MODULE=LEVEL"),
        ("=debug", "log = '=debug': expected LEVEL or MODULE=LEVEL"),
        ("net=", "log = 'net=': expected LEVEL or MODULE=LEVEL"),
        ("loud", "log = 'loud': expected one of 'debug', 'info', 'warning', 'error', 'critical'"),
        ("net=loud", "log.net = 'loud': expected one of 'debug'"),
        ("net/udp=debug", "log.net/udp = 'debug': expected a module name"),
        ("netz=debug", r"log.netz = 'debug': expected a module that exists \(did you mean net\?\)"),
        ("zzz=debug", "log.zzz = 'debug': expected a module that exists, like net.udp, workers.relay or quic"),
        (",".join(["info"] * (MAX_LEVELS + 1)), "257 levels"),
    ],
)
def test_mistakes_are_told_in_one_line(text: str, complaint: str) -> None:
    """With names that exist where one is near."""
    with pytest.raises(ConfigurationError, match=complaint) as caught:
        parse_levels("here", "log", [text])
    assert "\n" not in str(caught.value)


def test_known_modules_are_those_with_a_logger() -> None:
    """Every module that logs is known, in full and by its short name; what is no module is not."""
    for name in ("antquic_server.supervisor.fleet", "workers.endpoint"):
        assert import_module(name).log is not None
        assert name in known_modules()
    assert {"net", "net.udp", "supervisor.fleet", "workers", "antquic_server"} <= set(known_modules())
    assert not {"", "__init__", "antquic_server.__main__", "tests"} & set(known_modules())


def test_library_may_be_named_below_its_top() -> None:
    """Its loggers are its own business."""
    assert parse_levels("here", "log", ["asyncio.sslproto=error"]).modules == {"asyncio.sslproto": "error"}


def test_environment_comes_between_file_and_flags() -> None:
    """Each adds its modules to those before; --set replaces the whole table, as it does everywhere."""
    environment = {LEVELS_VARIABLE: "warning,net=info,ipc=info"}
    flags = [FlagValue(source="--log-level", key="log.modules", value="error,ipc=debug")]

    only_environment = load_settings(None, environment=environment).log
    with_flags = load_settings(None, environment=environment, flags=flags).log
    overridden = load_settings(
        None, environment=environment, flags=flags, overrides=["log.modules={stats='info'}", "log.level='info'"]
    ).log

    assert (only_environment.level, only_environment.modules) == ("warning", {"net": "info", "ipc": "info"})
    assert (with_flags.level, with_flags.modules) == ("error", {"net": "info", "ipc": "debug"})
    assert (overridden.level, overridden.modules) == ("info", {"stats": "info"})


def test_mistake_in_the_environment_names_the_variable() -> None:
    """An empty one counts as none."""
    with pytest.raises(ConfigurationError, match="environment: ANTQUIC_LOG = 'loud'"):
        load_settings(None, environment={LEVELS_VARIABLE: "loud"})
    assert load_settings(None, environment={LEVELS_VARIABLE: ""}).log.level == "info"


def test_levels_are_those_of_the_standard_library() -> None:
    """Every word means a level there."""
    for word in ("debug", "info", "warning", "error", "critical"):
        assert isinstance(logging.getLevelName(word.upper()), int)
