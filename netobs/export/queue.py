"""The Data Records that wait for their collector, bounded in bytes and in age.

Data Sets wait, not Messages: a Message gets its Sequence Number and Export Time when it enters a Transport Session, and
the Data Sets of a lost session enter the next one (RFC 7011, section 10.4.4: no session state is carried over).
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable
from typing import Generic

from netobs.export.protocol import D, DataSet
from netobs.flow.tally import Tally

_COUNTS_BYTES = 16  # packets and octets of a row, int64 each


def row_bytes(data_set: DataSet) -> int:
    """Memory that a row of ``data_set`` takes."""
    return data_set.rows.dtype.itemsize + _COUNTS_BYTES


class DataSetQueue(Generic[D]):
    """First in, first out. ``bytes`` is the memory of the waiting rows. Times are CLOCK_MONOTONIC, ns.

    A part of a Data Set keeps the whole array alive, so memory may exceed ``bytes`` by one Data Set at most.
    """

    def __init__(self) -> None:
        self.bytes = 0
        self._waiting: deque[tuple[D, int]] = deque()  # and since when

    def __bool__(self) -> bool:
        return bool(self._waiting)

    @property
    def oldest_ns(self) -> int:
        """Time since which the oldest rows wait. IndexError when empty."""
        return self._waiting[0][1]

    def append(self, data_set: D, now_ns: int) -> None:
        """``data_set`` waits from now on."""
        if len(data_set):
            self._waiting.append((data_set, now_ns))
            self.bytes += len(data_set) * row_bytes(data_set)

    def put_back(self, data_set: D, since_ns: int) -> None:
        """Puts back a ``data_set`` that was taken but not sent: it is the oldest, and has waited since ``since_ns``."""
        if len(data_set):
            self._waiting.appendleft((data_set, since_ns))
            self.bytes += len(data_set) * row_bytes(data_set)

    def merge(self, others: Iterable[tuple[D, int]]) -> None:
        """Insert the parts that another queue gave away, each by its age."""
        taken = [(data_set, since_ns) for data_set, since_ns in others if len(data_set)]
        self._waiting = deque(sorted([*self._waiting, *taken], key=lambda waiting: waiting[1]))
        self.bytes += sum(len(data_set) * row_bytes(data_set) for data_set, _ in taken)

    def give_away(self) -> list[tuple[D, int]]:
        """Empties the queue: all parts, the oldest first, each with the time since which it waits."""
        given, self._waiting, self.bytes = list(self._waiting), deque(), 0
        return given

    def take(self, max_bytes: int) -> D:
        """The oldest rows of one Data Set, about ``max_bytes`` of them, at least one. IndexError when empty."""
        rows = max(1, max_bytes // row_bytes(self._waiting[0][0]))
        return self._take_rows(rows)

    def trim(self, max_bytes: int, since_ns: int = sys.maxsize) -> Tally:
        """Drop rows that have waited since ``since_ns`` or longer, the oldest first, until at most ``max_bytes`` wait.

        Return what was dropped.
        """
        dropped = Tally()
        while self._waiting and self.bytes > max_bytes and self.oldest_ns <= since_ns:
            excess = self.bytes - max(0, max_bytes)
            dropped += Tally.of(self._take_rows(-(-excess // row_bytes(self._waiting[0][0]))))
        return dropped

    def expire(self, before_ns: int) -> Tally:
        """Drop rows that have waited since before ``before_ns``; return what was dropped."""
        dropped = Tally()
        while self._waiting and self.oldest_ns < before_ns:
            dropped += Tally.of(self._take_rows(len(self._waiting[0][0])))
        return dropped

    def _take_rows(self, rows: int) -> D:
        head, since_ns = self._waiting.popleft()
        self.bytes -= min(rows, len(head)) * row_bytes(head)
        if rows >= len(head):
            return head
        self._waiting.appendleft((head.slice(rows, len(head)), since_ns))
        part: D = head.slice(0, rows)
        return part
