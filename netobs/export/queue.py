"""The Data Records that wait for their collector, bounded in bytes and in age.

Data Sets wait, not Messages: a Message gets its Sequence Number and Export Time when it enters a Transport Session, and
the Data Sets of a lost session enter the next one (RFC 7011, section 10.4.4: no session state is carried over).
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic

from netobs.export.protocol import D, DataSet
from netobs.flow.tally import Tally

_COUNTS_BYTES = 16  # packets and octets of a row, int64 each


def row_bytes(data_set: DataSet) -> int:
    """Memory that a row of ``data_set`` takes."""
    return data_set.rows.dtype.itemsize + _COUNTS_BYTES


@dataclass(frozen=True, eq=False, repr=False)
class Part(Generic[D]):
    """Rows of one Data Set that have waited since ``since_ns`` (CLOCK_MONOTONIC).

    ``at``: the number of the first of them in ``netobs.export.kept``; without meaning where nothing is kept.
    """

    data_set: D
    since_ns: int
    at: int = 0

    def __len__(self) -> int:
        return len(self.data_set)

    @property
    def bytes(self) -> int:
        """The memory of its rows."""
        return len(self.data_set) * row_bytes(self.data_set)

    def slice(self, start: int, stop: int) -> Part[D]:
        """The rows from ``start`` to ``stop``, without a copy."""
        return Part(self.data_set.slice(start, stop), self.since_ns, self.at + start)


class DataSetQueue(Generic[D]):
    """First in, first out. ``bytes`` is the memory of the waiting rows. Times are CLOCK_MONOTONIC, ns.

    A part of a Data Set keeps the whole array alive, so memory may exceed ``bytes`` by one Data Set at most.
    """

    def __init__(self) -> None:
        self.bytes = 0
        self._waiting: deque[Part[D]] = deque()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    @property
    def oldest_ns(self) -> int:
        """Time since which the oldest rows wait. IndexError when empty."""
        return self._waiting[0].since_ns

    def append(self, part: Part[D]) -> None:
        """``part`` waits behind all others."""
        if len(part):
            self._waiting.append(part)
            self.bytes += part.bytes

    def put_back(self, part: Part[D]) -> None:
        """Puts back a ``part`` that was taken but not sent: it is the oldest."""
        if len(part):
            self._waiting.appendleft(part)
            self.bytes += part.bytes

    def merge(self, others: Iterable[Part[D]]) -> None:
        """Insert the parts that another queue gave away, each by its age."""
        taken = [part for part in others if len(part)]
        self._waiting = deque(sorted([*self._waiting, *taken], key=lambda part: part.since_ns))
        self.bytes += sum(part.bytes for part in taken)

    def give_away(self) -> list[Part[D]]:
        """Empties the queue: all parts, the oldest first."""
        given, self._waiting, self.bytes = list(self._waiting), deque(), 0
        return given

    def take(self, max_bytes: int) -> Part[D]:
        """The oldest rows of one Data Set, about ``max_bytes`` of them, at least one. IndexError when empty."""
        return self._take_rows(max(1, max_bytes // row_bytes(self._waiting[0].data_set)))

    def trim(self, max_bytes: int, since_ns: int = sys.maxsize) -> list[Part[D]]:
        """Drop rows that have waited since ``since_ns`` or longer, the oldest first, until at most ``max_bytes`` wait.

        Return what was dropped.
        """
        dropped = []
        while self._waiting and self.bytes > max_bytes and self.oldest_ns <= since_ns:
            excess = self.bytes - max(0, max_bytes)
            dropped.append(self._take_rows(-(-excess // row_bytes(self._waiting[0].data_set))))
        return dropped

    def expire(self, before_ns: int) -> list[Part[D]]:
        """Drop rows that have waited since before ``before_ns``; return what was dropped."""
        dropped = []
        while self._waiting and self.oldest_ns < before_ns:
            dropped.append(self._take_rows(len(self._waiting[0])))
        return dropped

    def _take_rows(self, rows: int) -> Part[D]:
        head = self._waiting.popleft()
        part = head.slice(0, rows) if rows < len(head) else head
        if rows < len(head):
            self._waiting.appendleft(head.slice(rows, len(head)))
        self.bytes -= part.bytes
        return part


def tally_of(parts: Iterable[Part[D]]) -> Tally:
    """What ``parts`` carry together."""
    return sum((Tally.of(part.data_set) for part in parts), Tally())
