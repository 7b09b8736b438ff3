"""``serve``: from flags to settings, and what the supervisor is started with. Mistakes are tabled in test_cli."""

import argparse
import logging
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import structlog

import antquic_server.supervisor
from antquic_server import cli
from antquic_server.certificates import self_signed_certificate
from antquic_server.commands import serve
from antquic_server.config.model import Settings
from antquic_server.errors import CertificateError, ConfigurationError
from antquic_server.identity import create_identity


class _FakeSupervisor(ModuleType):
    """Records what a supervisor would be started with."""

    def __init__(self) -> None:
        super().__init__("antquic_server.supervisor.loop")
        self.calls: list[tuple[Any, Any, Any, bool]] = []
        self.hangups: list[object] = []
        self.reloads: list[Callable[[], Settings]] = []
        self.certificates: list[Callable[[], tuple[bytes, bytes]] | None] = []

    def run_supervisor(
        self,
        settings: Any,
        identity: Any,
        certificate: Any,
        *,
        echo: bool,
        reload: Callable[[], Settings],
        reload_certificate: Callable[[], tuple[bytes, bytes]] | None,
    ) -> int:
        self.calls.append((settings, identity, certificate, echo))
        self.reloads.append(reload)
        self.certificates.append(reload_certificate)
        self.hangups.append(signal.getsignal(signal.SIGHUP))
        return 5


@pytest.fixture
def supervisor(monkeypatch: pytest.MonkeyPatch) -> Iterator[_FakeSupervisor]:
    """A supervisor that returns at once; logging is put back afterwards."""
    fake = _FakeSupervisor()
    monkeypatch.delenv("ANTQUIC_CONFIG", raising=False)
    monkeypatch.setitem(sys.modules, fake.__name__, fake)
    monkeypatch.setattr(antquic_server.supervisor, "loop", fake, raising=False)
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    hangup = signal.getsignal(signal.SIGHUP)
    yield fake
    signal.signal(signal.SIGHUP, hangup)
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def _settings(*argv: str) -> Settings:
    parser = argparse.ArgumentParser()
    serve.add_arguments(parser)
    return serve.settings_of(parser.parse_args(argv))


def test_flags_are_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each flag stands for its setting; --listen replaces the configured list; --set wins."""
    monkeypatch.delenv("ANTQUIC_CONFIG", raising=False)
    settings = _settings(
        "--listen", "127.0.0.1:1", "--listen", "[::1]:1", "--workers", "3", "--identity", "k.pem", "--admin",
        "127.0.0.1:2", "--log-level", "debug", "--set", "endpoint.workers=4",
    )  # fmt: skip

    assert settings.endpoint.listen == ("127.0.0.1:1", "[::1]:1")
    assert settings.endpoint.workers == 4
    assert settings.identity.file == "k.pem"
    assert settings.admin.listen == "127.0.0.1:2"
    assert settings.log.level == "debug"
    assert _settings() == Settings()


def test_supervisor_gets_settings_key_and_certificate(supervisor: _FakeSupervisor, tmp_path: Path) -> None:
    """The first start makes the node key; the second finds it; each makes its own certificate."""
    argv = ["serve", "--identity", str(tmp_path / "node.pem"), "--workers", "2"]

    assert cli.main([*argv, "--echo"]) == 5
    assert cli.main(argv) == 5
    (settings, identity, certificate, echo), (_, identity_again, certificate_again, echo_again) = supervisor.calls
    assert settings.endpoint.workers == 2
    assert identity.peer_id == identity_again.peer_id
    assert certificate[0].startswith(b"-----BEGIN CERTIFICATE-----")
    assert certificate != certificate_again
    assert (echo, echo_again) == (True, False)


def test_configured_certificate_is_used(supervisor: _FakeSupervisor, tmp_path: Path) -> None:
    """With [tls] set, clients see that certificate."""
    certificate_pem, key_pem = self_signed_certificate("node.example")
    (tmp_path / "c.pem").write_bytes(certificate_pem)
    (tmp_path / "k.pem").write_bytes(key_pem)
    argv = ["serve", "--identity", str(tmp_path / "node.pem")]
    argv += ["--set", f"tls.certificate='{tmp_path / 'c.pem'}'", "--set", f"tls.private_key='{tmp_path / 'k.pem'}'"]

    assert cli.main(argv) == 5
    assert supervisor.calls[0][2] == (certificate_pem, key_pem)


def test_missing_certificate_cannot_boot(
    supervisor: _FakeSupervisor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A certificate that cannot be read ends the start with 3 and one line, before any socket is bound."""
    argv = ["serve", "--identity", str(tmp_path / "node.pem")]
    argv += ["--set", f"tls.certificate='{tmp_path / 'c.pem'}'", "--set", f"tls.private_key='{tmp_path / 'k.pem'}'"]

    assert cli.main(argv) == 3
    printed = capsys.readouterr().err
    assert "c.pem" in printed
    assert printed.count("\n") == 1
    assert supervisor.calls == []


