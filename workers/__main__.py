"""Entry point of ``python -m workers``; started by the supervisor only."""

import sys

from workers.bootstrap import main

if __name__ == "__main__":
    sys.exit(main())
