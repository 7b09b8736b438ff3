"""Finding liboqs: never a download, never a word on standard output, always a line that says what to do."""

import ctypes
import ctypes.util
import importlib
import importlib.util
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from antquic_server.errors import ProviderUnavailableError
from antquic_server.pqc import liboqs_library
from antquic_server.pqc.liboqs_library import load_liboqs
from support.require import require

LOADABLE = "libc.so.6"
"""A library that loads everywhere and has none of liboqs's functions."""


def forbid(*_arguments: object, **_options: object) -> NoReturn:
    """Stand in for something that must not be called."""
    pytest.fail("called")


def name_of(library: Any) -> str:
    """Tell which fake library was chosen."""
    return str(library.name)


@pytest.fixture
def no_system_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without liboqs: nothing known to the linker, no install path, an empty home."""
    monkeypatch.setattr(ctypes.util, "find_library", lambda _name: None)
    monkeypatch.delenv("OQS_INSTALL_PATH", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that fakes the candidates with their versions, and what ``import oqs`` yields."""

    def fake(versions: dict[str, str], module: Any = None) -> None:
        monkeypatch.setattr(liboqs_library, "_candidates", lambda: iter(versions))
        monkeypatch.setattr(ctypes, "CDLL", FakeLibrary)
        monkeypatch.setattr(ctypes, "CFUNCTYPE", lambda *_types: lambda _symbol: lambda: None)
        monkeypatch.setattr(liboqs_library, "version_of", lambda library: versions[library.name])
        monkeypatch.setattr(importlib.util, "find_spec", lambda _name: object() if module else None)
        monkeypatch.setattr(importlib, "import_module", lambda _name: module)

    return fake


class FakeLibrary:
    """A library that loads unless it is called ``broken``."""

    def __init__(self, name: str) -> None:
        if name == "broken":
            raise OSError("cannot be loaded")
        self.name = name


@pytest.mark.usefixtures("no_system_library")
def test_missing_library_is_unavailable_without_importing_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the C library liboqs-python is not touched, and the error says how to get one."""
    monkeypatch.setattr(importlib, "import_module", forbid)
    with pytest.raises(ProviderUnavailableError) as caught:
        load_liboqs()
    message = str(caught.value)
    assert message.startswith("liboqs is not installed: install liboqs")
    assert "make liboqs" in message
    assert "\n" not in message


@pytest.mark.usefixtures("no_system_library")
@pytest.mark.parametrize("directory", ["lib", "lib64"])
def test_library_is_looked_for_in_the_install_path(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, directory: str
) -> None:
    """``$OQS_INSTALL_PATH/lib`` and ``lib64`` are looked at, as liboqs-python does."""
    path = tmp_path / "installed" / directory / "liboqs.so"
    path.parent.mkdir(parents=True)
    path.touch()
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("OQS_INSTALL_PATH", str(tmp_path / "installed"))
    assert str(path) in list(liboqs_library._candidates())


@pytest.mark.usefixtures("no_system_library")
def test_library_is_looked_for_at_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without an install path it is ``~/_oqs``; a user without a home has no such place."""
    path = tmp_path / "_oqs" / "lib" / "liboqs.so"
    path.parent.mkdir(parents=True)
    path.touch()
    monkeypatch.setattr(sys, "platform", "linux")
    assert str(path) in list(liboqs_library._candidates())

    def homeless() -> NoReturn:
        raise RuntimeError("no home")

    monkeypatch.setattr(Path, "home", homeless)
    assert list(liboqs_library._candidates()) == []


