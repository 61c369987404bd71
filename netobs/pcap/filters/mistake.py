"""What is wrong with one text of a filter."""

from __future__ import annotations


class Mistake(Exception):
    """Cannot be compiled, and why; ``hint`` says what to do. Whoever knows the whole text makes a FilterError of it."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint
