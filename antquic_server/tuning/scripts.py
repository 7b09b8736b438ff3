"""Which script tunes a system that is not Linux, and how it is called."""

from pathlib import Path

from antquic_server.errors import CannotBootError

__all__ = ["script_command"]


def script_command(platform: str, directory: Path, action: str, *, dry_run: bool, force: bool) -> list[str]:
    """
    Return the command for an action (``check``, ``apply``, ``revert``) on a platform (as in ``sys.platform``).

    Raises:
        CannotBootError: There is no script for this platform.
    """
    if platform == "darwin":
        options = [*(["--dry-run"] if dry_run else []), *(["--force"] if force else [])]
        return ["/bin/sh", str(directory / "macos" / "tune.sh"), action, *options]
    if platform == "win32":
        options = [*(["-WhatIf"] if dry_run else []), *(["-Force"] if force else [])]
        script = str(directory / "windows" / "Set-AntQuicTuning.ps1")
        shell = ["powershell.exe", "-NoProfile", "-ExecutionPolicy", "Bypass", "-File"]
        return [*shell, script, f"-{action.capitalize()}", *options]
    raise CannotBootError(f"tune knows no settings of {platform}: expected linux, darwin or win32")
