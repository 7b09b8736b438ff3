"""House rules that a linter cannot know: floors, trust boundaries, one seam to aioquic, frozen values."""

import ast
import dataclasses
import enum
import importlib
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from antquic_server import errors
from antquic_server.protocol import codepoints

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGES = ("antquic_server", "workers")
SEAM = "antquic_server.protocol.seam"
MAX_MODULE_LINES = 400
"""Past this, a second question has moved into the module."""

VALUE_MODULES = (
    "antquic_server.config.model",
    "antquic_server.ipc.messages",
    "antquic_server.ipc.punch_messages",
    "antquic_server.protocol.address",
    "antquic_server.protocol.coordination",
    "antquic_server.protocol.coordinator",
    "antquic_server.protocol.frames",
    "antquic_server.protocol.parameters",
    "antquic_server.protocol.profiles",
    "antquic_server.protocol.punch_report",
    "antquic_server.protocol.routing",
    "antquic_server.tuning.actions",
    "antquic_server.tuning.catalogue",
    "antquic_server.tuning.effects",
    "antquic_server.tuning.kernel",
    "antquic_server.tuning.plan",
    "antquic_server.tuning.record",
    "antquic_server.tuning.rules",
    "workers.surroundings",
)

ALERT_RAISERS = (f"{SEAM}.tls_context",)
"""Inside the TLS code the decode error is the TLS alert itself: aioquic turns it into CONNECTION_CLOSE."""


STOCK_BY_DESIGN = ("antquic_server.bench.stock_server",)
"""The yardstick of a benchmark is aioquic exactly as its documentation shows it, protected members and all."""


def _modules() -> dict[str, Path]:
    found = {}
    for package in PACKAGES:
        for path in sorted((REPOSITORY / package).rglob("*.py")):
            parts = path.relative_to(REPOSITORY).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = _modules()
TREES = {name: ast.parse(path.read_text(), str(path)) for name, path in MODULES.items()}


def _functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def _imported_from(tree: ast.AST, package: str) -> set[str]:
    """Names a module binds by importing from ``package`` or below."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == package:
            names.update(alias.asname or alias.name for alias in node.names)
        elif isinstance(node, ast.Import):
            names.update(
                alias.asname or alias.name.split(".")[0] for alias in node.names if alias.name.split(".")[0] == package
            )
    return names


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


@pytest.mark.parametrize("name", [name for name in MODULES if MODULES[name].name == "__init__.py"])
def test_package_init_holds_only_its_docstring(name: str) -> None:
    """Importing one part never loads another: an __init__ has a docstring and at most the version."""
    docstring, *rest = TREES[name].body

    assert isinstance(docstring, ast.Expr)
    assert isinstance(docstring.value, ast.Constant)
    for statement in rest:
        assert isinstance(statement, ast.Assign), ast.unparse(statement)
        assert ast.unparse(statement.targets[0]) == "__version__"


def test_modules_stay_readable() -> None:
    """No module is so long that it must answer two questions."""
    lengths = {name: len(path.read_text().splitlines()) for name, path in MODULES.items()}

    assert {name: length for name, length in lengths.items() if length > MAX_MODULE_LINES} == {}


def test_every_module_has_a_floor() -> None:
    """The import rules name every module of the library, so that none can escape them."""
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["importlinter"]
    (layers,) = (contract["layers"] for contract in settings["contracts"] if contract["type"] == "layers")
    floors = {module.strip() for layer in layers for module in re.split(r"[|:]", layer)}

    homeless = {
        name
        for name, path in MODULES.items()
        if name.startswith("antquic_server.")
        and path.name != "__init__.py"
        and not any(name == floor or name.startswith(floor + ".") for floor in floors)
    }
    assert homeless == set()


@pytest.mark.parametrize("name", [name for name in MODULES if not name.startswith((SEAM, *STOCK_BY_DESIGN))])
def test_only_the_seam_names_private_parts_of_aioquic(name: str) -> None:
    """Outside the seam nobody imports aioquic's underscore names, reaches into its objects or derives from it."""
    tree = TREES[name]
    stock_names = _imported_from(tree, "aioquic")

    assert not [item for item in stock_names if _is_private(item)]
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            bases = {ast.unparse(base).split(".")[0] for base in node.bases}
            assert not bases & stock_names, f"{node.name} derives from aioquic"
        if isinstance(node, ast.Attribute) and stock_names and _is_private(node.attr):
            owner = ast.unparse(node.value)
            assert owner.split(".")[0] in ("self", "cls"), f"{owner}.{node.attr}"
            assert "." not in owner or owner.startswith(("self._", "cls._")), owner


