"""Entry point of ``python -m workers``; started by the supervisor only."""

import sys

from antquic_server.errors import ExitCode
from workers.orphan import die_with_supervisor

if __name__ == "__main__":
    if not die_with_supervisor():
        sys.exit(ExitCode.FAILURE)
    # Only now: from here on it takes a second, in which the supervisor may die.
    from workers.bootstrap import main

    sys.exit(main())
