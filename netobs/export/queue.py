"""The Data Records that wait for their collector, bounded in bytes.

Data Sets wait, not Messages: a Message gets its Sequence Number and Export Time when it enters a Transport Session,
and what waited for a lost session enters the next one (RFC 7011, section 10.4.4: no session state is carried over).
"""

from __future__ import annotations

from collections import deque
from typing import Generic

from netobs.export.protocol import D, DataSet
from netobs.export.stats import Tally

_COUNTS_BYTES = 16  # packets and octets of a row, int64 each


def row_bytes(data_set: DataSet) -> int:
    """Memory that a row of ``data_set`` takes."""
    return data_set.rows.dtype.itemsize + _COUNTS_BYTES


class DataSetQueue(Generic[D]):
    """First in, first out. ``bytes`` is the memory of the rows that wait.

    A part of a Data Set keeps the whole array alive, so memory may exceed ``bytes`` by one Data Set at most.
    """

    def __init__(self) -> None:
        self.bytes = 0
        self._data_sets: deque[D] = deque()

    def __bool__(self) -> bool:
        return bool(self._data_sets)

    def append(self, data_set: D) -> None:
        if len(data_set):
            self._data_sets.append(data_set)
            self.bytes += len(data_set) * row_bytes(data_set)

    def put_back(self, data_set: D) -> None:
        """``data_set`` was taken but not sent: it is the oldest again."""
        if len(data_set):
            self._data_sets.appendleft(data_set)
            self.bytes += len(data_set) * row_bytes(data_set)

    def take(self, max_bytes: int) -> D:
        """The oldest rows of one Data Set, about ``max_bytes`` of them, at least one. IndexError when empty."""
        rows = max(1, max_bytes // row_bytes(self._data_sets[0]))
        return self._take_rows(rows)

    def trim(self, max_bytes: int) -> Tally:
        """Drop the oldest rows until at most ``max_bytes`` wait; return what was dropped."""
        dropped = Tally()
        while self._data_sets and self.bytes > max_bytes:
            excess = self.bytes - max(0, max_bytes)
            dropped += Tally.of(self._take_rows(-(-excess // row_bytes(self._data_sets[0]))))
        return dropped

    def _take_rows(self, rows: int) -> D:
        head = self._data_sets.popleft()
        self.bytes -= min(rows, len(head)) * row_bytes(head)
        if rows >= len(head):
            return head
        self._data_sets.appendleft(head.slice(rows, len(head)))
        part: D = head.slice(0, rows)
        return part
