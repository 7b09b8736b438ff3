"""Signals while labs are open: they unwind, wait for the end of what must not be interrupted, and are put back."""

import signal
import threading
from collections.abc import Iterator

import pytest

from antquic_server.natlab.signals import SignalGuard


@pytest.fixture(autouse=True)
def _usual_handlers() -> Iterator[None]:
    """Begin with the handlers of a plain program, and leave what was there before."""
    found = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)}
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in found.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_unwinds_while_a_lab_is_open(number: signal.Signals) -> None:
    """With the exit code that shells give for it."""
    guard = SignalGuard()
    guard.enter(1)
    with pytest.raises(SystemExit) as caught:
        signal.raise_signal(number)
    assert caught.value.code == 128 + number
    with guard.leaving(1):
        pass
    assert signal.getsignal(number) is signal.SIG_DFL


def test_the_last_lab_puts_the_handlers_back() -> None:
    """In whatever order labs close."""
    guard = SignalGuard()
    guard.enter(1)
    guard.enter(2)
    with guard.leaving(1):
        pass
    assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    with guard.leaving(2):
        pass
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_program_that_handles_a_signal_itself_keeps_its_handler() -> None:
    """It unwinds by itself."""
    signal.signal(signal.SIGTERM, lambda *_: None)
    own = signal.getsignal(signal.SIGTERM)
    guard = SignalGuard()
    guard.enter(1)
    assert signal.getsignal(signal.SIGTERM) is own
    with guard.leaving(1):
        pass
    assert signal.getsignal(signal.SIGTERM) is own


def test_a_signal_waits_until_a_lab_is_gone() -> None:
    """Also one that arrives by way of another thread, which Python handles in this one all the same."""
    guard = SignalGuard()
    guard.enter(1)
    steps = []

    def leave() -> None:
        with guard.leaving(1):
            signal.raise_signal(signal.SIGINT)
            other = threading.Thread(target=lambda: signal.pthread_kill(threading.get_ident(), signal.SIGINT))
            other.start()
            other.join()
            steps.append("gone")

    with pytest.raises(KeyboardInterrupt):
        leave()
    assert steps == ["gone"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()


def test_other_threads_have_no_say() -> None:
    """Python lets them change no handler; a lab there is left as it is."""
    guard = SignalGuard()

    def open_and_close() -> None:
        guard.enter(1)
        with guard.leaving(1):
            pass

    thread = threading.Thread(target=open_and_close)
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
