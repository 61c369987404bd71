"""A mistake in the text of a filter, and its form in messages."""

from __future__ import annotations

SHOWN = 200
"""The most characters of a text in a message."""


class Mistake(Exception):
    """Why the text cannot be compiled; ``hint`` says what to do. A caller with the whole text makes a FilterError."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


def in_one_line(text: str) -> str:
    """``text``, or its start, for a message."""
    shown = text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in shown)
