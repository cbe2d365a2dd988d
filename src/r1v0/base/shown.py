"""Text that a model or a stranger wrote, made safe for a terminal."""

from typing import TextIO


def shown(text: str, keep: str = "") -> str:
    """The text with every character that does not print (control characters, escapes, marks that turn the direction)
    written as its Python escape, all but those of `keep`."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode("ascii") for c in text)


def fitting(text: str, stream: TextIO) -> str:
    """The text with what the stream's encoding does not have written as Python escapes. A stream without an encoding
    gets ASCII."""
    encoding = getattr(stream, "encoding", None) or "ascii"
    return text.encode(encoding, "backslashreplace").decode(encoding)
