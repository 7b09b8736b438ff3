"""Who holds a listen address."""

import os
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest

from antquic_server.errors import PortInUseError
from antquic_server.net import port_lock
from antquic_server.net.port_lock import PortLock, describe_holder, holder_pid

REPOSITORY = Path(__file__).parents[3]
HOLD_UNTIL_EOF = """
import sys
from antquic_server.net.port_lock import PortLock
lock = PortLock(sys.argv[1])
print("held", flush=True)
sys.stdin.read()
"""


def unique_address() -> str:
    """Make a name that no other test run uses; the lock does not care whether it is an address."""
    return f"test-{uuid4()}:1"


def test_second_lock_on_the_same_address_is_refused_with_the_holder() -> None:
    """The error says which process has it."""
    address = unique_address()
    lock = PortLock(address)
    try:
        with pytest.raises(PortInUseError) as caught:
            PortLock(address)
    finally:
        lock.release()

    assert caught.value.address == address
    assert str(os.getpid()) in str(caught.value)


def test_released_lock_can_be_taken_again() -> None:
    """Releasing twice is harmless, and nothing is left behind."""
    address = unique_address()
    for _ in range(2):
        lock = PortLock(address)
        assert holder_pid(address) == os.getpid()
        lock.release()
        lock.release()

    assert holder_pid(address) is None
    assert "antquic-server" not in describe_holder(address)


def test_lock_of_another_process_ends_with_it() -> None:
    """A killed supervisor leaves no stale lock."""
    address = unique_address()
    with subprocess.Popen(
        [sys.executable, "-c", HOLD_UNTIL_EOF, address],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(PortInUseError, match=f"process {holder.pid}"):
            PortLock(address)
        holder.kill()
        holder.wait(timeout=5)

    PortLock(address).release()


def test_many_questions_about_the_holder_do_not_block() -> None:
    """Nobody answers them; when the queue is full the holder just has no name."""
    address = unique_address()
    lock = PortLock(address)

    answers = {holder_pid(address) for _ in range(200)}

    lock.release()
    assert answers <= {os.getpid(), None}
    assert os.getpid() in answers


def test_lock_is_granted_where_the_system_is_not_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an abstract namespace the bind alone decides."""
    monkeypatch.setattr(port_lock, "_LINUX", False)
    address = unique_address()

    for lock in (PortLock(address), PortLock(address)):
        assert holder_pid(address) is None
        lock.release()
