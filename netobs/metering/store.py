"""The rows of the flow cache: dense columns that grow and shrink in place, and an index over their hashes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from netobs.base.column import Column
from netobs.flow.interface_key import NETNS_SHIFT
from netobs.flow.records import RECORD, Records, put, take
from netobs.metering.index import DELETED, EMPTY, FIRST_ROW, HashIndex, Rows
from netobs.metering.merge import Hashes, Indices

MIN_CAPACITY = 4096
"""Rows of an empty store."""

BYTES_PER_FLOW = 8 + 8 + 20
"""What a full store takes for each flow, besides the record: its hash, when it is due, and its part of the index."""


class FlowStore:
    """Flow Records, each with the hash of its key and the time at which it is due. Row numbers change on removal."""

    def __init__(self, dtype: np.dtype[np.void] = RECORD) -> None:
        """``dtype``: of the records."""
        self._records, self._hashes, self._due_ns = Column(dtype), Column(np.uint64), Column(np.uint64)
        self._index = HashIndex()
        self._end = FIRST_ROW
        self._resize(MIN_CAPACITY)
        self._hashes.array[[EMPTY, DELETED]] = EMPTY, DELETED

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

    def write(self, rows: Rows, records: Records, due_ns: npt.NDArray[np.uint64]) -> None:
        """Replace ``rows``; the keys stay the same."""
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
        put(self._records.array, holes, take(self._records.array, movers))
        self._end = end

    def shrink(self) -> None:
        """Give memory back to the system if less than a quarter of it is in use."""
        if len(self._hashes.array) > max(4 * self._end, MIN_CAPACITY):
            self._resize(self._end)
            self._index.rebuild(self._hashes.array[: self._end])

    def _resize(self, rows: int) -> None:
        capacity = max(MIN_CAPACITY, 1 << (rows - 1).bit_length())
        for part in (self._records, self._hashes, self._due_ns, self._index):
            part.resize(capacity)
