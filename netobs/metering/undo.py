"""What the rows of the flow cache were before an update that is not committed yet.

An update changes the rows in place. Before it does, it copies them here; a process that is killed meanwhile leaves the
copies to the next one, which puts them back. Rows beyond those that were there before the update need no copy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from netobs.base.keeper import Keeper, file_of
from netobs.base.sparse import SparseArray
from netobs.flow.journal import name_of
from netobs.flow.records import CHUNK_ROWS, Records, opaque, put, take

if TYPE_CHECKING:
    import numpy.typing as npt

FILES = ("cache-u", "cache-n")
_LENGTH_BITS = 32


class UndoLog:
    """Copies of rows, and their numbers. The first word of the numbers says for which generation of the journal they
    are, and how many there are: with the next generation all of them are void."""

    def __init__(self, dtype: np.dtype[np.void], keeper: Keeper) -> None:
        """``dtype``: of the rows. Its files are those of ``FILES``.

        :raises NetobsError: a file cannot be mapped.
        """
        self._copies = SparseArray(dtype, file_of(keeper, name_of(FILES[0], dtype)))
        self._numbers = SparseArray(np.uint64, file_of(keeper, name_of(FILES[1], dtype)))
        self._tag = self._rows = self._length = 0

    def begin(self, generation: int, rows: int) -> None:
        """Forgets all copies. An update of a store with ``rows`` rows begins."""
        self._copies.trim(self._length)
        self._numbers.trim(self._length + 1)
        self._tag, self._rows, self._length = generation % (1 << _LENGTH_BITS) << _LENGTH_BITS, rows, 0
        self._numbers.array[0] = self._tag

    def save(self, records: Records, rows: npt.NDArray[np.integer[Any]]) -> None:
        """Copies ``records``, contiguous: what ``rows``, all there at the beginning, are until they change."""
        end = self._length + len(rows)
        opaque(self._copies.array[self._length : end])[:] = opaque(records)
        self._numbers.array[self._length + 1 : end + 1] = rows
        self._length = end
        self._numbers.array[0] = self._tag | end

    def save_range(self, records: Records, begin: int, end: int) -> None:
        """As ``save``, of those rows from ``begin`` to ``end`` that were there at the beginning."""
        end = max(begin, min(end, self._rows))
        self.save(records[begin:end], np.arange(begin, end))

    def roll_back(self, records: Records, generation: int) -> int:
        """Puts the copies back if they are for ``generation``; may be repeated. Returns how many there were.

        The oldest copy of a row is the last that is put back.
        """
        tag, length = divmod(int(self._numbers.array[0]), 1 << _LENGTH_BITS)
        if tag != generation % (1 << _LENGTH_BITS):
            return 0
        for end in range(length, 0, -CHUNK_ROWS):
            begin = max(end - CHUNK_ROWS, 0)
            order = np.arange(end - begin)[::-1]
            rows = self._numbers.array[begin + 1 : end + 1][order].astype(np.intp)
            put(records, rows, take(self._copies.array[begin:end], order))
        return length
