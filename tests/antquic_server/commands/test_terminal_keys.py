"""Keys of a terminal: what is pressed, what else a terminal sends, and that it is put back."""

import os
import pty
import signal
import termios
import threading
from collections.abc import Iterator

import pytest

from antquic_server.commands.terminal_keys import Terminal, keys_in


@pytest.mark.parametrize(
    ("data", "keys"),
    [
        (b"q", ["q"]),
        (b"Q p", ["q", " ", "p"]),
        (b"\x1b[A\x1b[B\x1b[C\x1b[D", ["up", "down", "right", "left"]),
        (b"\x1bOA", ["up"]),
        (b"\x1b[1;5Aw", ["w"]),
        (b"\x1b[200~t", ["t"]),
        (b"\x1b", []),
        (b"\x1b[", []),
        (b"\x1bq", ["q"]),
        (b"\x00\x07\xc3\xa9", []),
    ],
)
def test_keys_are_found_in_what_a_terminal_sends(data: bytes, keys: list[str]) -> None:
    """Letters and arrows; other control sequences are passed over whole."""
    assert keys_in(data) == keys


@pytest.fixture
def pseudo_terminal() -> Iterator[tuple[int, int]]:
    """Both ends of a terminal: the one that presses keys, and the one that reads them."""
    master, slave = pty.openpty()
    yield master, slave
    os.close(master)
    os.close(slave)


def test_keys_come_without_enter_and_the_terminal_is_put_back(pseudo_terminal: tuple[int, int]) -> None:
    """Also when the block ends with an error."""
    master, slave = pseudo_terminal
    before = termios.tcgetattr(slave)
    terminal = Terminal(slave)

    def story() -> None:
        with terminal:
            assert terminal.has_keys
            assert termios.tcgetattr(slave) != before
            os.write(master, b"t\x1b[A")
            assert terminal.wait(30.0) == ["t", "up"]
            assert terminal.wait(0.0) == []
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        story()
    assert termios.tcgetattr(slave) == before
    assert not terminal.has_keys


def test_wait_ends_when_woken_or_resized(pseudo_terminal: tuple[int, int]) -> None:
    """From another thread, or by the signal of a resized window; the handler is put back as well."""
    _, slave = pseudo_terminal
    before = signal.getsignal(signal.SIGWINCH)
    with Terminal(slave) as terminal:
        waker = threading.Thread(target=terminal.wake)
        waker.start()
        assert terminal.wait(30.0) == []
        waker.join()
        os.kill(os.getpid(), signal.SIGWINCH)
        assert terminal.wait(30.0) == []
    terminal.wake()
    assert signal.getsignal(signal.SIGWINCH) == before


def test_without_a_terminal_there_are_no_keys() -> None:
    """Only time passes."""
    read, write = os.pipe()
    os.write(write, b"q")
    with Terminal(read) as terminal:
        assert not terminal.has_keys
        assert terminal.wait(0.01) == []
    os.close(read)
    os.close(write)


def test_terminal_that_goes_away_is_the_end() -> None:
    """A closed window presses q."""
    master, slave = pty.openpty()
    with Terminal(slave) as terminal:
        os.close(master)
        assert terminal.wait(5.0) == ["q"]
    os.close(slave)
