"""The rows of the flow cache: dense columns that grow and shrink in place, and an index over their hashes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable

import numpy as np

from netobs.base.column import Column
from netobs.flow.interface_key import NETNS_SHIFT
from netobs.flow.key_hash import Hashes
from netobs.flow.records import CHUNK_ROWS, RECORD, Records, put, take
from netobs.metering.index import DELETED, EMPTY, FIRST_ROW, HashIndex, Rows
from netobs.metering.merge import Indices
from netobs.metering.undo import UndoLog

if TYPE_CHECKING:
    import numpy.typing as npt

MIN_CAPACITY = 4096
"""Rows of an empty store."""

BYTES_PER_FLOW = 8 + 8 + 20
"""What a full store takes for each flow, besides the record: its hash, when it is due, and its part of the index."""


class FlowStore:
    """Flow Records, each with the hash of its key and the time at which it is due. Row numbers change on removal.

    Only the records are kept for the next process: all else follows from them.
    """

    def __init__(self, dtype: np.dtype[np.void] = RECORD, fd: int = -1, undo: UndoLog | None = None) -> None:
        """``dtype``: of the records. ``fd``: the file of memory that keeps them, as for ``Column``; ``undo``: where
        rows of it are copied before they change."""
        self._dtype, self._undo = dtype, undo
        self._records = Column(dtype, fd)
        self._clear()

    def _clear(self) -> None:
        self._hashes, self._due_ns = Column(np.uint64), Column(np.uint64)
        self._index = HashIndex()
        self._end = FIRST_ROW
        self._resize(max(MIN_CAPACITY, len(self._records.array)))
        self._hashes.array[[EMPTY, DELETED]] = EMPTY, DELETED

    def begin(self, generation: int) -> None:
        """The present content is committed under ``generation`` of the journal: what changes from now on can be undone
        until the next."""
        self.shrink()
        if self._undo is not None:
            self._undo.begin(generation, self._end)

    def roll_back(self, generation: int) -> None:
        """Undoes what the former process has changed since ``generation``."""
        if self._undo is not None:
            self._undo.roll_back(self._records.array, generation)

    def restore(
        self,
        rows: int,
        generation: int,
        hash_keys: Callable[[Records], Hashes],
        due_ns: Callable[[Records], npt.NDArray[np.uint64]],
    ) -> None:
        """Finds the ``rows`` flows of the former process as they were at ``generation``, and what follows from them."""
        self.roll_back(generation)
        self._end = FIRST_ROW + rows
        for begin in range(FIRST_ROW, self._end, CHUNK_ROWS):
            chunk = slice(begin, min(begin + CHUNK_ROWS, self._end))
            records = self._records.array[chunk]
            self._hashes.array[chunk], self._due_ns.array[chunk] = hash_keys(records), due_ns(records)
        self._index.rebuild(self._hashes.array[: self._end])

    def __len__(self) -> int:
        return self._end - FIRST_ROW

    @property
    def nbytes(self) -> int:
        """Bytes reserved; unused rows take no memory."""
        columns = self._records.nbytes + self._hashes.nbytes + self._due_ns.nbytes
        return columns + self._index.nbytes

    @property
    def records(self) -> Records:
        """All records, without a copy. Do not change the store while the array is in use."""
        records: Records = self._records.array[FIRST_ROW : self._end]
        return records

    def find(self, hashes: Hashes) -> Rows:
        """The row of each hash, 0 where the store has none."""
        return self._index.find(hashes, self._hashes.array)

    def due(self, now_ns: int) -> Indices:
        """The rows that are due at ``now_ns``, in ascending order."""
        rows: Indices = np.flatnonzero(self._due_ns.array[FIRST_ROW : self._end] <= np.uint64(now_ns)) + FIRST_ROW
        return rows

    def of_interface(self, key: int) -> Indices:
        """The rows of one interface (``interface_key``), in ascending order."""
        netns, ifindex = divmod(key, 1 << NETNS_SHIFT)
        found = (self.records["ifindex"] == ifindex) & (self.records["netns"] == netns)
        rows: Indices = np.flatnonzero(found) + FIRST_ROW
        return rows

    def of_namespace(self, netns: int) -> Indices:
        """The rows of one network namespace, by its number, in ascending order."""
        rows: Indices = np.flatnonzero(self.records["netns"] == netns) + FIRST_ROW
        return rows

    def read(self, rows: Rows | Indices, out: Records | None = None) -> Records:
        """A copy of ``rows``."""
        return take(self._records.array, rows, out)

    def read_to_change(self, rows: Rows) -> Records:
        """A copy of ``rows``, which ``write`` may replace."""
        records = take(self._records.array, rows)
        if self._undo is not None:
            self._undo.save(records, rows, ["metrics"])
        return records

    def write(self, rows: Rows, records: Records, due_ns: npt.NDArray[np.uint64]) -> None:
        """Replace ``rows``, which were read to change; the keys stay the same."""
        put(self._records.array, rows, records)
        self._due_ns.array[rows] = due_ns

    def reschedule(self, due_ns: npt.NDArray[np.uint64]) -> None:
        """Set the due times of all ``records``, in their order."""
        self._due_ns.array[FIRST_ROW : self._end] = due_ns

    def append(self, records: Records, indices: Indices, hashes: Hashes, due_ns: npt.NDArray[np.uint64]) -> None:
        """Add ``records[indices]``. ``hashes`` and ``due_ns`` are those of the added rows."""
        begin, end = self._end, self._end + len(indices)
        if end > len(self._hashes.array):
            self._resize(end)
        if self._undo is not None:
            self._undo.save_range(self._records.array, begin, end)
        take(records, indices, out=self._records.array[begin:end])
        self._hashes.array[begin:end] = hashes
        self._due_ns.array[begin:end] = due_ns
        self._end = end
        self._index.insert(begin, self._hashes.array[:end])

    def remove(self, rows: Indices) -> None:
        """Remove ``rows`` (ascending, no doubles); the last rows move to their places."""
        if not rows.size:
            return
        self._index.remove(rows)
        end = self._end - len(rows)
        holes = rows[rows < end]
        kept = np.ones(self._end - end, np.bool_)
        kept[rows[rows >= end] - end] = False
        movers = np.flatnonzero(kept) + end
        self._index.move(movers, holes)
        for array in (self._hashes.array, self._due_ns.array):
            array[holes] = array[movers]
        if self._undo is not None:
            self._undo.save(take(self._records.array, holes), holes)
        put(self._records.array, holes, take(self._records.array, movers))
        self._end = end

    def remove_all(self) -> Records:
        """Leaves the store empty. What was in it, valid until the next ``append``."""
        records = self.records
        if self._undo is None:
            self._records = Column(self._dtype)
        self._clear()
        return records

    def first(self, rows: int) -> Records:
        """The first ``rows`` that there are or were, without a copy."""
        records: Records = self._records.array[FIRST_ROW : FIRST_ROW + rows]
        return records

    def shrink(self) -> None:
        """Give memory back to the system if less than a quarter of it is in use."""
        if len(self._hashes.array) > max(4 * self._end, MIN_CAPACITY):
            self._resize(self._end)
            self._index.rebuild(self._hashes.array[: self._end])

    def _resize(self, rows: int) -> None:
        capacity = max(MIN_CAPACITY, 1 << (rows - 1).bit_length())
        for part in (self._records, self._hashes, self._due_ns, self._index):
            part.resize(capacity)
