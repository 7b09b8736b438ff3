"""Tests of giving up root, in child processes, since there is no way back."""

import grp
import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from antquic_server.errors import PrivilegeError
from antquic_server.supervisor.privileges import drop_privileges, find_account

ROOT = Path(__file__).resolve().parents[3]
NOBODY = "nobody"

needs_root = pytest.mark.usefixtures("root")


def run_as_child(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", "from antquic_server.supervisor.privileges import *\nimport os\n" + code],
        # Coverage would try to write its data as the user the child becomes.
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")},
            "PYTHONPATH": str(ROOT),
        },
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def test_nothing_happens_without_names() -> None:
    """A node that was told nothing stays who it is."""
    before = os.getresuid(), os.getresgid(), os.getgroups()

    assert drop_privileges(None, None) is None
    assert (os.getresuid(), os.getresgid(), os.getgroups()) == before


def test_own_account_needs_no_rights() -> None:
    """Naming the user one already is changes nothing."""
    own = pwd.getpwuid(os.geteuid())
    group = grp.getgrgid(os.getegid()).gr_name

    assert drop_privileges(own.pw_name, group) is None


@pytest.mark.parametrize(("user", "group"), [("no-such-user", None), (None, "no-such-group")])
def test_unknown_names_cannot_boot(user: str | None, group: str | None) -> None:
    """A wrong name stops the start with its name and setting."""
    with pytest.raises(PrivilegeError, match=r"endpoint\.(user|group): there is no .*no-such"):
        drop_privileges(user, group)


def test_group_defaults_to_the_users_own() -> None:
    """The primary group comes with the user."""
    account = find_account(NOBODY, None)

    assert account.uid == pwd.getpwnam(NOBODY).pw_uid
    assert account.gid == pwd.getpwnam(NOBODY).pw_gid


@needs_root
def test_root_becomes_somebody_else_for_good() -> None:
    """All ids and groups change, and none of the calls that would bring root back works."""
    result = run_as_child(
        f"account = drop_privileges({NOBODY!r}, None)\n"
        "assert os.getresuid() == (account.uid,) * 3\n"
        "assert os.getresgid() == (account.gid,) * 3\n"
        "assert os.getgroups() == [account.gid]\n"
        "for regain in (os.setuid, os.seteuid, os.setgid):\n"
        "    try:\n"
        "        regain(0)\n"
        "    except PermissionError:\n"
        "        continue\n"
        "    raise SystemExit('regained')\n"
        f"assert drop_privileges({NOBODY!r}, None) is None\n"
        "print('dropped')\n"
    )

    assert (result.stdout, result.stderr, result.returncode) == ("dropped\n", "", 0)


@needs_root
def test_others_cannot_become_anybody() -> None:
    """Without root a different user is refused."""
    result = run_as_child(
        f"drop_privileges({NOBODY!r}, None)\n"
        "try:\n"
        "    drop_privileges('root', None)\n"
        "except PrivilegeError as error:\n"
        "    print(error)\n"
    )

    assert result.stdout == "only root can become user 'root' with group id 0\n", result.stderr
