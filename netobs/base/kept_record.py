"""A few facts in a file of memory, for the next process: written as a whole, or not at all."""

from __future__ import annotations

import json
import mmap
import os
from typing import Any

import numpy as np

_ENCODER = json.JSONEncoder(separators=(",", ":"))
_MAGIC = 0x31_64_74_70_6B_62_6F_6E
_HALF_BYTES = 4 << 20
_SIZE = mmap.PAGESIZE + 2 * _HALF_BYTES
"""A file of memory takes pages for what was written only."""


def members_of(values: dict[str, Any]) -> bytes:
    """``values`` as a part of a JSON object."""
    return _ENCODER.encode(values)[1:-1].encode()


class KeptRecord:
    """A JSON object. ``write`` fills the half that is not in use, then says in one word which half is, and how long
    its text is: a process that is killed meanwhile leaves the former object."""

    def __init__(self, fd: int) -> None:
        """``fd``: a file of memory, which the caller may close. -1: ``write`` does nothing, and ``read`` finds nothing.

        :raises OSError: it is no file that can be mapped.
        """
        self._memory: mmap.mmap | None = None
        if fd < 0:
            return
        if os.fstat(fd).st_size < _SIZE:
            os.ftruncate(fd, _SIZE)
        self._memory = mmap.mmap(fd, _SIZE, flags=mmap.MAP_SHARED)
        self._words = np.frombuffer(self._memory, "<u8", count=2)  # which half and how long, and what this is

    @property
    def is_off(self) -> bool:
        """Whether nothing is kept."""
        return self._memory is None

    def read(self) -> dict[str, Any] | None:
        """The object, or None if there is none that can be understood."""
        if self._memory is None or self._words[1] != _MAGIC:
            return None
        length, half = divmod(int(self._words[0]), 2)
        begin = mmap.PAGESIZE + half * _HALF_BYTES
        if not 0 < length <= _HALF_BYTES:
            return None
        try:
            values = json.loads(self._memory[begin : begin + length])
        except ValueError:
            return None
        return values if isinstance(values, dict) else None

    def write(self, values: dict[str, Any], members: bytes = b"") -> None:
        """Puts ``values`` in the place of the former object. ``members``: more of it, as ``members_of`` gives them.

        :raises ValueError: they are longer than 4 MiB, or no JSON.
        """
        if self._memory is None:
            return
        text = b"{%b}" % b",".join(filter(None, (members, members_of(values))))
        if len(text) > _HALF_BYTES:
            raise ValueError(f"a record of {len(text)} bytes does not fit {_HALF_BYTES}")
        half = 1 - int(self._words[0]) % 2
        begin = mmap.PAGESIZE + half * _HALF_BYTES
        self._memory[begin : begin + len(text)] = text
        self._words[1] = _MAGIC
        self._words[0] = len(text) << 1 | half

    def close(self) -> None:
        """Unmaps the file, whose content stays."""
        if self._memory is not None:
            del self._words
            self._memory.close()
            self._memory = None
