"""The start of a node: one ready line when all is well, one line and exit status 3 when it cannot serve."""

import ctypes.util
import json
import os
import pwd
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.request import urlopen

import pytest

import antquic_server
from support.load import descendants, peers_of, run_clients, until, wait_healthy
from support.node import REPOSITORY, Node, StartNode, node_environment
from support.require import require
from support.waiting import wait_until

pytestmark = pytest.mark.end_to_end

EXAMPLE = REPOSITORY / "docs" / "examples" / "antquic-server.toml"
CANNOT_BOOT = 3
BOOT_TIMEOUT_S = 30.0
ECHO_TIMEOUT_S = 10.0


def fail_to_start(
    directory: Path, *arguments: str, environment: Mapping[str, str] | None = None, identity: str = "node.pem"
) -> str:
    """Start a node that cannot serve; check its exit status and return the one line it leaves with."""
    command = [sys.executable, "-m", "antquic_server", "serve", "--admin", "127.0.0.1:0", "--workers", "2"]
    command += ["--identity", str(directory / identity), *arguments]
    result = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=BOOT_TIMEOUT_S,
        env={**node_environment(), **(environment or {})},
        stdin=subprocess.DEVNULL,
        cwd=directory,
        check=False,
    )
    assert result.returncode == CANNOT_BOOT, result.stderr
    assert result.stdout == "", "no ready line"
    lines = [line for line in result.stderr.splitlines() if not line.startswith("{")]
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("antquic-server: error: ")
    assert "Traceback" not in result.stderr
    return lines[0]


def test_ready_line_is_the_only_output(tmp_path: Path) -> None:
    """Standard output carries one JSON object with the keys of the manual, nothing else, until the end."""
    output = tmp_path / "output"
    command = [sys.executable, "-m", "antquic_server", "serve", "--listen", "127.0.0.1:0", "--listen", "[::1]:0"]
    command += ["--admin", "127.0.0.1:0", "--workers", "2", "--identity", str(tmp_path / "node.pem"), "--echo"]
    with output.open("wb") as stdout, (tmp_path / "errors").open("wb") as stderr:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, env=node_environment()
        )
    try:
        wait_until(lambda: output.read_bytes().endswith(b"\n"), timeout_s=BOOT_TIMEOUT_S, what="ready line")
    finally:
        process.terminate()
        status = process.wait(timeout=BOOT_TIMEOUT_S)

    assert status == 0
    (line,) = output.read_text().splitlines()
    ready = json.loads(line)
    assert set(ready) == {"event", "listen", "peer_id", "workers", "pqc_provider", "admin"}
    assert ready["event"] == "ready"
    ipv4, ipv6 = ready["listen"]
    assert ipv4.startswith("127.0.0.1:")
    assert ipv6.startswith("[::1]:")
    assert not {ipv4.rpartition(":")[2], ipv6.rpartition(":")[2]} & {"0"}
    assert len(bytes.fromhex(ready["peer_id"])) == 32
    assert ready["workers"] == 2
    assert ready["pqc_provider"] in ("liboqs", "cryptography")
    assert ready["admin"].startswith("http://127.0.0.1:")


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_node_starts_with_closed_descriptors(tmp_path: Path, closed: str) -> None:
    """It serves and ends as ever: none of its sockets has taken the place of standard output."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        admin = f"127.0.0.1:{reserved.getsockname()[1]}"
    command = f"exec '{sys.executable}' -m antquic_server serve --listen 127.0.0.1:0 --admin {admin} --workers 2"
    process = subprocess.Popen(
        ["sh", "-c", f"{command} --identity '{tmp_path / 'node.pem'}' {closed}"], env=node_environment()
    )

    def healthy() -> bool:
        assert process.poll() is None, "it has ended"
        try:
            with urlopen(f"http://{admin}/healthz", timeout=5.0) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    try:
        wait_until(healthy, timeout_s=BOOT_TIMEOUT_S, what="healthy node")
    finally:
        process.terminate()
        status = process.wait(timeout=BOOT_TIMEOUT_S)
    assert status == 0


def test_node_serves_on_both_families(start_node: StartNode) -> None:
    """One node, an IPv4 and an IPv6 address, and each client is told the address it has there."""
    node = start_node(workers=2, echo=True, arguments=["--listen", "[::1]:0"])

    async def story() -> None:
        for host in ("127.0.0.1", "::1"):
            async with peers_of(node, 3, host=host) as peers:
                for peer in peers:
                    assert await peer.connection.echo(host.encode(), ECHO_TIMEOUT_S) == host.encode()
                    assert peer.observed_address == peer.own_address

    run_clients(story(), timeout_s=30)


def test_node_serves_with_the_complete_example_file(start_node: StartNode) -> None:
    """Every key in the file, only addresses and files of this test's own on the command line: a peer is served."""
    node = start_node(arguments=["--config", str(EXAMPLE)])

    async def story() -> None:
        async with peers_of(node, 2) as peers:
            for peer in peers:
                await until(lambda peer=peer: peer.observed_address, timeout_s=ECHO_TIMEOUT_S, what="address")  # type: ignore[misc]
                assert peer.observed_address == peer.own_address

    run_clients(story(), timeout_s=30)


