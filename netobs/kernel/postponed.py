"""Interfaces that nothing can be attached to for now, and that are tried again at the next look."""

from __future__ import annotations

import errno
from typing import Callable

from netobs.config.text import folded
from netobs.kernel import descriptors
from netobs.kernel.interfaces import Interface

PASSING = (errno.EMFILE, errno.EPIPE)
"""There is no file descriptor left, or nobody who would attach in another network namespace."""
QUIET = (*PASSING, errno.ENODEV, errno.EINPROGRESS)
"""Also: the interface has gone, or the answer comes later."""


class Postponed:
    """``may_pass`` -> ``say`` -> ``take_all``, again and again."""

    def __init__(self) -> None:
        self._waiting: dict[int, Interface] = {}
        self._short: set[int] = set()
        self._said: set[int] = set()

    @property
    def short(self) -> frozenset[int]:
        """The interfaces, by index, that had no file descriptor at the last look."""
        return frozenset(self._said)

    def may_pass(self, interface: Interface, number: int) -> bool:
        """Whether an attempt that failed with errno ``number`` is no refusal; ``interface`` waits if it may succeed
        later."""
        if number in PASSING:
            self._waiting[interface.index] = interface
        if number == errno.EMFILE:
            self._short.add(interface.index)
        return number in QUIET

    def say(self, say_refused: Callable[[str, str], None]) -> None:
        """Logs once, in one line, the interfaces that have no file descriptor."""
        if not self._said.issuperset(self._short):
            names = folded(self._waiting[index].name for index in self._waiting if index in self._short)
            say_refused(names, descriptors.shortage(descriptors.limit()))
        self._said = set(self._short)

    def take_all(self) -> dict[int, Interface]:
        """By index; none waits any more."""
        waiting, self._waiting = self._waiting, {}
        self._short.clear()
        return waiting

    def discard(self, index: int) -> None:
        """The interface is gone."""
        self._waiting.pop(index, None)
        self._short.discard(index)
        self._said.discard(index)

    def clear(self) -> None:
        """None waits any more."""
        self.take_all()
