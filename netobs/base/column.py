"""The arrays of the flow cache."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np
import numpy.typing as npt


class Column:
    """An array whose pages the kernel moves when it changes its length: there are never two copies of it."""

    def __init__(self, dtype: npt.DTypeLike) -> None:
        self._dtype = np.dtype(dtype)
        self._map = mmap.mmap(-1, self._dtype.itemsize, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.array: npt.NDArray[Any] = np.frombuffer(self._map, self._dtype)

    @property
    def nbytes(self) -> int:
        return len(self._map)

    def resize(self, rows: int) -> None:
        """Change the length to ``rows``. No view of ``array`` may be in use."""
        self.array = np.empty(0, self._dtype)
        self._map.resize(rows * self._dtype.itemsize)
        self.array = np.frombuffer(self._map, self._dtype)
