"""Arrays in files of memory, with room for more rows than ever come: only what was written takes memory."""

from __future__ import annotations

import mmap
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from netobs.base.errors import NetobsError

if TYPE_CHECKING:
    import numpy.typing as npt

SIZE_BYTES = 32 << 30
"""Of address space and of the file, which is a hole where nothing was written."""
LEAST_BYTES = 1 << 20
"""So much memory is not worth giving back."""


class SparseArray:
    """``array`` never moves, so that views of it stay valid. Its content is that of the file ``fd``."""

    def __init__(self, dtype: npt.DTypeLike, fd: int) -> None:
        """``fd``: a file of memory, which the caller may close.

        :raises NetobsError: a limit of this process forbids such a file, or such a mapping.
        """
        try:
            if os.fstat(fd).st_size < SIZE_BYTES:
                os.ftruncate(fd, SIZE_BYTES)
            self._map = mmap.mmap(fd, SIZE_BYTES, flags=mmap.MAP_SHARED)
        except OSError as error:
            raise NetobsError(
                f"memory for the next process: a file of {SIZE_BYTES >> 30} GiB, nearly all of it a hole, is refused: "
                f"{error.strerror}",
                "set LimitFSIZE=infinity and LimitAS=infinity in the unit",
            ) from None
        self._map.madvise(mmap.MADV_DONTDUMP)  # a core dump would look at each page of the hole
        kind = np.dtype(dtype)
        self.array: npt.NDArray[Any] = np.frombuffer(self._map, kind, SIZE_BYTES // kind.itemsize)
        self._written = len(self.array)

    def trim(self, rows: int) -> None:
        """The content is not needed any more. Gives memory back if ``rows``, the most that were used since the last
        call, are less than a quarter of those that have memory."""
        least = LEAST_BYTES // self.array.itemsize
        if self._written > 4 * max(rows, least):
            begin = -(-max(rows, least) * self.array.itemsize // mmap.PAGESIZE) * mmap.PAGESIZE
            self._map.madvise(mmap.MADV_REMOVE, begin, SIZE_BYTES - begin)
            self._written = max(rows, least)
        self._written = max(self._written, rows)
