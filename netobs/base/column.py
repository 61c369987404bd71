"""Arrays that grow and shrink in place, in memory of this process or in a file of memory that outlives it."""

from __future__ import annotations

import mmap
import os
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt


class Column:
    """An array whose pages the kernel moves when it changes its length: there are never two copies of it."""

    def __init__(self, dtype: npt.DTypeLike, fd: int = -1) -> None:
        """``fd``: a file of memory (memfd_create(2), or a file of a tmpfs) with the content of ``array``; an empty one
        gets one row of zeros. The caller may close it. -1: memory of this process alone."""
        self._dtype = np.dtype(dtype)
        if fd < 0:
            self._map = mmap.mmap(-1, self._dtype.itemsize, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        else:
            size = os.fstat(fd).st_size // self._dtype.itemsize * self._dtype.itemsize or self._dtype.itemsize
            os.ftruncate(fd, size)
            self._map = mmap.mmap(fd, size, flags=mmap.MAP_SHARED)
        self.array: npt.NDArray[Any] = np.frombuffer(self._map, self._dtype)

    @property
    def nbytes(self) -> int:
        return len(self._map)

    def resize(self, rows: int) -> None:
        """Change the length to ``rows``; new rows are zeros. No view of ``array`` may be in use if it changes."""
        if rows == len(self.array):
            return
        self.array = np.empty(0, self._dtype)
        self._map.resize(rows * self._dtype.itemsize)
        self.array = np.frombuffer(self._map, self._dtype)
