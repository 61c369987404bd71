"""Moves a program from one place on a hook to another: from a filter to a link, or from before others to behind them.

For a moment both are there, and each packet passes both, in an order that is known: TCX comes before clsact
(net/core/dev.c: sch_handle_ingress, sch_handle_egress), and within one of them "first" before "last". Each of the two
runs a program that looks whose turn it is, and counts only then. A change of the turn is one store into memory that
they share, and the second goes by what the first has read: each packet is counted once.
"""

from __future__ import annotations

import contextlib
from typing import Callable, Protocol

from netobs.kernel.attach import Attachment

TURN_FIRST, TURN_SECOND, TURN_NEVER = 1, 2, 3
"""enum netobs_turn: which of two programs on a hook counts, in the order in which a packet passes them."""


class Turns(Protocol):
    """Whose turn it is, on one hook at a time."""

    @property
    def turn(self) -> int:
        """``TURN_FIRST`` or ``TURN_SECOND``, also if a former process has ended in between; 0: it never mattered."""

    def begin(self, turn: int) -> None:
        """It is the turn of the program that is there; the other one is not there yet."""

    def pass_to(self, turn: int) -> None:
        """Both are there. When this returns, no packet goes by the former turn any more."""

    def program_fd(self, name: str, turn: int) -> int:
        """The program ``name`` that counts only when it is its ``turn``.

        :raises OSError: it cannot be loaded.
        """

    def close(self) -> None:
        """Frees the programs that are not attached. They are loaded again when they are asked for."""


def order_of(method: str, last: bool) -> tuple[bool, bool]:
    """A packet passes the lesser first."""
    return method == "tc", last


def move(
    old: Attachment, name: str, program_fd: int, turns: Turns, is_behind: bool, attach: Callable[[int], Attachment]
) -> Attachment:
    """Puts the program ``name`` (``program_fd`` counts always) where ``attach`` puts it, instead of where ``old`` has
    it. ``is_behind``: packets pass the new place after the old one.

    The new one never counts until both are there: ``attach`` may begin something and raise EINPROGRESS, and this is
    called again later.

    :raises OSError: the kernel refused; ``old`` is as it was.
    """
    before, after = (TURN_FIRST, TURN_SECOND) if is_behind else (TURN_SECOND, TURN_FIRST)
    programs = turns.program_fd(name, before), turns.program_fd(name, after)
    never = turns.program_fd(name, TURN_NEVER)
    turns.begin(before)
    new = attach(never)
    try:
        old.swap(programs[0])
        new.swap(programs[1])
    except OSError:
        with contextlib.suppress(OSError):  # somebody has removed it
            old.swap(program_fd)
        new.detach()
        raise
    turns.pass_to(after)
    with contextlib.suppress(OSError):  # somebody has removed it
        old.swap(never)  # it may take a while until it is off
    old.detach()
    new.swap(program_fd)
    return new