def test_port_of_another_node_is_refused_by_name(echo_node: Node, tmp_path: Path) -> None:
    """The kernel would let a second node share the port; the first one is named, and goes on undisturbed."""
    line = fail_to_start(tmp_path, "--listen", echo_node.address)

    assert echo_node.address in line
    assert str(echo_node.pid) in line
    assert echo_node.healthy()


@pytest.mark.parametrize("reuse_port", [False, True])
def test_port_of_another_program_is_refused(tmp_path: Path, *, reuse_port: bool) -> None:
    """Also when that program would share the port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as foreign:
        if reuse_port:
            foreign.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        foreign.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{foreign.getsockname()[1]}"

        line = fail_to_start(tmp_path, "--listen", address)

    assert address in line
    assert "in use" in line


def test_admin_port_of_another_program_is_refused(tmp_path: Path) -> None:
    """The admin address is named."""
    with socket.create_server(("127.0.0.1", 0)) as foreign:
        address = f"127.0.0.1:{foreign.getsockname()[1]}"

        line = fail_to_start(tmp_path, "--listen", "127.0.0.1:0", "--admin", address)

    assert address in line
    assert "in use" in line


GARBAGE_KEYS: dict[str, bytes] = {
    "empty": b"",
    "no PEM": os.urandom(200),
    "another PEM": b"-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ1hsZ3v\n-----END PRIVATE KEY-----\n",
}


@pytest.mark.parametrize("contents", GARBAGE_KEYS.values(), ids=GARBAGE_KEYS)
def test_garbage_key_is_refused_and_kept(tmp_path: Path, contents: bytes) -> None:
    """The file is named and left as it is: it may be a key that something else has damaged."""
    path = tmp_path / "node.pem"
    path.write_bytes(contents)

    line = fail_to_start(tmp_path, "--listen", "127.0.0.1:0")

    assert str(path) in line
    assert path.read_bytes() == contents


def test_unreadable_key_is_refused(tmp_path: Path) -> None:
    """A directory in the key's place; not even root can read that as a file."""
    (tmp_path / "node.pem").mkdir()

    line = fail_to_start(tmp_path, "--listen", "127.0.0.1:0")

    assert str(tmp_path / "node.pem") in line


@pytest.mark.parametrize("installed_at", [None, "nowhere"])
def test_missing_liboqs_is_refused_with_advice(tmp_path: Path, installed_at: str | None) -> None:
    """Asked for and not there: the line says how to get it, and nothing is downloaded or built."""
    require(not any(map(ctypes.util.find_library, ("oqs", "liboqs"))), "liboqs is installed system-wide")
    environment = {
        "HOME": str(tmp_path),
        "XDG_STATE_HOME": str(tmp_path),
        "OQS_INSTALL_PATH": str(tmp_path / "nowhere"),
    }
    if installed_at is None:
        environment["OQS_INSTALL_PATH"] = ""

    line = fail_to_start(tmp_path, "--listen", "127.0.0.1:0", "--set", 'pqc.provider="liboqs"', environment=environment)

    assert "liboqs is not installed" in line
    assert "OQS_INSTALL_PATH" in line
    assert "cryptography" in line
    assert not (tmp_path / "_oqs").exists()


