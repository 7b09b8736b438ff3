"""
Has this process end with its supervisor, before it has loaded anything else.

A worker inherits every slot's sockets the moment it is started. One whose supervisor is killed while it still loads
its modules, which takes a second on a busy machine, would keep the node's ports from the next supervisor for as long.
So ``__main__`` calls this first, and this module imports next to nothing.
"""

import contextlib
import ctypes
import os
import signal
import socket
import sys

__all__ = ["CHANNEL_VARIABLE", "die_with_supervisor"]

CHANNEL_VARIABLE = "ANTQUIC_CHANNEL_FD"
"""Environment variable with the number of the descriptor that is the channel to the supervisor."""

PR_SET_PDEATHSIG = 1
"""From <linux/prctl.h>."""


def die_with_supervisor() -> bool:
    """
    Have the kernel end this process when the supervisor dies, where it can; False if that has happened already.

    A worker whose loop runs sees the end of its channel anyway; one that is frozen would keep the node's sockets, and
    with them its ports, for ever.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    # The request says nothing of a supervisor that was gone before. The channel does, and unlike the number of the
    # parent process it means the same in a container, where the supervisor may be number 1.
    return not _channel_has_ended()


def _channel_has_ended() -> bool:
    value = os.environ.get(CHANNEL_VARIABLE, "")
    # Whether it is a channel at all is for ``bootstrap`` to say.
    with contextlib.suppress(ValueError, OSError), socket.socket(fileno=os.dup(int(value))) as channel:
        return channel.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    return False
