"""
``antquic-server serve``: runs the node.

Flags are settings under another name: each becomes a value with the flag as its source, so that a wrong one
is reported by the same rules, in the same form, as a wrong line of the file.
"""

import argparse
import os
import re
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path

from antquic_server.commands.identity import expand_path, key_path
from antquic_server.config.load import FlagValue, load_settings
from antquic_server.config.model import Settings

__all__ = ["EXAMPLES", "SUMMARY", "add_arguments", "run", "settings_of"]

SUMMARY = "run the node until SIGTERM"

EXAMPLES = """\
examples:
  antquic-server serve
  antquic-server serve --config /etc/antquic-server.toml
  antquic-server serve --listen 127.0.0.1:0 --workers 2 --echo
  antquic-server serve --log-level warning --log-level workers.relay=debug
  antquic-server serve --set limits.half_open_retry_threshold=64 --set 'log.modules={net="debug"}'
  antquic-server serve --check --config /etc/antquic-server.toml

When every slot is served, one JSON line on standard output says so; logs go to standard error.
On SIGHUP the configuration is read again: limits of [relay], levels of [log] and a renewed certificate take effect, the
log says what needs a restart. antquic-server log changes levels without a file.
"""

_FLAG_KEYS = (
    ("--listen", "listen", "endpoint.listen"),
    ("--workers", "workers", "endpoint.workers"),
    ("--identity", "identity", "identity.file"),
    ("--admin", "admin", "admin.listen"),
    ("--log-level", "log_level", "log.modules"),
    ("--keylog", "keylog", "log.keylog"),
)
"""Flag, its name in the parsed arguments, and the setting it stands for."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of ``serve``."""
    parser.add_argument("--config", metavar="FILE", help="TOML file; else $ANTQUIC_CONFIG; else defaults")
    parser.add_argument(
        "--listen",
        metavar="ADDR:PORT",
        action="append",
        help="address to listen on instead of the configured ones; repeatable; port 0 takes a free one",
    )
    parser.add_argument("--workers", metavar="N", help="worker processes; 0 for one per usable CPU")
    parser.add_argument("--identity", metavar="FILE", help="node key, made when it does not exist")
    parser.add_argument("--admin", metavar="ADDR:PORT", help="address of the admin endpoint")
    parser.add_argument(
        "--log-level",
        metavar="[MODULE=]LEVEL",
        action="append",
        help="debug, info, warning, error or critical, for everything or one module; repeatable; adds to $ANTQUIC_LOG",
    )
    parser.add_argument(
        "--keylog", metavar="FILE", help="write TLS secrets, with which Wireshark (and anybody else) reads the traffic"
    )
    parser.add_argument("--echo", action="store_true", help="send back whatever peers send, for tests")
    parser.add_argument("--check", action="store_true", help="only tell whether the node could be configured so")
    parser.add_argument(
        "--set",
        metavar="SECTION.KEY=VALUE",
        action="append",
        default=[],
        dest="overrides",
        help="any setting, VALUE in TOML syntax; repeatable; wins over everything else",
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the node in this process as its supervisor; returns the exit code."""
    settings = settings_of(arguments)
    if arguments.check:
        return _check(settings)

    # Imported only now because they bring cryptography, structlog and asyncio along: a wrong option is to be
    # reported at once, and `status`, which is called every few seconds by monitors, needs none of them.
    from antquic_server.certificates import load_certificate, self_signed_certificate
    from antquic_server.identity import load_or_create_identity
    from antquic_server.logs import configure_logging, get_logger
    from antquic_server.supervisor.loop import run_supervisor

    # The configuration was read just now. Until the supervisor's loop listens to it, this signal would end the process.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    configure_logging(settings.log, process="supervisor", slot=None)
    log = get_logger(__name__)
    identity = load_or_create_identity(key_path(settings.identity.file))
    if identity.too_open:
        log.warning("node key readable by others", path=str(identity.path), advice="chmod 600")
    reload_certificate = None
    if settings.tls.certificate:
        paths = expand_path(settings.tls.certificate), expand_path(settings.tls.private_key)
        reload_certificate = partial(load_certificate, *paths)
        certificate = reload_certificate()
    else:
        certificate = self_signed_certificate("antquic-server")
    return run_supervisor(
        settings,
        identity,
        certificate,
        echo=arguments.echo,
        reload=partial(settings_of, arguments),
        reload_certificate=reload_certificate,
    )


def _check(settings: Settings) -> int:
    """
    Say that the settings can be used, with the files they name; nothing is bound, started or made.

    Raises:
        CannotBootError: The node key is there but cannot be used, or the certificate cannot.
    """
    from antquic_server.certificates import load_certificate
    from antquic_server.identity import load_identity

    path = key_path(settings.identity.file)
    peer = f"peer id {load_identity(path).peer_id.hex()}" if path.exists() else f"a new node key in {path}"
    if settings.tls.certificate:
        load_certificate(expand_path(settings.tls.certificate), expand_path(settings.tls.private_key))
    print(f"the configuration is fine: {', '.join(settings.endpoint.listen)} with {peer}")
    return 0


def settings_of(arguments: argparse.Namespace) -> Settings:
    """
    Make the settings from the file, the flags and ``--set``.

    Raises:
        ConfigurationError: One of them is wrong.
    """
    flags = []
    for flag, name, key in _FLAG_KEYS:
        value = getattr(arguments, name)
        if value is not None:
            if name == "workers":
                value = _plain_integer(value)
            elif name == "log_level":
                value = ",".join(arguments.log_level)
            flags.append(FlagValue(source=flag, key=key, value=value))
    path = None if arguments.config is None else Path(arguments.config)
    settings = load_settings(path, overrides=arguments.overrides, flags=flags, environment=os.environ)
    # Absolute, as workers and other programs are told them.
    log = replace(settings.log, keylog=_absolute(settings.log.keylog))
    return replace(settings, log=log, admin=replace(settings.admin, control=_absolute(settings.admin.control)))


def _absolute(text: str) -> str:
    return str(expand_path(text).absolute()) if text else ""


def _plain_integer(text: str) -> int | str:
    """Return the number that ``text`` writes; anything else stays text for the rule to complain about."""
    return int(text) if re.fullmatch(r"-?[0-9]{1,18}", text) else text
