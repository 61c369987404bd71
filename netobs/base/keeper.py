"""Descriptors that outlive this process: the next process of the same daemon finds them by name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Protocol


class Keeper(Protocol):
    """Keeps open descriptors of this process for its successor, which goes on where this one ended, in whatever way.

    Names have at most 14 characters of ``a-z0-9-``, and one name has one descriptor. Nothing here waits.
    """

    @property
    def keeps(self) -> bool:
        """Whether anything outlives the process. If not, the other methods do nothing."""

    def former(self, name: str) -> int | None:
        """What the former process has kept under ``name``, or None. The keeper owns the descriptor, and closes it with
        ``drop`` or at its own end; whoever needs it longer duplicates it."""

    def names(self) -> frozenset[str]:
        """The names of everything that the former process has kept and nobody has dropped."""

    def memory(self, name: str) -> int:
        """An empty file of memory, kept under ``name`` in the place of a former one; -1 if nothing is kept. Owned as in
        ``former``."""

    def keep(self, name: str, fd: int) -> None:
        """Keeps ``fd`` as well, under ``name``, in the place of a former one. The caller may close its own."""

    def drop(self, name: str) -> None:
        """Keeps ``name`` no longer."""


class KeepsNothing:
    """The keeper of a daemon whose state ends with it."""

    keeps = False

    def former(self, name: str) -> int | None:
        return None

    def names(self) -> frozenset[str]:
        return frozenset()

    def memory(self, name: str) -> int:
        return -1

    def keep(self, name: str, fd: int) -> None: ...

    def drop(self, name: str) -> None: ...

    def forget(self) -> None: ...

    def settle(self, within_ns: int) -> None: ...

    def close(self) -> None: ...


NOTHING = KeepsNothing()


class HeldDescriptors:
    """The part of a keeper that is of this process: ``_former``, from the former process by name, and ``_own``, the
    memory that this one has made."""

    def __init__(self, former: Mapping[str, int]) -> None:
        """``former``: owned by this object from now on."""
        self._former = dict(former)
        self._own: dict[str, int] = {}

    def former(self, name: str) -> int | None:
        return self._former.get(name)

    def names(self) -> frozenset[str]:
        return frozenset(self._former)

    def _close_held(self, name: str) -> None:
        for fds in (self._former, self._own):
            if name in fds:
                os.close(fds.pop(name))

    def close(self) -> None:
        """Closes this process's descriptors. What is kept stays."""
        for fds in (self._former, self._own):
            while fds:
                os.close(fds.popitem()[1])


def file_of(keeper: Keeper, name: str) -> int:
    """The file of memory that the former process has kept under ``name``, or else a new and empty one."""
    former = keeper.former(name)
    return keeper.memory(name) if former is None else former
