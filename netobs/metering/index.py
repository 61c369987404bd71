"""A hash index made of numpy arrays: 64-bit hash -> row number, many at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from netobs.base.column import Column
from netobs.flow.key_hash import FIRST_HASH, Hashes
from netobs.flow.records import CHUNK_ROWS
from netobs.metering.merge import Indices

EMPTY, DELETED = 0, 1
"""Row numbers for a slot that was never used, and for a slot whose row was removed."""
FIRST_ROW = FIRST_HASH
"""The lowest row number of a flow. The rows below have their own number as hash, which no key has."""
MIN_SLOTS = 1024

if TYPE_CHECKING:
    import numpy.typing as npt

    Rows = npt.NDArray[np.int32]
else:
    Rows = np.ndarray


def _first_slots(hashes: Hashes, mask: int) -> Indices:
    """Where probing for each hash begins."""
    slots: Indices = (hashes & np.uint64(mask)).view(np.int64)
    return slots


class HashIndex:
    """Open addressing with triangular probing; at most half of the slots are in use.

    The index holds row numbers only. Some methods get ``row_hashes`` (uint64, by row number), in which the rows
    ``EMPTY`` and ``DELETED`` have the hashes 0 and 1: one comparison then tells a hit from a miss. A probe step is
    done for all unsettled hashes at once, so the number of Python steps is the longest probe sequence.
    """

    def __init__(self) -> None:
        self._slots = np.zeros(MIN_SLOTS, np.int32)
        self._slot_of_row = Column(np.int32)
        self._used = 0

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return self._slots.nbytes + self._slot_of_row.nbytes

    def resize(self, rows: int) -> None:
        """Make room for ``rows`` rows."""
        self._slot_of_row.resize(rows)

    def find(self, hashes: Hashes, row_hashes: Hashes) -> Rows:
        """The row of each hash, ``EMPTY`` where there is none."""
        mask, step = len(self._slots) - 1, 0
        found = np.empty(len(hashes), np.int32)
        missed = [np.empty(0, np.intp)]
        for begin in range(0, len(hashes), CHUNK_ROWS):
            part, rows = hashes[begin : begin + CHUNK_ROWS], found[begin : begin + CHUNK_ROWS]
            rows[:] = self._slots[_first_slots(part, mask)]
            missed.append(np.flatnonzero((rows != EMPTY) & (row_hashes[rows] != part)) + begin)
        unsettled = np.concatenate(missed)
        hashes = hashes[unsettled]
        slots = _first_slots(hashes, mask)
        while unsettled.size:
            step += 1
            slots = (slots + step) & mask
            rows = self._slots[slots]
            found[unsettled] = rows
            again = np.flatnonzero((rows != EMPTY) & (row_hashes[rows] != hashes))
            unsettled, slots, hashes = unsettled[again], slots[again], hashes[again]
        return found

    def insert(self, begin: int, row_hashes: Hashes) -> None:
        """Add the rows from ``begin`` to the end of ``row_hashes``; their hashes differ and are not there yet."""
        if 2 * (self._used + len(row_hashes) - begin) > len(self._slots):
            self.rebuild(row_hashes)
            return
        self._used += len(row_hashes) - begin
        mask, step = len(self._slots) - 1, 0
        rows = np.arange(begin, len(row_hashes), dtype=np.int32)
        slots = _first_slots(row_hashes[begin:], mask)
        while rows.size:
            free = self._slots[slots] == EMPTY
            self._slots[slots[free]] = rows[free]
            self._slot_of_row.array[rows] = slots
            refused = np.flatnonzero(self._slots[slots] != rows)  # taken before, or by another row just now
            step += 1
            rows, slots = rows[refused], (slots[refused] + step) & mask

    def remove(self, rows: Indices) -> None:
        """Forget ``rows``."""
        self._slots[self._slot_of_row.array[rows]] = DELETED

    def move(self, rows: Indices, targets: Indices) -> None:
        """Make the hashes of ``rows`` point to ``targets``."""
        slots = self._slot_of_row.array[rows]
        self._slots[slots] = targets
        self._slot_of_row.array[targets] = slots

    def rebuild(self, row_hashes: Hashes) -> None:
        """Rebuild the index from all rows of ``row_hashes``, in as many slots as they need."""
        self._slots = np.zeros(max(MIN_SLOTS, 1 << (3 * len(row_hashes)).bit_length()), np.int32)
        self._used = 0
        self.insert(FIRST_ROW, row_hashes)
