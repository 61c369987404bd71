"""What is wrong with one text of a filter, and how it is shown."""

from __future__ import annotations

SHOWN = 200
"""So many characters of a text are in a message."""


class Mistake(Exception):
    """Cannot be compiled, and why; ``hint`` says what to do. Whoever knows the whole text makes a FilterError of it."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


def in_one_line(text: str) -> str:
    """``text``, or its beginning, for a message."""
    shown = text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in shown)
