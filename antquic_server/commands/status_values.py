"""
Values of a status document as words for people; whatever a value is, there is a word for it.

A missing value, or one of another kind than expected, is ``-``: an older command can so show a newer node.
"""

from collections.abc import Mapping

__all__ = [
    "UNKNOWN",
    "count",
    "decimal_rate",
    "duration",
    "milliseconds",
    "number",
    "percent",
    "size",
    "size_rate",
    "table",
    "tables",
    "text",
]

UNKNOWN = "-"


def table(value: object) -> Mapping[str, object]:
    """Return a JSON object, an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def tables(value: object) -> list[Mapping[str, object]]:
    """Return the JSON objects of a list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def number(value: object) -> float | None:
    """Return a finite number, None for anything else."""
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf"):
        return value
    return None


def text(value: object) -> str:
    """Show a string or number; characters that could command a terminal are escaped."""
    if value is None:
        return UNKNOWN
    shown = str(value)
    return shown if shown.isprintable() else ascii(shown)[1:-1]


def count(value: object) -> str:
    """Show a whole number with separators."""
    found = number(value)
    return UNKNOWN if found is None else f"{found:,.0f}"


def percent(value: object) -> str:
    """Show percent."""
    found = number(value)
    return UNKNOWN if found is None else f"{found:.1f}%"


def milliseconds(value: object) -> str:
    """Show seconds as milliseconds."""
    found = number(value)
    return UNKNOWN if found is None else f"{found * 1000:.1f} ms"


def size(value: object) -> str:
    """Show bytes in units of a thousand."""
    found = number(value)
    if found is None:
        return UNKNOWN
    for unit in ("B", "kB", "MB", "GB"):
        if abs(found) < 1000:
            return f"{found:.0f} {unit}" if unit == "B" else f"{found:.1f} {unit}"
        found /= 1000
    return f"{found:.1f} TB"


def size_rate(value: object) -> str:
    """Show bytes per second."""
    return UNKNOWN if number(value) is None else f"{size(value)}/s"


def decimal_rate(value: object) -> str:
    """Show how often something happens per second."""
    found = number(value)
    if found is None:
        return UNKNOWN
    return f"{found:,.0f}/s" if found == 0 or abs(found) >= 100 else f"{found:.1f}/s"


def duration(value: object) -> str:
    """Show seconds in the two largest units that are not zero."""
    found = number(value)
    if found is None:
        return UNKNOWN
    minutes, seconds = divmod(int(found), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = ((days, "d"), (hours, "h"), (minutes, "min"), (seconds, "s"))
    first = next((index for index, (amount, _) in enumerate(parts) if amount), len(parts) - 1)
    return " ".join(f"{amount} {unit}" for amount, unit in parts[first : first + 2])
