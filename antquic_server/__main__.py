"""Lets ``python -m antquic_server`` do what the installed command does."""

import sys

from antquic_server.cli import main

if __name__ == "__main__":
    sys.exit(main())