def user_ids(pid: int) -> set[int]:
    """Return the user ids a process has: real, effective, saved, file system."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {int(word) for line in lines if line.startswith("Uid:") for word in line.split()[1:]}


# An interpreter inside a home directory is out of reach for other users. In a mount namespace of its own the node sees
# such directories with the right to pass through, and the real ones stay as they are.
OPEN_DIRECTORIES = """\
#!/bin/sh
exec unshare --mount --propagation private sh -c '
number=0
for directory in {directories}; do
    layer={layers}/$number
    number=$((number + 1))
    mkdir -p "$layer" && mount -t tmpfs none "$layer" && mkdir "$layer/upper" "$layer/work" &&
    mount -t overlay none -o "lowerdir=$directory,upperdir=$layer/upper,workdir=$layer/work" "$directory" &&
    chmod a+rx "$directory" || exit 99
done
exec "$0" "$@"' {interpreter} "$@"
"""


def closed_directories() -> list[Path]:
    """Return the directories above interpreter, packages and tree that other users cannot pass, outermost first."""
    needed = [Path(sys.executable), Path(sys.executable).resolve(), Path(antquic_server.__file__), Path(sys.prefix)]
    above = {directory for path in needed for directory in path.parents}
    return sorted(directory for directory in above if directory.stat().st_mode & 0o005 != 0o005)


def account_can_run(command: str, account: str) -> bool:
    """Whether ``account``, coming from root, can start the interpreter ``command`` and import this project."""
    become = f"import os, pwd; os.setuid(pwd.getpwnam({account!r}).pw_uid); "
    script = become + "os.execv(sys.executable, [sys.executable, '-P', '-c', 'import antquic_server'])"
    result = subprocess.run(
        [command, "-P", "-c", "import sys; " + script], env=node_environment(), capture_output=True, check=False
    )
    return result.returncode == 0


@pytest.fixture
def interpreter_for_nobody(tmp_path: Path) -> str:
    """An interpreter that goes on working when its process becomes the user nobody."""
    require(os.geteuid() == 0, "only root can give up root")
    if account_can_run(sys.executable, "nobody"):
        return sys.executable
    wrapper = tmp_path / "python"
    wrapper.write_text(
        OPEN_DIRECTORIES.format(
            directories=" ".join(map(str, closed_directories())), layers=tmp_path / "layers", interpreter=sys.executable
        )
    )
    wrapper.chmod(0o755)
    require(account_can_run(str(wrapper), "nobody"), "the user nobody cannot be given access to this interpreter")
    return str(wrapper)


@pytest.mark.usefixtures("root")
def test_node_that_stays_root_says_so(start_node: StartNode) -> None:
    """Nobody told it another account: it serves, and its log warns with the setting that mends it."""
    node = start_node()
    (line,) = (line for line in node.log().splitlines() if "serving as root" in line)
    assert json.loads(line)["level"] == "warning"
    assert "endpoint.user" in line


def test_root_gives_up_its_rights(
    start_node: StartNode, interpreter_for_nobody: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Started as root with ``endpoint.user``, supervisor, workers and replacements are that user, and serve."""
    nobody = pwd.getpwnam("nobody").pw_uid
    monkeypatch.setattr(sys, "executable", interpreter_for_nobody)
    for name in [name for name in os.environ if name.startswith("COVERAGE_")]:
        # It would write its data as nobody, where nobody may not.
        monkeypatch.delenv(name)
    node = start_node(workers=2, echo=True, settings=['endpoint.user="nobody"'])

    async def story() -> None:
        async with peers_of(node, 4) as peers:
            for peer in peers:
                assert await peer.connection.echo(b"served", ECHO_TIMEOUT_S) == b"served"

    run_clients(story(), timeout_s=30)
    wait_until(lambda: node.status()["spares"], timeout_s=15.0, what="spare")
    for pid in (node.pid, *descendants(node.pid)):
        assert user_ids(pid) == {nobody}
    assert "serving as root" not in node.log()
    victim = node.worker_pids[0]
    os.kill(victim, signal.SIGKILL)
    wait_healthy(node, besides=[victim])
    run_clients(story(), timeout_s=30)
    mode = stat.S_IMODE(node.identity_path.stat().st_mode)
    assert mode == 0o600


def test_unknown_user_is_refused(tmp_path: Path) -> None:
    """The account is named."""
    require(os.geteuid() == 0, "for others the right is missing first")

    line = fail_to_start(tmp_path, "--listen", "127.0.0.1:0", "--set", 'endpoint.user="nobody-of-this-name"')

    assert "nobody-of-this-name" in line