def test_readable_key_is_a_warning(
    supervisor: _FakeSupervisor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A key that others can read works, and is complained about."""
    path = tmp_path / "node.pem"
    assert cli.main(["identity", "new", "--file", str(path)]) == 0
    path.chmod(0o644)

    assert cli.main(["serve", "--identity", str(path)]) == 5
    printed = capsys.readouterr().err
    assert "node key readable by others" in printed
    assert str(path) in printed


def test_configuration_can_be_read_again(supervisor: _FakeSupervisor, tmp_path: Path) -> None:
    """The same file and the same flags, as they are then."""
    path = tmp_path / "node.toml"
    path.write_text("[relay]\nmax_sessions = 50\n")
    argv = ["serve", "--config", str(path), "--identity", str(tmp_path / "node.pem"), "--set", "relay.burst_s=2"]
    assert cli.main(argv) == 5
    path.write_text("[relay]\nmax_sessions = 60\nburst_s = 3\n")

    relay = supervisor.reloads[0]().relay
    assert (relay.max_sessions, relay.burst_s) == (60, 2.0)
    path.write_text("[relay]\nmax_sessions = 0\n")
    with pytest.raises(ConfigurationError, match="max_sessions"):
        supervisor.reloads[0]()


def test_certificate_can_be_read_again(supervisor: _FakeSupervisor, tmp_path: Path) -> None:
    """One of the operator's, whatever it is then; one of the node's own making is no file."""
    identity = ["--identity", str(tmp_path / "node.pem")]
    paths = [tmp_path / "certificate.pem", tmp_path / "key.pem"]

    def write() -> tuple[bytes, bytes]:
        pair = self_signed_certificate("renewed")
        for path, content in zip(paths, pair, strict=True):
            path.write_bytes(content)
        return pair

    first = write()
    settings = [f"tls.certificate='{paths[0]}'", f"tls.private_key='{paths[1]}'"]
    assert cli.main(["serve", *identity, "--set", settings[0], "--set", settings[1]]) == 5
    assert supervisor.calls[0][2] == first
    read = supervisor.certificates[0]
    assert read is not None
    assert read() == first
    second = write()
    assert read() == second != first
    paths[1].write_bytes(b"garbage")
    with pytest.raises(CertificateError, match="not a PEM private key"):
        read()

    assert cli.main(["serve", *identity]) == 5
    assert supervisor.certificates[1] is None


def test_hangup_does_not_end_a_node_that_still_starts(supervisor: _FakeSupervisor, tmp_path: Path) -> None:
    """It means to read the configuration again, which a node that starts does anyway."""
    assert cli.main(["serve", "--identity", str(tmp_path / "node.pem")]) == 5
    assert supervisor.hangups == [signal.SIG_IGN]


def test_check_starts_nothing_and_makes_nothing(
    supervisor: _FakeSupervisor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line says where the node would listen; a missing key is no mistake, and stays missing."""
    path = tmp_path / "node.pem"
    assert cli.main(["serve", "--check", "--identity", str(path), "--listen", "127.0.0.1:7"]) == 0

    line = capsys.readouterr().out
    assert line == f"the configuration is fine: 127.0.0.1:7 with a new node key in {path}\n"
    assert supervisor.calls == []
    assert list(tmp_path.iterdir()) == []


def test_check_names_the_peer_id_of_the_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """So that whoever deploys sees that the node stays itself."""
    path = tmp_path / "node.pem"
    identity = create_identity(path)
    assert cli.main(["serve", "--check", "--identity", str(path)]) == 0

    assert f"peer id {identity.peer_id.hex()}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("lines", "code", "words"),
    [
        ('[endpoint]\nworkers = "two"\n', 2, "endpoint.workers"),
        ('[identity]\nfile = "{directory}/broken.pem"\n', 3, "broken.pem"),
        ('[tls]\ncertificate = "{directory}/broken.pem"\nprivate_key = "{directory}/broken.pem"\n', 3, "broken.pem"),
    ],
)
def test_check_says_what_is_wrong_as_the_node_would(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], lines: str, code: int, words: str
) -> None:
    """With the same exit codes: the settings, a node key and a certificate that are none."""
    (tmp_path / "broken.pem").write_text("no PEM")
    path = tmp_path / "node.toml"
    path.write_text(lines.replace("{directory}", str(tmp_path)))
    arguments = ["serve", "--check", "--config", str(path)]
    if "identity" not in lines:
        arguments += ["--identity", str(tmp_path / "new.pem")]

    assert cli.main(arguments) == code
    written = capsys.readouterr()
    assert words in written.err
    assert written.out == ""
