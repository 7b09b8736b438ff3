"""Does the interpreter run at full speed: no debug build, no development switches, uvloop?"""

from collections.abc import Mapping

from antquic_server.doctor.case import Case, Check, Topic
from antquic_server.doctor.finding import Finding, ok, warning
from antquic_server.doctor.remedies import unit
from antquic_server.errors import CannotTellError

__all__ = ["CHECKS"]


def uvloop(case: Case) -> Finding:
    """Import it."""
    version = case.machine.interpreter().uvloop
    if version is None:
        return warning("uvloop cannot be imported: workers use the event loop of the standard library", _INSTALL_UVLOOP)
    return ok(f"uvloop {version}")


_INSTALL_UVLOOP = "python3 -m pip install 'uvloop>=0.19,<1'   # with the python of the node's environment"


def python_build(case: Case) -> Finding:
    """Look at how the interpreter was built."""
    interpreter = case.machine.interpreter()
    if interpreter.debug_build:
        return warning(
            f"Python {interpreter.version} is a debug build",
            "apt-get install python3 python3-venv   # and make the environment anew: make run",
        )
    found = f"Python {interpreter.version}, a release build"
    return ok(found if not interpreter.optimize else f"{found}, without assertions (-O), which gains nothing here")


def python_dev_mode(case: Case) -> Finding:
    """Look for ``-X dev`` and its variable, here and in the running node."""
    where = _where(case, "PYTHONDEVMODE", on=case.machine.interpreter().dev_mode)
    if where:
        return warning(f"development mode is on {where}", "unset PYTHONDEVMODE", unit("UnsetEnvironment=PYTHONDEVMODE"))
    return ok("development mode is off")


def asyncio_debug(case: Case) -> Finding:
    """Look for asyncio's debug mode, here and in the running node."""
    interpreter = case.machine.interpreter()
    where = _where(case, "PYTHONASYNCIODEBUG", on=interpreter.asyncio_debug and not interpreter.dev_mode)
    if where:
        fixes = "unset PYTHONASYNCIODEBUG", unit("UnsetEnvironment=PYTHONASYNCIODEBUG")
        return warning(f"asyncio's debug mode is on {where}", *fixes)
    return ok("asyncio's debug mode is off")


def python_malloc(case: Case) -> Finding:
    """Look for another allocator than the usual one, here and in the running node."""
    for variables, where in _environments(case):
        allocator = variables.get("PYTHONMALLOC", "")
        if allocator not in ("", "default", "pymalloc", "mimalloc"):
            fixes = "unset PYTHONMALLOC", unit("UnsetEnvironment=PYTHONMALLOC")
            return warning(f"PYTHONMALLOC={allocator[:40]} {where}", *fixes)
    return ok("the usual allocator")


def tracemalloc(case: Case) -> Finding:
    """Look whether every allocation is traced, here and in the running node."""
    where = _where(case, "PYTHONTRACEMALLOC", on=case.machine.interpreter().tracing_memory)
    if where:
        fixes = "unset PYTHONTRACEMALLOC", unit("UnsetEnvironment=PYTHONTRACEMALLOC")
        return warning(f"every allocation is traced {where}", *fixes)
    return ok("allocations are not traced")


def _where(case: Case, variable: str, *, on: bool) -> str:
    """Where something is switched on: for this command, or in the environment of the running node; else empty."""
    for variables, where in _environments(case):
        if variables.get(variable, "") not in ("", "0") or (on and variables is case.machine.environment):
            return where
    return ""


def _environments(case: Case) -> list[tuple[Mapping[str, str], str]]:
    """Environments to look at: ours, which a node started from here would have, and that of the running node."""
    found: list[tuple[Mapping[str, str], str]] = [(case.machine.environment, "in this environment")]
    if case.node_pid is not None:
        try:
            text = case.machine.read(f"/proc/{case.node_pid}/environ")
        except CannotTellError:
            return found
        variables = dict(entry.partition("=")[::2] for entry in text.split("\0"))
        found.append((variables, f"in the running node (process {case.node_pid})"))
    return found


CHECKS = (
    Check(
        name="uvloop",
        topic=Topic.PYTHON,
        looks_at="whether uvloop can be imported",
        why="it is the event loop of every worker; the one of the standard library is written in Python",
        effect="stock aioquic echoes 1.66 times as many datagrams in the same CPU time on uvloop "
        "(antquic-server bench datagram)",
        examine=uvloop,
    ),
    Check(
        name="python-build",
        topic=Topic.PYTHON,
        looks_at="debug build, and -O",
        why="a debug build of Python checks every object it touches",
        examine=python_build,
    ),
    Check(
        name="python-dev-mode",
        topic=Topic.PYTHON,
        looks_at="-X dev and PYTHONDEVMODE, of this command and of the running node",
        why="development mode switches on asyncio's debug mode and an allocator that checks itself",
        effect="a node echoes three quarters of the datagrams in the same CPU time; median of four "
        "(PYTHONDEVMODE=1 antquic-server bench datagram --quick, against the same without)",
        examine=python_dev_mode,
    ),
    Check(
        name="asyncio-debug",
        topic=Topic.PYTHON,
        looks_at="PYTHONASYNCIODEBUG, of this command and of the running node",
        why="every callback is timed and remembers where it was made",
        effect="a node echoes three quarters of the datagrams in the same CPU time; median of four "
        "(PYTHONASYNCIODEBUG=1 antquic-server bench datagram --quick, against the same without)",
        examine=asyncio_debug,
    ),
    Check(
        name="python-malloc",
        topic=Topic.PYTHON,
        looks_at="PYTHONMALLOC, of this command and of the running node",
        why="debug allocators fill and check every block; malloc is slower for small ones",
        effect="a node echoes nine tenths of the datagrams in the same CPU time; median of four "
        "(PYTHONMALLOC=debug antquic-server bench datagram --quick, against the same without)",
        examine=python_malloc,
    ),
    Check(
        name="tracemalloc",
        topic=Topic.PYTHON,
        looks_at="PYTHONTRACEMALLOC, of this command and of the running node",
        why="every allocation is written down with where it was made",
        effect="a node echoes a tenth of the datagrams in the same CPU time; median of four "
        "(PYTHONTRACEMALLOC=1 antquic-server bench datagram --quick, against the same without)",
        examine=tracemalloc,
    ),
)
"""In the order in which they are shown."""
