"""The stages of a worker's life."""

from enum import StrEnum


class Stage(StrEnum):
    """From process start to exit; only ever moves forward."""

    SPARE = "spare"
    SERVING = "serving"
    DRAINING = "draining"
    STOPPED = "stopped"
