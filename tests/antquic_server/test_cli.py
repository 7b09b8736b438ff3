"""The command line: one line for every mistake, exit codes, help."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

import antquic_server
from antquic_server import cli
from antquic_server.commands import serve
from antquic_server.identity import create_identity, load_identity

ROOT = Path(antquic_server.__file__).parents[1]

LEVELS = "one of 'debug', 'info', 'warning', 'error', 'critical'"
LISTEN = "ADDRESS:PORT with an IPv4 address or an IPv6 address in brackets"
NO_NAMES = "(host names are not looked up: a node must come up without a resolver)"
COMMANDS = ", ".join(cli.COMMANDS)
URL = "a URL like http://127.0.0.1:10001"
SEE_SERVE = "; see antquic-server serve --help"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """``file`` is written to node.toml and given as --config; ``line`` is what must follow ``error: ``."""

    name: str
    line: str
    file: str | bytes | None = None
    arguments: Sequence[str] = ()
    in_process_only: bool = False

    def argv(self, directory: Path) -> list[str]:
        """Arguments of ``serve``; writes the file into ``directory``, which must be the working directory."""
        if self.file is None:
            return ["serve", *self.arguments]
        content = self.file.encode() if isinstance(self.file, str) else self.file
        (directory / "node.toml").write_bytes(content)
        return ["serve", "--config", "node.toml", *self.arguments]


MISTAKES = [
    # What the file says.
    Mistake(
        name="workers_above_limit",
        file="[endpoint]\nworkers = 65\n",
        line="node.toml: endpoint.workers = 65: expected an integer from 0 to 64",
    ),
    Mistake(
        name="negative_integer",
        file="[endpoint]\nmax_connections = -1\n",
        line="node.toml: endpoint.max_connections = -1: expected an integer from 1 to 1000000",
    ),
    Mistake(
        name="negative_number",
        file="[endpoint]\nidle_timeout_s = -3.5\n",
        line="node.toml: endpoint.idle_timeout_s = -3.5: expected a number from 0.1 to 3600",
    ),
    Mistake(
        name="boolean_for_integer",
        file="[endpoint]\nworkers = true\n",
        line="node.toml: endpoint.workers = True: expected an integer from 0 to 64",
    ),
    Mistake(
        name="boolean_for_number",
        file="[endpoint]\nkeep_alive_s = true\n",
        line="node.toml: endpoint.keep_alive_s = True: expected a number from 0 to 3600",
    ),
    Mistake(
        name="float_for_integer",
        file="[endpoint]\nworkers = 2.0\n",
        line="node.toml: endpoint.workers = 2.0: expected an integer from 0 to 64",
    ),
    Mistake(
        name="text_for_integer",
        file='[pqc]\nmemory_pool_size = "10"\n',
        line="node.toml: pqc.memory_pool_size = '10': expected an integer from 1 to 1000",
    ),
    Mistake(
        name="not_a_number",
        file="[endpoint]\nidle_timeout_s = nan\n",
        line="node.toml: endpoint.idle_timeout_s = nan: expected a number from 0.1 to 3600",
    ),
    Mistake(
        name="infinite_number",
        file="[pqc]\nhandshake_timeout_multiplier = inf\n",
        line="node.toml: pqc.handshake_timeout_multiplier = inf: expected a number from 1 to 10",
    ),
    Mistake(
        name="date_for_number",
        file="[endpoint]\nidle_timeout_s = 2026-01-01\n",
        line="node.toml: endpoint.idle_timeout_s = datetime.date(2026, 1, 1): expected a number from 0.1 to 3600",
        in_process_only=True,
    ),
    Mistake(
        name="integer_for_boolean",
        file="[endpoint]\npin_workers = 1\n",
        line="node.toml: endpoint.pin_workers = 1: expected true or false",
        in_process_only=True,
    ),
    Mistake(
        name="unknown_choice",
        file='[pqc]\nprovider = "openssl"\n',
        line="node.toml: pqc.provider = 'openssl': expected one of 'auto', 'liboqs', 'cryptography'",
    ),
    Mistake(
        name="choice_in_capitals",
        file='[limits]\nretry = "Auto"\n',
        line="node.toml: limits.retry = 'Auto': expected one of 'auto', 'off', 'always'",
        in_process_only=True,
    ),
    Mistake(
        name="unknown_key_of_similar_name",
        file="[endpoint]\nworker = 4\n",
        line="node.toml: endpoint.worker = 4: expected a known name (did you mean endpoint.workers?)",
    ),
    Mistake(
        name="unknown_key",
        file="[pqc]\nzzz = 4\n",
        line="node.toml: pqc.zzz = 4: expected a key of [pqc], one of provider, mode, memory_pool_size, "
        "handshake_timeout_multiplier",
    ),
    Mistake(
        name="unknown_section_of_similar_name",
        file="[endpont]\nworkers = 4\n",
        line="node.toml: endpont = {'workers': 4}: expected a known name (did you mean [endpoint]?)",
    ),
    Mistake(
        name="unknown_section",
        file="[quux]\n",
        line="node.toml: quux = {}: expected a section, one of [endpoint], [pqc], [nat], [mtu], [relay], "
        "[limits], [log], [admin], [tls], [identity]",
    ),
    Mistake(
        name="key_outside_of_any_section",
        file="workers = 4\n",
        line="node.toml: workers = 4: expected a section, one of [endpoint], [pqc], [nat], [mtu], [relay], "
        "[limits], [log], [admin], [tls], [identity]",
        in_process_only=True,
    ),
    Mistake(
        name="section_as_value",
        file='endpoint = "0.0.0.0:1"\n',
        line="node.toml: endpoint = '0.0.0.0:1': expected a table, begun by a line [endpoint]",
        in_process_only=True,
    ),
    Mistake(
        name="line_break_in_key",
        file='[endpoint]\n"a\\nb\\u001b[2J" = 1\n',
        line="node.toml: endpoint.a\\nb\\x1b[2J = 1: expected a key of [endpoint], one of listen, workers, "
        "max_connections, idle_timeout_s, keep_alive_s, alpn, user, group, standby_workers, "
        "heartbeat_interval_s, heartbeat_timeout_s, shutdown_deadline_s, pin_workers",
    ),
    Mistake(
        name="integer_of_5000_digits",
        file="[endpoint]\nworkers = 0x" + "f" * 5000 + "\n",
        line=f"node.toml: line 2, column 1: not TOML near 'workers = 0x{'f' * 48}': a number has thousands of digits",
        in_process_only=True,
    ),
    # Addresses.
    Mistake(
        name="listen_twice_the_same",
        file='[endpoint]\nlisten = ["127.0.0.1:4433", "127.0.0.1:4433"]\n',
        line="node.toml: endpoint.listen[1] = '127.0.0.1:4433': expected an address that does not overlap "
        "'127.0.0.1:4433', listed before it",
    ),
    Mistake(
        name="listen_twice_the_same_in_other_words",
        file='[endpoint]\nlisten = ["[::1]:4433", "[0:0:0:0:0:0:0:1]:4433"]\n',
        line="node.toml: endpoint.listen[1] = '[0:0:0:0:0:0:0:1]:4433': expected an address that does not "
        "overlap '[::1]:4433', listed before it",
        in_process_only=True,
    ),
    Mistake(
        name="listen_below_wildcard",
        file='[endpoint]\nlisten = ["127.0.0.1:4433", "0.0.0.0:4433"]\n',
        line="node.toml: endpoint.listen[1] = '0.0.0.0:4433': expected an address that does not overlap "
        "'127.0.0.1:4433', listed before it",
        in_process_only=True,
    ),
    Mistake(
        name="listen_empty",
        file="[endpoint]\nlisten = []\n",
        line="node.toml: endpoint.listen = []: expected a list of 1 to 8 strings like '0.0.0.0:10000'",
    ),
    Mistake(
        name="listen_not_a_list",
        file='[endpoint]\nlisten = "127.0.0.1:4433"\n',
        line="node.toml: endpoint.listen = '127.0.0.1:4433': expected a list of 1 to 8 strings like '0.0.0.0:10000'",
    ),
    Mistake(
        name="port_too_great",
        file='[endpoint]\nlisten = ["127.0.0.1:70000"]\n',
        line="node.toml: endpoint.listen[0] = '127.0.0.1:70000': expected a port from 0 to 65535 after the last colon",
    ),
    Mistake(
        name="port_missing",
        file='[endpoint]\nlisten = ["127.0.0.1"]\n',
        line=f"node.toml: endpoint.listen[0] = '127.0.0.1': expected {LISTEN}",
    ),
    Mistake(
        name="port_negative",
        file='[endpoint]\nlisten = ["127.0.0.1:-1"]\n',
        line="node.toml: endpoint.listen[0] = '127.0.0.1:-1': expected a port from 0 to 65535 after the last colon",
        in_process_only=True,
    ),
    Mistake(
        name="address_impossible",
        file='[endpoint]\nlisten = ["256.0.0.1:4433"]\n',
        line=f"node.toml: endpoint.listen[0] = '256.0.0.1:4433': expected {LISTEN}",
    ),
    Mistake(
        name="host_name",
        file='[endpoint]\nlisten = ["node.example:4433"]\n',
        line=f"node.toml: endpoint.listen[0] = 'node.example:4433': expected {LISTEN} {NO_NAMES}",
    ),
    Mistake(
        name="ipv6_without_brackets",
        file='[endpoint]\nlisten = ["::1:4433"]\n',
        line=f"node.toml: endpoint.listen[0] = '::1:4433': expected {LISTEN}",
        in_process_only=True,
    ),
    Mistake(
        name="ipv6_with_zone",
        file='[endpoint]\nlisten = ["[fe80::1%eth0]:4433"]\n',
        line="node.toml: endpoint.listen[0] = '[fe80::1%eth0]:4433': expected an IPv6 address that is neither "
        "IPv4-mapped nor has a zone",
        in_process_only=True,
    ),
    Mistake(
        name="multicast_address",
        file='[endpoint]\nlisten = ["224.0.0.1:4433"]\n',
        line="node.toml: endpoint.listen[0] = '224.0.0.1:4433': expected a unicast address, or 0.0.0.0 or [::] for all",
        in_process_only=True,
    ),
    Mistake(
        name="admin_reachable_by_others",
        file='[admin]\nlisten = "0.0.0.0:10001"\n',
        line="node.toml: admin.listen = '0.0.0.0:10001': expected a loopback address like 127.0.0.1, or "
        "admin.allow_remote = true (it has no password)",
    ),
    Mistake(
        name="public_address_is_a_name",
        file='[relay]\npublic_address = "relay.example"\n',
        line="node.toml: relay.public_address = 'relay.example': expected an IPv4 or IPv6 address without port, "
        f"or an empty string {NO_NAMES}",
        in_process_only=True,
    ),
    Mistake(
        name="network_with_host_bits",
        file='[relay]\ndenied_targets = ["192.0.2.1/24"]\n',
        line="node.toml: relay.denied_targets[0] = '192.0.2.1/24': expected a network like '198.51.100.0/24' or "
        "'2001:db8::/32', no bits set after the prefix (did you mean '192.0.2.0/24'?)",
        in_process_only=True,
    ),
    Mistake(
        name="port_range_backwards",
        file="[relay]\nport_range = [50000, 49152]\n",
        line="node.toml: relay.port_range = [50000, 49152]: expected [first, last] with ports from 1024 to 65535, "
        "the first not above the last",
    ),
    # Settings that contradict each other.
    Mistake(
        name="mtu_min_above_max",
        file="[mtu]\nmin = 1400\nmax = 1300\n",
        line="node.toml: mtu.max = 1300: expected at least mtu.min, which is 1400",
    ),
    Mistake(
        name="mtu_min_above_default_max",
        file="[mtu]\nmin = 1500\n",
        line="node.toml: mtu.min = 1500: expected at most mtu.max, which is 1452",
        in_process_only=True,
    ),
    Mistake(
        name="keep_alive_slower_than_idle_timeout",
        file="[endpoint]\nidle_timeout_s = 10\n",
        line="node.toml: endpoint.idle_timeout_s = 10.0: expected more than endpoint.keep_alive_s, which is 15.0",
        in_process_only=True,
    ),
    Mistake(
        name="contradiction_between_file_and_set",
        file="[mtu]\nmax = 1300\n",
        arguments=["--set", "mtu.initial=1400"],
        line="--set: mtu.initial = 1400: expected at most mtu.max, which is 1300",
    ),
    Mistake(
        name="certificate_without_key",
        file='[tls]\ncertificate = "node.pem"\n',
        line="node.toml: tls.certificate = 'node.pem': expected tls.private_key to be set too",
    ),
    Mistake(
        name="key_without_certificate",
        file='[tls]\nprivate_key = "node.key"\n',
        line="node.toml: tls.private_key = 'node.key': expected tls.certificate to be set too",
        in_process_only=True,
    ),
    Mistake(
        name="group_without_user",
        file='[endpoint]\ngroup = "nogroup"\n',
        line="node.toml: endpoint.group = 'nogroup': expected endpoint.user to be set too",
        in_process_only=True,
    ),
    # Log levels.
    Mistake(
        name="unknown_log_level",
        file='[log]\nlevel = "loud"\n',
        line=f"node.toml: log.level = 'loud': expected {LEVELS}",
    ),
    Mistake(
        name="unknown_log_level_of_module",
        file='[log.modules]\nquic = "loud"\n',
        line=f"node.toml: log.modules.quic = 'loud': expected {LEVELS}",
    ),
    Mistake(
        name="unknown_log_level_of_nested_module",
        file="[log.modules]\nantquic_server.net.udp = 10\n",
        line=f"node.toml: log.modules.antquic_server.net.udp = 10: expected {LEVELS}",
        in_process_only=True,
    ),
    # The file itself.
    Mistake(
        name="syntax_error",
        file="[endpoint]\n\nworkers = = 4\n",
        line="node.toml: line 3, column 11: not TOML near 'workers = = 4': invalid value",
    ),
    Mistake(
        name="syntax_error_at_the_end",
        file='[endpoint]\nlisten = ["127.0.0.1:1",',
        line="node.toml: line 2, column 25: not TOML near 'listen = [\"127.0.0.1:1\",': invalid value",
        in_process_only=True,
    ),
    Mistake(
        name="key_given_twice",
        file="[endpoint]\nworkers = 1\nworkers = 2\n",
        line="node.toml: line 3, column 12: not TOML near 'workers = 2': cannot overwrite a value",
        in_process_only=True,
    ),
    Mistake(
        name="nested_without_end",
        file="a = " + "[" * 100_000,
        line=f"node.toml: line 1, column 1: not TOML near 'a = {'[' * 56}': nested too deeply",
        in_process_only=True,
    ),
    Mistake(
        name="not_utf_8",
        file=b"[log]\nlevel = '\xff'\n",
        line="node.toml: line 2, column 10: not TOML near '0xff': this is not UTF-8",
    ),
    Mistake(
        name="too_long",
        file="#" * (1 << 20) + "\n",
        line="command line: --config = 'node.toml': expected a file of at most 1048576 bytes",
        in_process_only=True,
    ),
    Mistake(
        name="file_missing",
        arguments=["--config", "absent.toml"],
        line="command line: --config = 'absent.toml': expected a readable file (No such file or directory)",
    ),
    Mistake(
        name="file_is_a_directory",
        arguments=["--config", "."],
        line="command line: --config = '.': expected a readable file (Is a directory)",
    ),
    # Flags.
    Mistake(
        name="workers_flag_not_a_number",
        arguments=["--workers", "abc"],
        line="--workers: endpoint.workers = 'abc': expected an integer from 0 to 64",
    ),
    Mistake(
        name="workers_flag_negative",
        arguments=["--workers", "-1"],
        line="--workers: endpoint.workers = -1: expected an integer from 0 to 64",
    ),
    Mistake(
        name="listen_flag_host_name",
        arguments=["--listen", "127.0.0.1:0", "--listen", "localhost:0"],
        line=f"--listen: endpoint.listen[1] = 'localhost:0': expected {LISTEN} {NO_NAMES}",
    ),
    Mistake(
        name="admin_flag_reachable_by_others",
        arguments=["--admin", "[::]:10001"],
        line="--admin: admin.listen = '[::]:10001': expected a loopback address like [::1], or "
        "admin.allow_remote = true (it has no password)",
        in_process_only=True,
    ),
    Mistake(
        name="log_level_flag_of_a_module_that_does_not_exist",
        arguments=["--log-level", "info", "--log-level", "nets=debug"],
        line="--log-level: log.modules.nets = 'debug': expected a module that exists (did you mean net?)",
        in_process_only=True,
    ),
    Mistake(
        name="module_that_does_not_exist",
        file='[log.modules]\nsupervisr = "debug"\n',
        line="node.toml: log.modules.supervisr = 'debug': expected a module that exists (did you mean supervisor?)",
        in_process_only=True,
    ),
    Mistake(
        name="log_level_flag",
        arguments=["--log-level", "verbose"],
        line=f"--log-level: log.level = 'verbose': expected {LEVELS}",
        in_process_only=True,
    ),
    Mistake(
        name="unknown_flag",
        arguments=["--frobnicate"],
        line=f"command line: unknown option '--frobnicate'{SEE_SERVE}",
    ),
    Mistake(
        name="unknown_flag_of_similar_name",
        arguments=["--worker=3"],
        line=f"command line: unknown option '--worker' (did you mean --workers?){SEE_SERVE}",
    ),
    Mistake(
        name="flag_without_its_argument",
        arguments=["--workers"],
        line=f"command line: argument --workers: expected one argument{SEE_SERVE}",
    ),
    Mistake(
        name="superfluous_argument",
        arguments=["now"],
        line=f"command line: unknown argument 'now'{SEE_SERVE}",
        in_process_only=True,
    ),
    # --set.
    Mistake(
        name="set_out_of_range",
        arguments=["--set", "endpoint.workers=65"],
        line="--set: endpoint.workers = 65: expected an integer from 0 to 64",
    ),
    Mistake(
        name="set_without_value",
        arguments=["--set", "endpoint.workers"],
        line="--set: endpoint.workers = 'endpoint.workers': expected section.key=VALUE, like endpoint.workers=4",
    ),
    Mistake(
        name="set_without_section",
        arguments=["--set", "workers=4"],
        line="--set: workers = 'workers=4': expected section.key=VALUE, like endpoint.workers=4",
        in_process_only=True,
    ),
    Mistake(
        name="set_of_text_without_quotes",
        arguments=["--set", "log.level=debug"],
        line="--set: log.level = 'debug': expected a value in TOML syntax (a string needs quotes: "
        "--set 'log.level=\"debug\"')",
    ),
    Mistake(
        name="set_with_hidden_line_break",
        arguments=["--set", "endpoint.workers=4\nmax_connections=1"],
        line="--set: endpoint.workers = '4\\nmax_connections=1': expected a value in TOML syntax",
        in_process_only=True,
    ),
    Mistake(
        name="set_of_unknown_key",
        arguments=["--set", "limits.retri='off'"],
        line="--set: limits.retri = \"'off'\": expected a known name (did you mean limits.retry?)",
    ),
    Mistake(
        name="set_of_unknown_section",
        arguments=["--set", "endpoints.workers=4"],
        line="--set: endpoints.workers = '4': expected a known name (did you mean endpoint?)",
        in_process_only=True,
    ),
]


@pytest.fixture(autouse=True)
def _no_configuration_around(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep the machine's own configuration out, and let relative paths be those of the test."""
    monkeypatch.delenv("ANTQUIC_CONFIG", raising=False)
    monkeypatch.delenv("ANTQUIC_LOG", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def _no_node_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a mistake that goes unnoticed fail the test instead of starting a node in it."""

    def fail(configured: str) -> Path:
        raise AssertionError("the mistake was not noticed")

    monkeypatch.setattr(serve, "key_path", fail)


def _run(argv: Sequence[str], **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    command = [sys.executable, "-m", "antquic_server", *argv]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)


@pytest.mark.usefixtures("_no_node_starts")
@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_mistake_is_one_line(mistake: Mistake, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every mistake gives exactly its line, naming source, key, value and expectation, and exit code 2."""
    exit_code = cli.main(mistake.argv(tmp_path))

    printed = capsys.readouterr()
    assert printed.err == f"antquic-server: error: {mistake.line}\n"
    assert printed.out == ""
    assert exit_code == 2


@pytest.mark.parametrize(
    "mistake",
    [mistake for mistake in MISTAKES if not mistake.in_process_only],
    ids=lambda mistake: mistake.name,
)
def test_process_reports_mistake_and_exits(mistake: Mistake, tmp_path: Path) -> None:
    """A real process prints the line and nothing else, and ends with 2."""
    result = _run(mistake.argv(tmp_path))

    assert result.stderr == f"antquic-server: error: {mistake.line}\n"
    assert result.stdout == ""
    assert result.returncode == 2


def test_tables_are_large_enough() -> None:
    """The tables do not shrink unnoticed, and no two entries share a name."""
    assert len(MISTAKES) >= 60
    assert sum(not mistake.in_process_only for mistake in MISTAKES) >= 35
    assert len({mistake.name for mistake in MISTAKES}) == len(MISTAKES)


def test_environment_variable_names_the_file(tmp_path: Path) -> None:
    """ANTQUIC_CONFIG is used when --config is absent, and blamed for a file that is not there."""
    (tmp_path / "node.toml").write_text("[endpoint]\nworkers = 65\n")

    bad_value = _run(["serve"], ANTQUIC_CONFIG="node.toml")
    missing = _run(["serve"], ANTQUIC_CONFIG="absent.toml")

    assert bad_value.returncode == missing.returncode == 2
    assert bad_value.stderr == (
        "antquic-server: error: node.toml: endpoint.workers = 65: expected an integer from 0 to 64\n"
    )
    assert missing.stderr == (
        "antquic-server: error: environment: ANTQUIC_CONFIG = 'absent.toml': expected a readable file "
        "(No such file or directory)\n"
    )


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        ([], f"no command given, expected one of {COMMANDS}; see antquic-server --help"),
        (["srve"], f"command = 'srve': expected one of {COMMANDS} (did you mean serve?)"),
        (["frobnicate"], f"command = 'frobnicate': expected one of {COMMANDS}"),
        (["--verison"], "unknown option '--verison' (did you mean --version?); see antquic-server --help"),
        (["--verison", "serve"], "unknown option '--verison'; see antquic-server serve --help"),
        (
            ["identity"],
            "the following arguments are required: show|new; see antquic-server identity --help",
        ),
        (["identity", "delete"], "identity = 'delete': expected show or new"),
        (["status", "--admin", "ftp://x:1"], f"--admin = 'ftp://x:1': expected {URL}"),
        (
            ["status", "--jsno"],
            "unknown option '--jsno' (did you mean --json?); see antquic-server status --help",
        ),
        (["bench", "--option", "fast"], "--option = 'fast': expected KEY=VALUE"),
    ],
)
def test_wrong_command_line_is_one_line(argv: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Commands other than serve report mistakes in the same way."""
    assert cli.main(argv) == 2
    printed = capsys.readouterr()
    assert printed.err == f"antquic-server: error: command line: {line}\n"
    assert printed.out == ""


@pytest.mark.parametrize("argv", [["--help"], *([name, "--help"] for name in cli.COMMANDS)])
def test_help_has_examples(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Help goes to standard output, shows how a command is used, and is no failure."""
    with pytest.raises(SystemExit) as exit_:
        cli.main(argv)

    printed = capsys.readouterr()
    assert exit_.value.code == 0
    assert "examples:\n  antquic-server" in printed.out
    assert printed.err == ""


def test_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    """--version prints the package's version."""
    with pytest.raises(SystemExit) as exit_:
        cli.main(["--version"])

    assert exit_.value.code == 0
    assert capsys.readouterr().out == f"antquic-server {antquic_server.__version__}\n"


def test_interrupt_is_quiet(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Ctrl-C leaves no traceback and gives the exit code that shells expect."""

    def interrupt(host: str, port: int) -> dict[str, object]:
        raise KeyboardInterrupt

    monkeypatch.setattr("antquic_server.commands.status.fetch_status", interrupt)

    assert cli.main(["status"]) == 130
    assert capsys.readouterr().err == ""


def test_closed_pipe_is_quiet(tmp_path: Path) -> None:
    """A reader that goes away, as in ``status | head``, leaves no traceback."""
    key = tmp_path / "node.pem"
    read_end, write_end = os.pipe()
    os.close(read_end)
    result = subprocess.run(
        [sys.executable, "-m", "antquic_server", "identity", "new", "--file", str(key)],
        stdout=write_end,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=60,
        check=False,
    )
    os.close(write_end)

    assert result.stderr == b""
    assert result.returncode == 1
    assert key.exists()


def _shell(command: str) -> subprocess.CompletedProcess[str]:
    """Run a command line in which ``$NODE`` is the program."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NODE": f"{sys.executable} -m antquic_server"}
    environment.pop("PYTHONUNBUFFERED", None)
    return subprocess.run(
        ["sh", "-c", command], capture_output=True, text=True, env=environment, timeout=60, check=False
    )


@pytest.mark.parametrize(
    ("environment", "command"),
    [("", "identity show --file"), ("PYTHONUNBUFFERED=1", "identity show --file"), ("", "--version"), ("", "--help")],
)
def test_output_to_a_full_disk_is_one_line(environment: str, command: str, tmp_path: Path) -> None:
    """And exit code 1, however little it was, and although the interpreter tries once more at its end."""
    path = tmp_path / "node.pem"
    create_identity(path)
    result = _shell(f"{environment} $NODE {command} {path if command.endswith('--file') else ''} >/dev/full")

    assert result.stderr == "antquic-server: error: cannot write to standard output: No space left on device\n"
    assert result.returncode == 1


@pytest.mark.parametrize("closed", [">&-", "<&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_descriptors_lead_to_nowhere(closed: str, tmp_path: Path) -> None:
    """What would be printed is not; files that are opened meanwhile do not get it either."""
    path = tmp_path / "node.pem"
    result = _shell(f"$NODE identity new --file '{path}' {closed}")

    assert (result.returncode, result.stderr) == (0, "")
    assert load_identity(path).peer_id.hex() in result.stdout or ">&-" in closed.split()
    wrong = _shell(f"$NODE identity show --file '{tmp_path / 'none.pem'}' {closed}")
    assert wrong.returncode == 3
    assert wrong.stderr.count("\n") == (0 if "2>&-" in closed else 1)


def test_children_get_what_the_closed_descriptors_have_become() -> None:
    """Workers write to them, and must not find them closed in turn."""
    check = "import os; [os.fstat(number) for number in range(3)]"
    script = (
        "import subprocess, sys; from antquic_server.cli import main; main(['serve', '--workers', 'x']); "
        f"sys.exit(subprocess.call([sys.executable, '-c', {check!r}]))"
    )
    assert _shell(f'{sys.executable} -c "{script}" <&- >&- 2>&-').returncode == 0


def test_error_that_nobody_can_be_told_keeps_its_exit_code() -> None:
    """Standard error is full."""
    assert _shell("$NODE serve --workers x 2>/dev/full").returncode == 2


def test_configuration_is_checked_before_anything_heavy_is_loaded() -> None:
    """A wrong option is answered without importing cryptography, aioquic, structlog or asyncio."""
    script = (
        "import json, sys; from antquic_server.cli import main; main(['serve', '--workers', 'x']); "
        "print(json.dumps(sorted(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=60,
        check=True,
    )

    loaded = set(json.loads(result.stdout))
    assert not loaded & {"cryptography", "aioquic", "structlog", "asyncio", "uvloop", "psutil", "oqs"}
