"""Where the files of ``tuning/`` are: beside the checkout, or where an installed package has put them."""

import sys
from collections.abc import Iterator
from pathlib import Path

import antquic_server
from antquic_server.tuning.catalogue import CatalogueError

__all__ = ["tuning_directory"]

_SHARED = Path("share", "antquic-server", "tuning")
_MARK = Path("linux", "buffers.conf")
"""Another package may be called ``tuning``: only a directory that has this is ours."""


def tuning_directory() -> Path:
    """
    Return the directory with the settings files and scripts of every platform.

    Raises:
        CatalogueError: It is nowhere; the text lists where it was looked for.
    """
    places = list(_places())
    for place in places:
        if (place / _MARK).is_file():
            return place
    raise CatalogueError("the tuning files are missing, expected in " + " or ".join(map(str, places)))


def _places() -> Iterator[Path]:
    beside = Path(antquic_server.__file__).resolve().parents[1]
    yield beside / "tuning"
    yield Path(sys.prefix) / _SHARED
    # `pip install --target DIR` puts both into DIR, `--user` and Debian's Python both below one prefix.
    yield beside / _SHARED
    yield from (parent.parent / _SHARED for parent in beside.parents if parent.name in ("lib", "lib64"))
