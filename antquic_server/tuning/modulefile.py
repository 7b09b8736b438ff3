"""
Which kernel module the next start loads before it reads our settings: our file in ``/etc/modules-load.d``.

The keys below ``net.netfilter`` come with the module nf_conntrack. A firewall loads it only after systemd-sysctl has
been through its files, which leaves out keys that are not there yet (``sysctl.d(5)``). systemd-modules-load comes
before both. The module alone tracks nothing: it takes a rule that asks for it.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from antquic_server.tuning.bootfile import BOOT_FILE, files_in_order
from antquic_server.tuning.record import Record, RecordError, write_atomically

__all__ = [
    "MODULE",
    "MODULE_FILE",
    "comes_with_module",
    "foreign_modules",
    "is_loaded_at_boot",
    "is_ours",
    "needs_module",
    "write_module_file",
]

MODULE = "nf_conntrack"
MODULE_FILE = Path("etc", "modules-load.d", "antquic-server.conf")

_DIRECTORIES = tuple(f"{parent}/modules-load.d" for parent in ("etc", "run", "usr/local/lib", "usr/lib", "lib"))
_HEADER = "# Written by `antquic-server tune apply`; `antquic-server tune revert` removes it."


def comes_with_module(key: str) -> bool:
    """Return whether a setting is there only while the module is loaded."""
    return key.startswith("net.netfilter.")


def needs_module(record: Record) -> bool:
    """Return whether one of the recorded settings does."""
    return any(comes_with_module(entry.key) for entry in record.entries)


def is_loaded_at_boot(root: Path) -> bool:
    """Return whether a file says that a start is to load the module, ours or anybody's."""
    for path in files_in_order(root, _DIRECTORIES):
        with suppress(OSError, UnicodeDecodeError):
            if MODULE in _modules(path):
                return True
    return False


def is_ours(path: Path) -> bool:
    """Return whether the file was written here."""
    with suppress(OSError, UnicodeDecodeError):
        return path.read_text().startswith(_HEADER)
    return False


def foreign_modules(path: Path) -> list[str]:
    """
    Return the modules in the file that were not written here; none where there is no file.

    Raises:
        RecordError: The file cannot be read.
    """
    try:
        return [name for name in _modules(path) if name != MODULE]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise RecordError(f"{path}: cannot be read: {error}") from None


def write_module_file(path: Path) -> None:
    """
    Write the file that has the module loaded.

    Raises:
        RecordError: It cannot be written.
    """
    reason = f"# The keys net.netfilter.* in /{BOOT_FILE} are there only with it."
    write_atomically(path, f"{_HEADER}\n{reason}\n{MODULE}\n")


def _modules(path: Path) -> Iterator[str]:
    """Names of modules as the kernel writes them: with ``_``, where a file may have ``-``."""
    for line in map(str.strip, path.read_text().splitlines()):
        if line and not line.startswith(("#", ";")):
            yield line.replace("-", "_")
