"""The one line on standard output that says a node serves."""

import json
import sys
from collections.abc import Mapping
from typing import Final

from antquic_server.log_lines import has_room
from antquic_server.logs import get_logger

__all__ = ["print_ready_line"]

_STANDARD_OUTPUT_FD: Final = 1
_READER_PATIENCE_S: Final = 0.5
"""How long the node waits for whoever is to read the line."""

log = get_logger(__name__)


def print_ready_line(facts: Mapping[str, object]) -> None:
    """Write facts as one line of JSON; whoever started the node and does not read is no reason not to serve."""
    try:
        if has_room(_STANDARD_OUTPUT_FD, timeout_s=_READER_PATIENCE_S):
            sys.stdout.write(json.dumps(facts) + "\n")
            sys.stdout.flush()
        else:
            log.warning("cannot write the ready line", error="nobody reads it")
    except OSError as error:
        log.warning("cannot write the ready line", error=str(error))
