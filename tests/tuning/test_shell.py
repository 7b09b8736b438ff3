"""Every shell script of the tree passes shellcheck."""

import shutil
import subprocess
from pathlib import Path

import pytest

from support.require import require

REPOSITORY = Path(__file__).resolve().parents[2]
SCRIPTS = [
    path
    for path in sorted(REPOSITORY.rglob("*.sh"))
    if not {".venv", ".git", "build", "node_modules"} & set(path.relative_to(REPOSITORY).parts)
]
OURS = [path for path in SCRIPTS if path.is_relative_to(REPOSITORY / "tuning")]


def test_the_scripts_for_tuning_are_among_them() -> None:
    """A search that finds nothing would pass."""
    names = [str(path.relative_to(REPOSITORY)) for path in SCRIPTS]

    assert {"tuning/linux/queues.sh", "tuning/macos/tune.sh", "scripts/build-peers.sh"} <= set(names)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_has_no_complaint(path: Path) -> None:
    """With every check that is on by default."""
    require(shutil.which("shellcheck"), "shellcheck is missing (Debian package of that name)")
    run = subprocess.run(["shellcheck", path], capture_output=True, text=True, check=False)

    assert (run.returncode, run.stdout) == (0, "")


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.name)
def test_the_scripts_for_tuning_can_be_run_and_are_plain_sh(path: Path) -> None:
    """They run on systems without bash."""
    assert path.read_text().startswith("#!/bin/sh\n")
    assert path.stat().st_mode & 0o111
