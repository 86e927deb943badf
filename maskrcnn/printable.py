"""Text from outside as a terminal may have it."""

from __future__ import annotations


def printable(text: str, most_chars: int | None = None) -> str:
    """Replace what is no printable character, as escapes, line ends and halves of pairs; perhaps cut the text."""
    shown = "".join(character if character.isprintable() else "?" for character in text)
    return shown if most_chars is None or len(shown) <= most_chars else f"{shown[: most_chars - 1]}…"
