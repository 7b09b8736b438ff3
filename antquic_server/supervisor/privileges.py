"""
Giving up root.

Done by the supervisor once its sockets are bound and its keys are read, before the first worker is started: with
``endpoint.user`` set, what parses the datagrams of strangers was never root. Without it a node started as root stays
root, and its supervisor warns of that.
"""

import grp
import os
import pwd
from collections.abc import Callable
from dataclasses import dataclass

from antquic_server.errors import PrivilegeError


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """The user and group a node runs as; ``home`` is the user's directory, which need not exist."""

    user: str
    uid: int
    gid: int
    home: str


def find_account(user: str | None, group: str | None) -> Account:
    """
    Look the names up; None stands for the present user, or for the user's primary group.

    Raises:
        PrivilegeError: There is no such user or group.
    """
    try:
        entry = pwd.getpwnam(user) if user is not None else pwd.getpwuid(os.geteuid())
    except KeyError:
        raise PrivilegeError(f"endpoint.user: there is no user {user or os.geteuid()!r}") from None
    try:
        gid = grp.getgrnam(group).gr_gid if group is not None else entry.pw_gid
    except KeyError:
        raise PrivilegeError(f"endpoint.group: there is no group {group!r}") from None
    return Account(user=entry.pw_name, uid=entry.pw_uid, gid=gid, home=entry.pw_dir)


def drop_privileges(user: str | None, group: str | None) -> Account | None:
    """
    Become ``user`` and ``group`` for good.

    Returns:
        The account, or None when nothing had to change.

    Raises:
        PrivilegeError: No such account, this process is not root, or root could be had back afterwards.
    """
    if user is None and group is None:
        return None
    account = find_account(user, group)
    if os.getresuid() == (account.uid,) * 3 and os.getresgid() == (account.gid,) * 3:
        return None
    if os.geteuid() != 0:
        raise PrivilegeError(f"only root can become user {account.user!r} with group id {account.gid}")
    try:
        # In this order: without root's rights the groups could no longer be changed.
        os.setgroups([account.gid])
        os.setresgid(account.gid, account.gid, account.gid)
        os.setresuid(account.uid, account.uid, account.uid)
    except OSError as error:
        raise PrivilegeError(f"cannot become user {account.user!r}: {error.strerror}") from error
    _verify(account)
    return account


def _verify(account: Account) -> None:
    """Check from the outside what the calls above promise; a half-dropped process must not serve."""
    if os.getresuid() != (account.uid,) * 3 or os.getresgid() != (account.gid,) * 3:
        raise PrivilegeError(f"the system did not make this process user {account.user!r}")
    if os.getgroups() not in ([account.gid], []):
        raise PrivilegeError(f"user {account.user!r} has kept other groups: {os.getgroups()}")
    if account.uid == 0:
        return
    attempts: tuple[Callable[[], None], ...] = (
        lambda: os.setresuid(0, 0, 0),
        lambda: os.setuid(0),
        lambda: os.seteuid(0),
    )
    for regain in attempts:
        try:
            regain()
        except OSError:
            continue
        raise PrivilegeError(f"user {account.user!r} can become root again; refusing to serve")