def test_library_known_to_the_linker_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the linker knows is preferred, as liboqs-python does."""
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: "liboqs.so.9" if name == "oqs" else None)
    assert next(iter(liboqs_library._candidates())) == "liboqs.so.9"


def test_first_library_that_loads_and_is_new_enough_is_taken(pretend: Callable[..., None]) -> None:
    """Broken and old libraries are passed over."""
    pretend({"broken": "0.16.0", "old": "0.12.1", "nameless": "", "good": "0.14.0-rc1", "better": "1.0"})
    assert name_of(load_liboqs()) == "good"


@pytest.mark.parametrize(("version", "shown"), [("0.12.0", "0.12.0"), ("", r"\?")])
def test_library_that_is_too_old_is_unavailable(pretend: Callable[..., None], version: str, shown: str) -> None:
    """The error names the version found and the one expected."""
    pretend({"old": version})
    with pytest.raises(ProviderUnavailableError, match=f"^liboqs {shown} is too old, expected 0.13 or newer"):
        load_liboqs()


def test_handle_of_liboqs_python_is_used_if_it_fits(pretend: Callable[..., None]) -> None:
    """The library that liboqs-python loaded is the one we use, if it is of the version we found."""
    for version, used in (("0.16.0", "theirs"), ("0.15.0", "ours")):
        theirs = FakeLibrary("theirs")
        pretend({"ours": "0.16.0", "theirs": version}, SimpleNamespace(native=lambda theirs=theirs: theirs))
        assert name_of(load_liboqs()) == used


@pytest.mark.parametrize("failure", [ImportError, AttributeError, RuntimeError, SystemExit, OSError])
def test_liboqs_python_that_does_not_fit_is_done_without(
    pretend: Callable[..., None], failure: type[BaseException]
) -> None:
    """Whatever its import raises, the library itself still serves."""

    def native() -> NoReturn:
        raise failure("made for another version")

    pretend({"ours": "0.13.0"}, SimpleNamespace(native=native))
    assert name_of(load_liboqs()) == "ours"


def test_liboqs_python_leaves_no_handler_behind(pretend: Callable[..., None]) -> None:
    """Its logger, which would write to standard output, is silenced while it loads and emptied afterwards."""
    logger = logging.getLogger("oqs.oqs")

    def native() -> FakeLibrary:
        logger.addHandler(logging.StreamHandler(sys.stdout))
        assert logger.disabled
        return FakeLibrary("ours")

    pretend({"ours": "0.16.0"}, SimpleNamespace(native=native))
    load_liboqs()
    assert not logger.disabled
    assert not logger.handlers


def test_version_of_another_library_is_empty() -> None:
    """A library without ``OQS_version`` has no version."""
    try:
        library = ctypes.CDLL(LOADABLE)
    except OSError:
        pytest.skip("not a glibc system")
    assert liboqs_library.version_of(library) == ""


def run_auto(environment: dict[str, str]) -> tuple[str, str]:
    """Load the provider ``auto`` in a fresh process; return what it printed and its errors."""
    code = "from antquic_server.pqc.select import load_provider; print(load_provider('auto').name)"
    process = subprocess.run(
        [sys.executable, "-c", code],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return process.stdout, process.stderr


def test_auto_does_not_import_liboqs_python_without_the_library(tmp_path: Path) -> None:
    """No countdown, no build, no warning: just a provider that works."""
    if ctypes.util.find_library("oqs") is not None:
        pytest.skip("the system has liboqs")
    (tmp_path / "oqs.py").write_text("print('imported')\n")
    nowhere = {"HOME": str(tmp_path), "OQS_INSTALL_PATH": str(tmp_path), "PYTHONPATH": str(tmp_path)}
    assert run_auto(nowhere) == ("cryptography\n", "")


def test_auto_is_silent_with_the_library(tmp_path: Path) -> None:
    """The notes and warnings of liboqs-python do not reach standard output, which is for the ready line."""
    try:
        load_liboqs()
    except ProviderUnavailableError as exc:
        require(False, str(exc))
    place = {"HOME": str(tmp_path), "OQS_INSTALL_PATH": os.environ.get("OQS_INSTALL_PATH", "")}
    assert run_auto(place) == ("liboqs\n", "")
