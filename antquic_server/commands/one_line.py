"""Text of others, made fit for a terminal."""

__all__ = ["one_line"]


def one_line(text: str) -> str:
    """Escape line breaks and whatever else could command a terminal."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
