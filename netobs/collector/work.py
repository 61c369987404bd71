"""Limits of the work for one Message, its mistakes, and its oddities."""

from __future__ import annotations

from typing import TYPE_CHECKING

from netobs.base.errors import DecodeError

if TYPE_CHECKING:
    from netobs.collector.decode_message import Decoded

MAX_STEPS = 40_000
"""The most work for a Message: each field that is read, printed or defined is a step. A Message of 64 KiB with the
flows of a router takes up to 39,000 steps; an attacker's Message could take 1,500,000."""
MESSAGE_STEPS, SET_STEPS = 20, 4


class Malformed(Exception):
    """A mistake ``offset`` bytes into the Message."""

    def __init__(self, offset: int, what: str) -> None:
        super().__init__(what)
        self.offset = offset


class Exhausted(Exception):
    """A Message is too much work. The part from ``offset`` on is not read."""

    def __init__(self, offset: int) -> None:
        super().__init__()
        self.offset = offset


class Damaged(DecodeError):
    """A damaged Message. ``decoded``: its readable part, None if its header is damaged."""

    def __init__(self, message: str, decoded: Decoded | None = None) -> None:
        super().__init__(message)
        self.decoded = decoded


class Work:
    """The remaining work for one Message. ``offset``: how far it was read."""

    __slots__ = ("left", "offset")

    def __init__(self, max_steps: int) -> None:
        self.left, self.offset = max_steps, 0

    def spend(self, steps: int, offset: int | None = None) -> None:
        """Raises Exhausted if ``steps`` more, for the part at ``offset``, are too many."""
        if offset is not None:
            self.offset = offset
        if steps > self.left:
            raise Exhausted(self.offset)
        self.left -= steps


class Notes:
    """The oddities of a Message: for each kind how often, and the first case in words."""

    __slots__ = ("found",)

    def __init__(self) -> None:
        self.found: dict[str, tuple[int, str]] = {}

    def add(self, kind: str, text: str) -> None:
        """Count a case of ``kind``."""
        times, first = self.found.get(kind, (0, text))
        self.found[kind] = (times + 1, first)
