"""The control socket's place: whose it is, and what happens to what was left over."""

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from antquic_server.errors import CannotBootError
from antquic_server.supervisor import control_socket
from antquic_server.supervisor.control_socket import (
    ControlSocket,
    open_control_socket,
    peer_user,
    runtime_directories,
)


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory whose name is short enough for a socket in it."""
    with TemporaryDirectory(prefix="aq") as directory:
        yield Path(directory)


def opened(configured: str, place: Path, pid: int = 7) -> ControlSocket:
    """Open one; nothing may be skipped."""
    found = open_control_socket(
        configured, environment={"RUNTIME_DIRECTORY": str(place)}, pid=pid, on_skipped=pytest.fail
    )
    assert found is not None
    return found


def leave_over(path: Path) -> None:
    """Leave a socket behind, as a killed process does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.bind(str(path))


def test_socket_is_its_owners_alone_and_goes_at_the_end(place: Path) -> None:
    """Whatever the umask, which is as before afterwards."""
    before = os.umask(0)
    try:
        control = opened("", place)
        assert os.umask(0) == 0
    finally:
        os.umask(before)
    assert control.path == place / "control-7.sock"
    assert stat.S_IMODE(control.path.stat().st_mode) == 0o600
    control.close()
    assert not control.path.exists()


def test_nodes_of_one_machine_do_not_meet(place: Path) -> None:
    """Each has its process id; a name that a killed one left is taken away, one in use is not."""
    leave_over(place / "control-5.sock")
    (place / "control-6.sock").write_text("no socket")
    (place / "something else").touch()
    first, second = opened("", place, 7), opened("", place, 8)

    names = {path.name for path in place.iterdir()}
    assert names == {"control-7.sock", "control-8.sock", "control-6.sock", "something else"}
    first.close()
    second.close()


def test_configured_path_is_taken_over_from_the_dead_only(place: Path) -> None:
    """From a living node it is not, nor is a file in its place removed."""
    path = place / "mine.sock"
    leave_over(path)
    control = opened(str(path), place)
    with pytest.raises(CannotBootError, match=f"cannot listen on the control socket {path}: Address already in use"):
        opened(str(path), place)
    control.close()
    path.write_text("precious")
    with pytest.raises(CannotBootError):
        opened(str(path), place)
    assert path.read_text() == "precious"


@pytest.mark.parametrize("path", ["/nowhere/at/all.sock", "/tmp/" + "x" * 120])
def test_configured_path_that_cannot_be_is_told(path: str, place: Path) -> None:
    """In one line that names it."""
    with pytest.raises(CannotBootError, match="cannot listen on the control socket") as caught:
        opened(path, place)
    assert "\n" not in str(caught.value)


def test_directory_of_others_is_not_used(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next place is, and the reason is told; without any there is no socket, and the node serves."""
    theirs, link = place / "theirs", place / "link"
    theirs.mkdir()
    theirs.chmod(0o777)
    link.symlink_to(theirs)
    skipped: list[str] = []
    monkeypatch.setattr(control_socket, "runtime_directories", lambda *_: [theirs, link, place / "no" / "where"])
    assert open_control_socket("", environment={}, pid=7, on_skipped=skipped.append) is None
    assert len(skipped) == 3
    assert "they can write to it" in skipped[0]
    assert "Not a directory" in skipped[1]
    monkeypatch.setattr(control_socket, "runtime_directories", lambda *_: [theirs, place / "ours"])
    control = open_control_socket("", environment={}, pid=7, on_skipped=skipped.append)
    assert control is not None
    assert stat.S_IMODE((place / "ours").stat().st_mode) == 0o700
    control.close()


@pytest.mark.parametrize(
    ("environment", "user", "places"),
    [
        ({"RUNTIME_DIRECTORY": "/run/a:/run/b"}, 0, ["/run/a", "/run/antquic-server", "/tmp/antquic-server-0"]),
        ({}, 0, ["/run/antquic-server", "/tmp/antquic-server-0"]),
        ({"XDG_RUNTIME_DIR": "/run/user/5"}, 5, ["/run/user/5/antquic-server", "/tmp/antquic-server-5"]),
        ({}, 5, ["/tmp/antquic-server-5"]),
    ],
)
def test_places_in_order(
    environment: dict[str, str], user: int, places: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What systemd made for the unit comes first."""
    monkeypatch.setattr("tempfile.gettempdir", lambda: "/tmp")
    assert [str(each) for each in runtime_directories(environment, user)] == places


def test_kernel_says_who_is_at_the_other_end() -> None:
    """We are."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert peer_user(ours) == os.geteuid()


def test_system_that_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves it to the mode of the file."""
    monkeypatch.delattr(socket, "SO_PEERCRED")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert peer_user(ours) is None
