"""Reading and writing settings below a directory that stands for the system."""

import os
from pathlib import Path

import pytest

from antquic_server.tuning.kernel import FixedHereError, Kernel, KernelError, NoSuchKeyError
from support.tuned_system import key_file, make_system

KEY = "net.core.rmem_max"


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    """A system with a few settings."""
    return Kernel(root=make_system(tmp_path, {KEY: "212992", "net.ipv4.udp_mem": "1\t2\t3", "fs.file-max": "9"}))


def test_a_value_is_read_as_it_is(kernel: Kernel) -> None:
    """Without the line's end, with its tabs, dashes in names included."""
    assert kernel.read("net.ipv4.udp_mem") == "1\t2\t3"
    assert kernel.read("fs.file-max") == "9"


def test_a_value_is_written_in_place(kernel: Kernel) -> None:
    """The file stays the same one, and says what was written."""
    before = key_file(kernel.root, KEY).stat().st_ino
    kernel.write(KEY, "26214400")

    assert kernel.read(KEY) == "26214400"
    assert key_file(kernel.root, KEY).stat().st_ino == before


@pytest.mark.parametrize("key", ["net.core.nothing", "net.core.rmem_max.below"])
def test_what_is_not_there_is_not_made(kernel: Kernel, key: str) -> None:
    """A key of a module that is not loaded has no file, and gets none."""
    with pytest.raises(NoSuchKeyError):
        kernel.read(key)
    with pytest.raises(NoSuchKeyError):
        kernel.write(key, "1")
    assert not key_file(kernel.root, key).exists()


def test_what_nobody_may_write_belongs_to_the_machine(kernel: Kernel) -> None:
    """As the kernel shows it inside a namespace; root's right to write every file does not count."""
    key_file(kernel.root, KEY).chmod(0o444)

    with pytest.raises(FixedHereError, match="only on the machine"):
        kernel.write(KEY, "26214400")
    assert kernel.read(KEY) == "212992"


def test_a_kernel_that_takes_another_value_is_noticed(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some settings are rounded or bounded without an error."""
    monkeypatch.setattr(Kernel, "read", lambda self, key: "4194304")

    with pytest.raises(KernelError, match="was set to '26214400', but the kernel has '4194304'"):
        kernel.write(KEY, "26214400")


def test_what_cannot_be_read_says_why(kernel: Kernel) -> None:
    """A directory where a setting should be is no setting."""
    with pytest.raises(KernelError, match=r"net\.core: cannot be read: Is a directory"):
        kernel.read("net.core")
    with pytest.raises(KernelError, match=r"net\.core: cannot be set to '1': Is a directory"):
        kernel.write("net.core", "1")


def test_a_directory_that_may_not_be_entered_says_so(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where looking alone is refused."""

    def forbid(path: Path, **options: object) -> None:
        raise PermissionError(13, "ignored")

    monkeypatch.setattr(Path, "stat", forbid)
    with pytest.raises(KernelError, match=r"rmem_max: cannot be read: Permission denied"):
        kernel.require_writable(KEY)


def test_bytes_that_are_no_text_are_no_value(kernel: Kernel) -> None:
    """They are reported instead of ending in a traceback."""
    key_file(kernel.root, KEY).write_bytes(b"\xff\xfe")

    with pytest.raises(KernelError, match="cannot be read"):
        kernel.read(KEY)


def test_a_refused_write_says_why(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the system's words."""

    def refuse(*arguments: object) -> int:
        raise OSError(22, "ignored")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(KernelError, match="cannot be set to 'x': Invalid argument"):
        kernel.write(KEY, "x")


def test_a_system_mounted_for_reading_is_fixed(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """As most containers have it; noticed at the latest when writing."""

    def refuse(*arguments: object) -> int:
        raise OSError(30, "ignored")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(FixedHereError, match="mounted for reading only"):
        kernel.write(KEY, "1")
