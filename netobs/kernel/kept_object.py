"""Maps and programs that another process has loaded, used as if this one had."""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Collection, Mapping
from string import ascii_lowercase

from netobs.base.errors import CaptureError
from netobs.base.keeper import Keeper
from netobs.kernel.object import map_memory

LONGEST_NAME = 14


def letter_of(generation: int) -> str:
    """What names of this generation have in common: no more than two or three are there at a time."""
    return ascii_lowercase[generation % len(ascii_lowercase)]


def kept_name(kind: str, generation: int, name: str) -> str:
    """The name in the keeper: ``kind`` is "m" for a map, "p" for a program."""
    plain = name.strip(".").replace("netobs_", "").replace("_", "-")
    return f"{kind}{letter_of(generation)}-{plain}"[:LONGEST_NAME]


class HeldObject:
    """The part of ``BpfObject`` that is in use after its ``load``."""

    def __init__(self, maps: Mapping[str, int]) -> None:
        """``maps``: descriptors by name, which belong to this object from now on."""
        self._fds = {("m", name): fd for name, fd in maps.items()}

    def map_fd(self, name: str) -> int:
        """As in ``BpfObject``."""
        return self._fd("m", name)

    def program_fd(self, name: str) -> int:
        """As in ``BpfObject``."""
        return self._fd("p", name)

    def _fd(self, kind: str, name: str) -> int:
        if (kind, name) not in self._fds:
            raise CaptureError(f"{name} was not kept by the former process", "stop netobs, and start it again")
        return self._fds[kind, name]

    def shared(self, name: str, size_bytes: int, writable: bool = False) -> mmap.mmap:
        """As in ``BpfObject``."""
        return map_memory(self.map_fd(name), size_bytes, writable)

    def close(self) -> None:
        """Closes this process's descriptors. May be called twice."""
        while self._fds:
            os.close(self._fds.popitem()[1])


class KeptObject(HeldObject):
    """What a former process has kept for this one."""

    def __init__(self, keeper: Keeper, generation: int, maps: Collection[str], programs: Collection[str]) -> None:
        """:raises KeyError: one of these was not kept."""
        super().__init__({})
        try:
            for kind, names in (("m", maps), ("p", programs)):
                for name in names:
                    former = keeper.former(kept_name(kind, generation, name))
                    if former is None:
                        raise KeyError(name)
                    self._fds[kind, name] = fcntl.fcntl(former, fcntl.F_DUPFD_CLOEXEC, 3)
        except BaseException:
            self.close()
            raise
