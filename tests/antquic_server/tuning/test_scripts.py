"""Which script tunes which system."""

from pathlib import Path

import pytest

from antquic_server.errors import CannotBootError
from antquic_server.tuning.places import tuning_directory
from antquic_server.tuning.scripts import script_command


def test_macos_has_a_shell_script() -> None:
    """Which takes the action and the options as they are."""
    directory = tuning_directory()
    command = script_command("darwin", directory, "revert", dry_run=True, force=True)

    assert command == ["/bin/sh", f"{directory}/macos/tune.sh", "revert", "--dry-run", "--force"]
    assert Path(command[1]).is_file()


def test_windows_has_a_powershell_script() -> None:
    """With its own names for the same."""
    directory = tuning_directory()
    command = script_command("win32", directory, "apply", dry_run=True, force=False)

    assert command[0] == "powershell.exe"
    assert command[-3:] == [f"{directory}/windows/Set-AntQuicTuning.ps1", "-Apply", "-WhatIf"]
    assert Path(command[-3]).is_file()
    assert script_command("win32", directory, "revert", dry_run=False, force=True)[-2:] == ["-Revert", "-Force"]


def test_other_systems_have_none() -> None:
    """And say so in one line."""
    with pytest.raises(CannotBootError, match="tune knows no settings of freebsd14: expected linux, darwin or win32"):
        script_command("freebsd14", tuning_directory(), "check", dry_run=False, force=False)
