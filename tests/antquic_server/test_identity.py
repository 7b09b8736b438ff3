"""The node key on disk: whoever starts, stops or crashes when, there is one key and it is never lost."""

import os
import resource
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)

from antquic_server.errors import ExitCode, IdentityError
from antquic_server.identity import (
    Identity,
    create_identity,
    default_identity_path,
    identity_from_seed,
    load_identity,
    load_or_create_identity,
)

SEED = bytes(range(32))


def pem(key: Any, encryption: KeySerializationEncryption | None = None) -> bytes:
    """Encode a private key as PKCS #8."""
    encoded: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())
    return encoded


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A key file that does not exist yet, in a directory that does."""
    return tmp_path / "node.pem"


class Crash(BaseException):
    """The process ends here."""


class MortalDisk:
    """
    Makes every call that changes the disk count, and the process die at one of them.

    After its death nothing changes the disk any more, so clean-up code does not run either, as after SIGKILL.
    """

    CALLS = ("mkdir", "open", "fchmod", "fsync", "link", "replace", "rename", "unlink")

    def __init__(self, monkeypatch: pytest.MonkeyPatch, die_at: int) -> None:
        self.calls = 0
        self.die_at = die_at
        for name in self.CALLS:
            monkeypatch.setattr(os, name, self._counted(getattr(os, name)))

    def _counted(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            self.calls += 1
            if self.calls >= self.die_at:
                raise Crash
            return call(*arguments, **options)

        return counted


def die_at_every_step(action: Callable[[], Identity], prepare: Callable[[], None]) -> int:
    """Run ``action`` again and again, dying one step later each time, until it ends; return the steps it has."""
    for step in range(1, 100):
        prepare()
        with pytest.MonkeyPatch.context() as patch:
            MortalDisk(patch, step)
            try:
                action()
            except Crash:
                continue
        return step - 1
    pytest.fail("never ended")


def test_first_start_makes_a_key_and_later_ones_load_it(path: Path) -> None:
    """The same key comes back, complete and private to its owner."""
    created = load_or_create_identity(path)
    loaded = load_or_create_identity(path)
    assert loaded == created == load_identity(path)
    assert (len(created.seed), len(created.public_key), len(created.peer_id)) == (32, 1952, 32)
    assert created.path == path
    assert not created.too_open
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["node.pem"]
    assert path.read_bytes().startswith(b"-----BEGIN PRIVATE KEY-----\n")


@pytest.mark.parametrize("umask", [0o000, 0o777])
def test_mode_does_not_depend_on_the_umask(path: Path, umask: int) -> None:
    """0600 it is, whatever the umask."""
    old = os.umask(umask)
    try:
        create_identity(path)
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_two_nodes_have_different_keys(tmp_path: Path) -> None:
    """Keys are random."""
    assert create_identity(tmp_path / "a").peer_id != create_identity(tmp_path / "b").peer_id


def test_missing_directories_are_made(tmp_path: Path) -> None:
    """A key may live where nothing is yet; its directory is private, too."""
    path = tmp_path / "state" / "antquic-server" / "node.pem"
    load_or_create_identity(path)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_key_that_others_can_read_is_loaded_and_reported(path: Path) -> None:
    """``too_open`` is for a warning; refusing would stop nodes for a mode that a backup tool set."""
    create_identity(path)
    for mode, too_open in ((0o600, False), (0o400, False), (0o640, True), (0o604, True), (0o660, True)):
        path.chmod(mode)
        assert load_identity(path).too_open is too_open


def test_creating_refuses_to_overwrite(path: Path) -> None:
    """An existing key is only replaced when asked for."""
    before = create_identity(path)
    with pytest.raises(IdentityError, match="already there"):
        create_identity(path)
    assert load_identity(path) == before


def test_replacing_keeps_every_old_key(path: Path) -> None:
    """Old keys stay beside the new one, numbered."""
    keys = [create_identity(path, replace=True).peer_id for _ in range(3)]
    assert load_identity(path).peer_id == keys[2]
    assert load_identity(path.with_name("node.pem.bak-1")).peer_id == keys[0]
    assert load_identity(path.with_name("node.pem.bak-2")).peer_id == keys[1]
    assert len(list(path.parent.iterdir())) == 3


def test_crash_while_creating_leaves_no_key_or_a_whole_one(path: Path) -> None:
    """Whatever the step, the next start finds no file or a good one, and then keeps its key."""
    found = set()

    def check_and_clear() -> None:
        found.add(path.exists())
        assert load_or_create_identity(path) == load_identity(path)
        path.unlink()

    steps = die_at_every_step(lambda: load_or_create_identity(path), check_and_clear)
    assert steps >= 7
    assert found == {True, False}


def test_crash_while_replacing_never_loses_a_key(path: Path) -> None:
    """Whatever the step, there is a whole key under the name, and the old key is there or in a backup."""
    old = create_identity(path)
    content = path.read_bytes()
    survivors = set()

    def check_and_restore() -> None:
        now = load_identity(path)
        survivors.add(now.peer_id == old.peer_id)
        backups = [load_identity(entry).peer_id for entry in path.parent.glob("node.pem.bak-*")]
        assert old.peer_id in [now.peer_id, *backups]
        for entry in path.parent.iterdir():
            entry.unlink()
        path.write_bytes(content)

    steps = die_at_every_step(lambda: create_identity(path, replace=True), check_and_restore)
    check_and_restore()
    assert steps >= 10
    assert survivors == {True, False}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT])
@pytest.mark.parametrize("replace", [False, True])
def test_signal_while_creating_leaves_no_stray_key(path: Path, number: signal.Signals, replace: bool) -> None:
    """It ends the process as it would have, but after the temporary file with the private key is gone."""
    old = create_identity(path).peer_id if replace else None
    code = (
        "import os, sys; from pathlib import Path; from antquic_server.identity import create_identity\n"
        "fsync = os.fsync\n"
        "def slow_disk(descriptor): os.kill(os.getpid(), int(sys.argv[2])); fsync(descriptor)\n"
        "os.fsync = slow_disk\n"
        "create_identity(Path(sys.argv[1]), replace=bool(int(sys.argv[3])))\n"
        "print('not ended')"
    )
    process = subprocess.run(
        [sys.executable, "-c", code, str(path), str(int(number)), str(int(replace))],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        # No core file of a process that holds a key.
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, (0, 0)),
        timeout=60,
        check=False,
    )

    assert (process.returncode, process.stdout) == (-number, b"")
    assert {entry.name for entry in path.parent.iterdir()} == {"node.pem", *(["node.pem.bak-1"] if replace else [])}
    assert load_identity(path).peer_id != old


def test_processes_that_start_at_once_share_one_key(tmp_path: Path) -> None:
    """Whoever comes second takes the key of the first."""
    code = (
        "import sys; from pathlib import Path; from antquic_server.identity import load_or_create_identity as load\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "print(*[load(Path(name)).peer_id.hex() for name in sys.argv[1:]])"
    )
    paths = [str(tmp_path / f"{number}.pem") for number in range(20)]
    processes = [
        subprocess.Popen([sys.executable, "-c", code, *paths], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        outputs = {process.communicate(timeout=60)[0] for process in processes}
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert len(outputs) == 1
    assert len(outputs.pop().split()) == len(list(tmp_path.iterdir())) == 20


def test_slower_process_loads_the_key_of_the_faster(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that appears between looking and linking is taken, not overwritten."""
    link = os.link
    faster: list[Identity] = []

    def link_late(*arguments: Any, **options: Any) -> None:
        monkeypatch.setattr(os, "link", link)
        faster.append(create_identity(path))
        link(*arguments, **options)

    monkeypatch.setattr(os, "link", link_late)
    assert load_or_create_identity(path) == faster[0]
    assert len(list(path.parent.iterdir())) == 1