@pytest.mark.parametrize("name", [name for name in MODULES if ".protocol." in name or ".ipc." in name])
def test_parsers_of_foreign_bytes_are_marked(name: str) -> None:
    """A public function that pulls or decodes carries the suffix by which the trust boundary can be audited."""
    for function in _functions(TREES[name]):
        if re.match(r"(pull|decode)_", function.name):
            assert function.name.endswith("_untrusted"), function.name


@pytest.mark.parametrize("name", sorted(MODULES))
def test_untrusted_functions_raise_only_decode_errors(name: str) -> None:
    """Whatever the bytes, only the decode error family leaves a function that is marked as reading them."""
    marked = [function for function in _functions(TREES[name]) if function.name.endswith("_untrusted")]
    module = importlib.import_module(name) if marked else None
    for function in marked:
        for node in ast.walk(function):
            if isinstance(node, ast.Raise) and node.exc is not None:
                call = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
                raised = ast.unparse(call)
                if raised.startswith("tls.Alert"):
                    assert name in ALERT_RAISERS, f"{name}.{function.name} raises {raised}"
                    continue
                kind = getattr(module, raised, None)
                assert isinstance(kind, type), f"{name}.{function.name} raises {raised}"
                assert issubclass(kind, errors.DecodeError), f"{name}.{function.name} raises {raised}"


def _drawn_tree() -> dict[str, str]:
    """Read class → parent from the drawing in the docstring of ``errors``."""
    parents: dict[str, str] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"    ([│├└─ ]*)([A-Z]\w+)", line)
        if match is None:
            continue
        depth = len(match[1]) // 4
        del path[depth:]
        if path:
            parents[match[2]] = path[-1]
        path.append(match[2])
    return parents


def test_error_tree_is_as_drawn() -> None:
    """The drawing in the docstring of ``errors`` shows every class, under the parent it has."""
    classes = {
        name: value
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.AntQuicError)
    }
    actual = {name: value.__bases__[0].__name__ for name, value in classes.items()}
    del actual["AntQuicError"]

    assert _drawn_tree() == actual


@pytest.mark.parametrize("name", sorted(MODULES))
def test_no_errors_outside_the_tree(name: str) -> None:
    """Exceptions derive from the one tree, TLS alerts of the seam apart, and nobody raises a bare Exception."""
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.ClassDef) and name != "antquic_server.errors":
            bases = {ast.unparse(base) for base in node.bases}
            assert not bases & {"Exception", "BaseException", "ValueError", "RuntimeError"}, node.name
        if isinstance(node, ast.Raise) and node.exc is not None:
            call = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            assert ast.unparse(call) not in ("Exception", "BaseException", "RuntimeError"), node.lineno


def _dataclasses_of(module: ModuleType) -> Iterator[type]:
    for value in vars(module).values():
        if isinstance(value, type) and value.__module__ == module.__name__ and dataclasses.is_dataclass(value):
            yield value


@pytest.mark.parametrize("name", VALUE_MODULES)
def test_values_are_frozen(name: str) -> None:
    """Settings, frames, messages and addresses cannot change under the feet of whoever holds one."""
    for kind in _dataclasses_of(importlib.import_module(name)):
        parameters = kind.__dataclass_params__  # type: ignore[attr-defined]
        assert parameters.frozen, kind
        assert "__slots__" in vars(kind), kind


def test_settings_carry_their_unit() -> None:
    """A setting that is a fraction says of what: seconds, a rate per second, a multiplier."""
    model = importlib.import_module("antquic_server.config.model")
    for kind in _dataclasses_of(model):
        for field in dataclasses.fields(kind):
            if field.type in (float, "float"):
                assert re.search(r"_(s|ms|multiplier|burst)$", field.name), f"{kind.__name__}.{field.name}"


def _registries() -> list[type[enum.IntEnum]]:
    return [getattr(codepoints, name) for name in codepoints.__all__]


@pytest.mark.parametrize("registry", _registries(), ids=lambda registry: registry.__name__)
def test_wire_numbers_are_given_out_once(registry: type[enum.IntEnum]) -> None:
    """Within a registry each number has one name; an alias would be a second meaning."""
    assert len(registry.__members__) == len(set(registry))


@pytest.mark.parametrize(
    "name", [name for name in MODULES if ".protocol." in name and not name.endswith(".codepoints")]
)
def test_wire_numbers_live_in_codepoints(name: str) -> None:
    """No protocol module spells out a number that a registry names."""
    known = {int(member) for registry in _registries() for member in registry if member > 0xFF}
    source = MODULES[name].read_text()
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Constant) and type(node.value) is int and node.value in known:
            spelled = ast.get_source_segment(source, node) or ""
            assert not spelled.lower().startswith("0x"), f"{name}:{node.lineno}: {spelled}"
