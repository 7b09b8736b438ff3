"""
``antquic-server status``: asks a running node what it is doing.

The answer is the JSON of ``/status`` on the admin endpoint::

    node       peer_id, uptime_s, version, workers, listen, pqc_provider, draining
    workers    one object per slot: pid, generation, state, CPU, memory, connections, loop lag, heartbeat age
    totals     counters and gauges summed over all workers, keys as in ``stats.counters``
    directory  peers, connections
    relay      sessions, delivered bytes, introductions, refusals, canaries, quota, limits
    talkers    the peers that move the most bytes
"""

import argparse
import http.client
import json
import os
import time
from urllib.parse import urlsplit

from antquic_server.commands.status_figures import Answer
from antquic_server.commands.status_text import render_status
from antquic_server.config.load import load_settings
from antquic_server.config.rules import split_listen_address
from antquic_server.errors import AdminUnreachableError, ConfigurationError

__all__ = ["EXAMPLES", "SUMMARY", "add_arguments", "admin_url", "chosen_admin", "fetch_status", "run"]

SUMMARY = "show what a running node is doing"

EXAMPLES = """\
examples:
  antquic-server status
  antquic-server status --rates
  antquic-server status --json
  antquic-server status --admin http://127.0.0.1:10001

Without --admin: the admin address of the configuration ($ANTQUIC_CONFIG).
"""

TIMEOUT_S = 5.0
"""For connecting and for each read. The supervisor answers from memory, so a node this slow is in trouble."""

RATES_S = 1.0
"""Four heartbeats at their default interval."""

MAX_ANSWER_BYTES = 1 << 22
"""64 workers of about 500 bytes and some hundred counters are 60 kB."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of ``status``."""
    parser.add_argument("--json", action="store_true", help="print the node's answer as it came")
    parser.add_argument("--rates", action="store_true", help="ask twice, a second apart, and show rates as well")
    parser.add_argument("--admin", metavar="URL", help="admin endpoint, like http://127.0.0.1:10001")


def run(arguments: argparse.Namespace) -> int:
    """Print the status of a node; returns the exit code."""
    host, port = chosen_admin(arguments.admin)
    before = None
    if arguments.rates:
        before = Answer(document=fetch_status(host, port), at_s=time.monotonic())
        time.sleep(RATES_S)
    status = fetch_status(host, port)
    now = Answer(document=status, at_s=time.monotonic())
    print(json.dumps(status, indent=2) if arguments.json else render_status(now, before))
    return 0


def chosen_admin(option: str | None) -> tuple[str, int]:
    """Return host and port of ``--admin``, or of the configuration where that was not given."""
    return admin_url(option) if option is not None else _configured_admin()


def admin_url(text: str) -> tuple[str, int]:
    """
    Split ``http://HOST:PORT`` (the scheme may be missing) into host and port.

    Raises:
        ConfigurationError: It is something else.
    """
    expected = "a URL like http://127.0.0.1:10001"
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ConfigurationError("command line", "--admin", text, expected) from None
    extra = parts.path.strip("/") or parts.query or parts.fragment or parts.username
    if parts.scheme != "http" or not host or not port or extra or not text.isprintable() or " " in text:
        raise ConfigurationError("command line", "--admin", text, expected)
    return host, port


def fetch_status(host: str, port: int) -> dict[str, object]:
    """
    Ask the node at ``host``, ``port`` for its status.

    Raises:
        AdminUnreachableError: Nobody answers there, or somebody who is not a node.
    """
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/status", headers={"Accept": "application/json"})
        response = connection.getresponse()
        body = response.read(MAX_ANSWER_BYTES + 1)
    except TimeoutError:
        raise AdminUnreachableError(url, f"no answer within {TIMEOUT_S:g} s") from None
    except OSError as error:
        raise AdminUnreachableError(url, error.strerror or type(error).__name__) from None
    except UnicodeError:
        raise AdminUnreachableError(url, "not a host name") from None
    except http.client.HTTPException:
        raise AdminUnreachableError(url, "what answers there does not speak HTTP") from None
    finally:
        connection.close()
    if response.status != http.client.OK:
        raise AdminUnreachableError(url, f"what answers there is no node (HTTP status {response.status})")
    try:
        status = json.loads(body)
    except (ValueError, RecursionError):
        status = None
    if not _is_status(status):
        raise AdminUnreachableError(url, "what answers there is no node (not a node's status)")
    return dict(status)


def _is_status(status: object) -> bool:
    """Whether the answer has the sections of a status; missing keys inside them are shown as unknown."""
    if not isinstance(status, dict):
        return False
    tables = all(isinstance(status.get(name), dict) for name in ("node", "totals", "directory"))
    workers = status.get("workers")
    return tables and isinstance(workers, list) and all(isinstance(worker, dict) for worker in workers)


def _configured_admin() -> tuple[str, int]:
    """Host and port of the admin endpoint that the configuration names; ConfigurationError if no fixed port is."""
    listen = load_settings(None, environment=os.environ).admin.listen
    address, port = split_listen_address("configuration", "admin.listen", listen)
    if port == 0:
        expected = "a fixed port, or --admin with the URL that the node's ready line names"
        raise ConfigurationError("configuration", "admin.listen", listen, expected)
    if address.is_unspecified:
        return ("::1" if address.version == 6 else "127.0.0.1"), port
    return str(address), port