GARBAGE = {
    "empty": b"",
    "text": b"not a key\n",
    "binary": bytes(range(256)),
    "cut short": pem(MLDSA65PrivateKey.from_seed_bytes(SEED))[:80],
    "another kind": pem(Ed25519PrivateKey.generate()),
    "encrypted": pem(MLDSA65PrivateKey.from_seed_bytes(SEED), BestAvailableEncryption(b"secret")),
    "too large": pem(MLDSA65PrivateKey.from_seed_bytes(SEED)) + b"\n" * 70_000,
}


@pytest.mark.parametrize("content", GARBAGE.values(), ids=GARBAGE)
def test_file_that_is_no_key_is_an_error_and_stays(path: Path, content: bytes) -> None:
    """One line names the file; a key is never made over something that is there."""
    path.write_bytes(content)
    for load in (load_identity, load_or_create_identity, create_identity):
        with pytest.raises(IdentityError) as caught:
            load(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)
        assert caught.value.exit_code is ExitCode.CANNOT_BOOT
    assert path.read_bytes() == content


def test_garbage_can_be_replaced_and_is_kept(path: Path) -> None:
    """Replacing works for a broken file, which becomes a backup."""
    path.write_bytes(b"garbage")
    create_identity(path, replace=True)
    load_identity(path)
    assert path.with_name("node.pem.bak-1").read_bytes() == b"garbage"


