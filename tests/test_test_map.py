"""Tests mirror modules: each module has its test file, each test file has its module."""

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
TESTS = REPOSITORY / "tests"
PACKAGES = ("antquic_server", "workers")

WITHOUT_TEST = {
    "antquic_server/__main__.py": "one call; tests/antquic_server/test_cli.py runs it as a process",
    "workers/__main__.py": "two calls; tests/workers/test_orphan.py runs it as a process",
}

WITHOUT_MODULE = {
    "antquic_server/protocol/seam/test_contract.py": "the private names borrowed from aioquic, all modules together",
}


def _expected_tests() -> dict[str, str]:
    """Test file for each module, both relative."""
    expected = {}
    for package in PACKAGES:
        for path in sorted((REPOSITORY / package).rglob("*.py")):
            if path.name != "__init__.py":
                module = path.relative_to(REPOSITORY)
                expected[str(module)] = str(module.with_name(f"test_{path.name}"))
    return expected


def _actual_tests() -> set[str]:
    return {str(path.relative_to(TESTS)) for package in PACKAGES for path in (TESTS / package).rglob("test_*.py")}


def test_every_module_has_its_test_file() -> None:
    """A module without a test file of its own is missing its tests, unless the table says why not."""
    actual = _actual_tests()
    missing = {module for module, test in _expected_tests().items() if test not in actual}

    assert missing == set(WITHOUT_TEST)


def test_every_test_file_has_its_module() -> None:
    """A test file without a module is a leftover, unless the table says what it is about."""
    orphans = _actual_tests() - set(_expected_tests().values())

    assert orphans == set(WITHOUT_MODULE)


def test_test_directories_are_not_packages() -> None:
    """An __init__ in tests/ would let tests/antquic_server pass for the package of that name."""
    assert list(TESTS.rglob("__init__.py")) == []
