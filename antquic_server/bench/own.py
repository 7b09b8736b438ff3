"""Benchmarks of a user's own, from a Python file (``bench --load FILE``; docs/benchmarks.md)."""

import importlib.util
import sys
import traceback
from collections.abc import Collection
from pathlib import Path

from antquic_server.bench.benchmark import RESERVED_NAMES, Benchmark
from antquic_server.errors import UsageError

__all__ = ["load_benchmarks", "where"]


def load_benchmarks(path: Path, taken: Collection[str]) -> dict[str, Benchmark]:
    """
    Run the file as a module and return its ``BENCHMARKS``, by name; none may have a name in ``taken``.

    Raises:
        UsageError: The file cannot be read or run, or has no such dictionary.
    """
    if not path.is_file():
        raise UsageError(f"bench: --load {path}: no such file")
    # A module of its own name in sys.modules: dataclasses and pickles of the file look for it there.
    name = f"antquic_server_own_benchmark_{abs(hash(path.resolve()))}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"bench: --load {path}: expected a Python file, *.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UsageError(f"bench: --load {path}: {where(error, path)}") from error
    found = getattr(module, "BENCHMARKS", None)
    if not isinstance(found, dict) or not found:
        raise UsageError(f"bench: --load {path}: expected BENCHMARKS, a dictionary of names and Benchmark objects")
    for key, value in found.items():
        if not isinstance(key, str) or not isinstance(value, Benchmark):
            raise UsageError(f"bench: --load {path}: BENCHMARKS[{key!r}]: expected a Benchmark under a name")
        if key in taken or key in RESERVED_NAMES or key.startswith("-"):
            raise UsageError(f"bench: --load {path}: BENCHMARKS[{key!r}]: expected another name, this one is taken")
    return found


def where(error: BaseException, path: Path | None = None) -> str:
    """
    Return one line for an exception of somebody else's code: its type, its text and the line that raised it.

    The innermost line of ``path`` if one is given, which is the one its author can change; else the innermost of all.
    """
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if path is not None and Path(frame.filename) == path]
    place = ""
    # A syntax error names its own line; the frames are those of whoever tried to read it.
    if frames and not isinstance(error, SyntaxError):
        frame = (own or frames)[-1]
        place = f" ({Path(frame.filename).name}:{frame.lineno})"
    text = " ".join(str(error).split())
    return f"{type(error).__name__}{': ' + text if text else ''}{place}"