def test_expanded_key_without_a_seed_is_refused(path: Path) -> None:
    """A PKCS #8 file of the expanded form only does not give us the seed we need."""
    key = MLDSA65PrivateKey.from_seed_bytes(SEED)
    seed_form = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    # The seed form ends in [0] IMPLICIT OCTET STRING (RFC 9881, section 6); turn its tag into another.
    assert seed_form[-34:-32] == b"\x80\x20"
    path.write_bytes(seed_form[:-34] + b"\x04\x20" + seed_form[-32:])
    with pytest.raises(IdentityError, match="not a PEM private key"):
        load_identity(path)


def test_missing_key_is_an_error_when_only_loading(path: Path) -> None:
    """``load_identity`` makes nothing."""
    with pytest.raises(IdentityError, match="no such node key"):
        load_identity(path)
    assert not path.exists()


def test_directory_in_place_of_the_file_is_an_error(path: Path) -> None:
    """A directory under the name is reported, whichever function looks at it."""
    path.mkdir()
    for load in (load_identity, load_or_create_identity, create_identity):
        with pytest.raises(IdentityError, match=f"^{path}: "):
            load(path)
    with pytest.raises(IdentityError, match=f"^{path}: cannot write the node key"):
        create_identity(path, replace=True)


def test_file_in_place_of_the_directory_is_an_error(tmp_path: Path) -> None:
    """A path that leads through a file cannot be read or made."""
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "node.pem", tmp_path / "file" / "deeper" / "node.pem"):
        for load in (load_identity, load_or_create_identity, create_identity):
            with pytest.raises(IdentityError, match=f"^{path}: cannot"):
                load(path)


def test_dangling_link_is_not_written_through(tmp_path: Path, path: Path) -> None:
    """A symbolic link to nowhere is something that is there: it is not replaced, nor is its target made."""
    path.symlink_to(tmp_path / "elsewhere.pem")
    with pytest.raises(IdentityError, match=f"^{path}: "):
        load_or_create_identity(path)
    assert path.is_symlink()
    assert not (tmp_path / "elsewhere.pem").exists()


def test_unreadable_key_is_an_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file we may not open is reported with the reason, and no other key is made."""
    create_identity(path)

    def refuse(*_arguments: object, **_options: object) -> NoReturn:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    for load in (load_identity, load_or_create_identity):
        with pytest.raises(IdentityError, match=f"^{path}: cannot read the node key: Permission denied$"):
            load(path)


@pytest.mark.parametrize("call", ["open", "fchmod", "fsync", "link"])
def test_full_or_read_only_disk_is_an_error_and_leaves_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """A failing step ends with one line, no key and no temporary file."""

    def fail(*_arguments: object, **_options: object) -> NoReturn:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(IdentityError, match=f"^{path}: cannot write the node key: No space left on device$"):
        create_identity(path)
    assert list(path.parent.iterdir()) == []


def test_too_many_backups_are_an_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbering ends somewhere, with the key in place."""
    monkeypatch.setattr("antquic_server.identity._MAX_BACKUPS", 2)
    for _ in range(3):
        create_identity(path, replace=True)
    before = load_identity(path)
    with pytest.raises(IdentityError, match="more than 2 old node keys"):
        create_identity(path, replace=True)
    assert load_identity(path) == before


def test_identity_of_a_seed() -> None:
    """A worker gets the seed alone and computes the rest."""
    identity = identity_from_seed(SEED)
    assert identity.public_key == MLDSA65PrivateKey.from_seed_bytes(SEED).public_key().public_bytes_raw()
    assert identity.path is None
    with pytest.raises(IdentityError, match="31 bytes instead of 32"):
        identity_from_seed(bytes(31))


def test_seed_is_not_shown() -> None:
    """A log line with an identity in it does not give the key away."""
    assert SEED.hex() not in repr(identity_from_seed(SEED))
    assert "seed" not in repr(identity_from_seed(SEED))


def test_default_path_of_root() -> None:
    """A system service keeps its key in /var/lib."""
    path = default_identity_path({"XDG_STATE_HOME": "/state"}, is_root=True)
    assert path == Path("/var/lib/antquic-server/node.pem")


def test_default_path_of_a_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A user's key lives in the state directory; a relative one is ignored, as its specification says."""
    monkeypatch.setenv("HOME", str(tmp_path))
    inside = Path("antquic-server/node.pem")
    state = tmp_path / ".local/state"
    assert default_identity_path({"XDG_STATE_HOME": "/state"}, is_root=False) == "/state" / inside
    for environment in ({}, {"XDG_STATE_HOME": ""}, {"XDG_STATE_HOME": "state"}):
        assert default_identity_path(environment, is_root=False) == state / inside


def test_default_path_reads_the_process_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without arguments it is about this process."""
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert default_identity_path() == Path("/state/antquic-server/node.pem")


def test_user_without_a_home_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system user without a home names a file."""

    def homeless() -> NoReturn:
        raise RuntimeError("no home")

    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(IdentityError, match="--identity"):
        default_identity_path({}, is_root=False)
