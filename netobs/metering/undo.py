"""What the rows of the flow cache were before an update that is not committed yet.

An update changes the rows in place. Before it does, it copies them here; a process that is killed meanwhile leaves the
copies to the next one, which puts them back. Rows beyond those that were there before the update need no copy, and of
a row that keeps its key, only the metrics are copied.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from netobs.base.keeper import Keeper, file_of
from netobs.base.sparse import SparseArray
from netobs.flow.journal import name_of
from netobs.flow.records import CHUNK_ROWS, Records, in_parts

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

FILES = ("cache-u", "cache-n")
PARTS = ["metrics", "key"]
"""Of a row; each is copied by itself."""
_LENGTH_BITS = 32
_HEAD = 2
"""Places of four bytes that the first word takes."""


def _one_of(parts: np.dtype[np.void]) -> np.dtype[np.void]:
    """One of the fields of ``parts``, any."""
    assert parts.fields is not None
    formats = [parts.fields[part][0] for part in PARTS]
    return np.dtype({"names": PARTS, "formats": formats, "offsets": [0] * len(PARTS)})


class UndoLog:
    """Copies of parts of rows, and their places: row number and part. The first word of the places says for which
    generation of the journal they are, and how many there are: with the next generation all of them are void."""

    def __init__(self, dtype: np.dtype[np.void], keeper: Keeper) -> None:
        """``dtype``: of the rows. Its files are those of ``FILES``.

        :raises NetobsError: a file cannot be mapped.
        """
        self._whole = in_parts(dtype)
        self._copies = SparseArray(_one_of(self._whole), file_of(keeper, name_of(FILES[0], dtype)))
        self._places = SparseArray(np.uint32, file_of(keeper, name_of(FILES[1], dtype)))
        self._head = self._places.array[:_HEAD].view(np.uint64)
        self._tag = self._rows = self._length = 0

    def begin(self, generation: int, rows: int) -> None:
        """Forgets all copies. An update of a store with ``rows`` rows begins."""
        self._copies.trim(self._length)
        self._places.trim(self._length + _HEAD)
        self._tag, self._rows, self._length = generation % (1 << _LENGTH_BITS) << _LENGTH_BITS, rows, 0
        self._head[0] = self._tag

    def save(self, records: Records, rows: npt.NDArray[np.integer[Any]], parts: Sequence[str] = PARTS) -> None:
        """Copies ``parts`` of ``records``: what ``rows``, all there at the beginning, are until they change."""
        for part in parts:
            end = self._length + len(rows)
            self._copies.array[self._length : end][part] = records.view(self._whole)[part]
            self._places.array[self._length + _HEAD : end + _HEAD] = rows * len(PARTS) + PARTS.index(part)
            self._length = end
            self._head[0] = self._tag | end

    def save_range(self, records: Records, begin: int, end: int) -> None:
        """As ``save``, of those rows from ``begin`` to ``end`` that were there at the beginning."""
        end = min(end, self._rows)
        if begin < end:
            self.save(records[begin:end], np.arange(begin, end))

    def roll_back(self, records: Records, generation: int) -> int:
        """Puts the copies back if they are for ``generation``; may be repeated. Returns how many there were.

        The oldest copy of a part of a row is the last that is put back.
        """
        tag, length = divmod(int(self._head[0]), 1 << _LENGTH_BITS)
        if tag != generation % (1 << _LENGTH_BITS):
            return 0
        for end in range(length, 0, -CHUNK_ROWS):
            chunk = np.arange(max(end - CHUNK_ROWS, 0), end)[::-1]
            rows, parts = np.divmod(self._places.array[chunk + _HEAD], len(PARTS))
            for number, part in enumerate(PARTS):
                mine = parts == number
                records.view(self._whole)[part][rows[mine]] = self._copies.array[chunk[mine]][part]
        return length
