"""
Find and load liboqs without surprises.

liboqs-python is the usual way to it, but importing it where the C library is missing counts down five seconds
and then downloads and builds one; where its own version differs from the library's it warns, it prints to
standard output, and with a library a few versions older it cannot be imported at all. So the library is
looked for first, at the places where liboqs-python would look, and loaded by itself to be sure. Only then is
liboqs-python imported, silently; if it does not get along with the library, that handle of our own is used,
since all we need are its C functions.
"""

import ctypes
import ctypes.util
import importlib
import importlib.util
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

from antquic_server.errors import ProviderUnavailableError

__all__ = ["load_liboqs", "version_of"]

_MINIMUM_VERSION = (0, 13)
"""First release with key generation from a seed (``OQS_KEM_keypair_derand``)."""
_HOW_TO_GET = (
    "install liboqs (packages of Fedora, Homebrew, MacPorts and FreeBSD), or run 'make liboqs' and set "
    'OQS_INSTALL_PATH to the directory it prints, or set pqc.provider to "cryptography"'
)


def load_liboqs() -> ctypes.CDLL:
    """
    Return a handle of an initialised liboqs, 0.13 or newer.

    Raises:
        ProviderUnavailableError: There is none, or it is too old; one line, with the way to get it.
    """
    library, version = _open_library()
    handle = _handle_of_liboqs_python()
    if handle is not None and version_of(handle) == version:
        return handle
    ctypes.CFUNCTYPE(None)(("OQS_init", library))()
    return library


def _open_library() -> tuple[ctypes.CDLL, str]:
    too_old = ""
    for candidate in _candidates():
        try:
            library = ctypes.CDLL(candidate)
        except OSError:
            continue  # liboqs-python skips it just so
        version = version_of(library)
        numbers = re.match(r"(\d+)\.(\d+)", version)
        if numbers is not None and (int(numbers[1]), int(numbers[2])) >= _MINIMUM_VERSION:
            return library, version
        too_old = f"liboqs {version or '?'} is too old, expected 0.13 or newer"
    raise ProviderUnavailableError(f"{too_old or 'liboqs is not installed'}: {_HOW_TO_GET}")


def _candidates() -> Iterator[str]:
    """Yield names and paths in the order of liboqs-python, which would not see a library elsewhere."""
    for name in ("liboqs", "oqs"):
        found = ctypes.util.find_library(name)
        if found:
            yield found
    suffix = ".dylib" if sys.platform == "darwin" else ".so"
    configured = os.environ.get("OQS_INSTALL_PATH")
    try:
        installation = Path.home() / "_oqs" if configured is None else Path(configured)
    except RuntimeError:
        return  # a system user without a home directory
    for directory in ("lib", "lib64"):
        # Whether it exists is for the loader to say: looking may be forbidden, which is no reason to fail.
        yield str((installation / directory / f"liboqs{suffix}").absolute())


def version_of(library: ctypes.CDLL) -> str:
    """Return the version a loaded liboqs says it has, as ``0.13.0``; empty if it is too old to say."""
    try:
        text = ctypes.CFUNCTYPE(ctypes.c_char_p)(("OQS_version", library))()
    except AttributeError:
        return ""  # added in 0.7
    return text.decode("ascii", "replace") if isinstance(text, bytes) else ""


def _handle_of_liboqs_python() -> ctypes.CDLL | None:
    if importlib.util.find_spec("oqs") is None:
        return None
    logger = logging.getLogger("oqs.oqs")
    logger.disabled = True  # it logs to standard output, which is for our ready line
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = importlib.import_module("oqs")
        handle = module.native()
    except (ImportError, AttributeError, OSError, RuntimeError, SystemExit):
        # Made for another version of liboqs (0.16 misses a function in 0.13), or a namesake.
        return None
    finally:
        logger.disabled = False
        logger.handlers.clear()
    return handle if isinstance(handle, ctypes.CDLL) else None
