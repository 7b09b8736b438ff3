"""Every file in docs/examples/ works as it stands."""

import os
import stat
from pathlib import Path

import pytest

from antquic_server.config.load import load_settings

EXAMPLES = Path(__file__).resolve().parents[1] / "docs" / "examples"
CONFIGURATIONS = sorted(EXAMPLES.glob("*.toml"))


def test_every_example_is_of_a_kind_that_is_tested() -> None:
    """An example of a new kind needs a test here that runs it."""
    assert sorted(EXAMPLES.iterdir()) == CONFIGURATIONS
    assert CONFIGURATIONS != []


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: path.name)
def test_example_configuration_loads(path: Path) -> None:
    """The loader accepts the file, every key of it."""
    load_settings(path)


def test_examples_are_plain_files() -> None:
    """An example can be copied as it is: readable and not executable."""
    for path in EXAMPLES.iterdir():
        mode = path.stat().st_mode
        assert stat.S_ISREG(mode)
        assert not mode & stat.S_IXUSR, path
        assert os.access(path, os.R_OK), path
