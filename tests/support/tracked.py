"""A program that executes what it is given, as a worker does into which a debugger got it; its memory is looked at."""

import json
import sys
import threading

__all__: list[str] = []


def hog() -> bytes:
    """Allocate ten megabytes."""
    return bytes(10_000_000)


def main() -> None:
    """Execute the first line, a JSON text, on a thread; hold ten megabytes for each further one; end with the input."""
    thread = threading.Thread(target=exec, args=(json.loads(sys.stdin.readline()), {}))
    thread.start()
    kept = [hog() for _ in sys.stdin]
    thread.join()
    del kept


if __name__ == "__main__":
    main()
