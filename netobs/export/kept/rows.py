"""The waiting Data Records of one collector in a file of memory.

The file is a series of chunks. A chunk has entries one behind another, each with rows of one Data Set: a head, the rows
as they go on the wire, their packets, their octets, and a byte for the state of each row. Rows are numbered, and no
number comes twice. An entry counts if its head has the number that is due and that number is below the end, which the
caller stores (``netobs.export.kept.state``) when the entry is complete. A chunk whose rows are all gone is used again.
"""

from __future__ import annotations

import mmap
import os
from bisect import bisect_right
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Generic, NamedTuple

import numpy as np

from netobs.export.protocol import D, Encoder
from netobs.export.queue import Part

if TYPE_CHECKING:
    import numpy.typing as npt

CHUNK_BYTES = 1 << 20
FIRST_ROW = 1
WAITS, SENT, GONE, SENT_TOO = range(4)
"""States of a row. ``SENT``: accepted by the kernel, and counted, but not acknowledged. ``SENT_TOO`` is the same; every
process uses the other one of the two than the process before, whose sent rows wait again (see ``session``)."""

_HEAD = np.dtype([("first", "<u8"), ("rows", "<u8"), ("template", "<u8"), ("row_bytes", "<u8"), ("since_ns", "<i8")])
_CHUNK_HEAD_BYTES = 8  # the number of the first row; 0: the chunk is free
_NUMBERS_LEFT_OUT = 1 << 32
"""Each process begins so much higher: no number of an entry that it did not complete is given again."""
_FEW_ROWS = 256  # a chunk with less room is full
_COUNTS_BYTES = 16  # packets and octets of a row


class _Entry(NamedTuple):
    first: int
    states: npt.NDArray[np.uint8]
    chunk: _Chunk


class _Chunk:
    """``octets``: all of it; ``end``: where the next entry begins; ``left``: rows that are not gone."""

    def __init__(self, fd: int, number: int) -> None:
        self.map = mmap.mmap(fd, CHUNK_BYTES, flags=mmap.MAP_SHARED, offset=number * CHUNK_BYTES)
        self.octets: npt.NDArray[np.uint8] = np.frombuffer(self.map, np.uint8)
        self._first = np.frombuffer(self.map, "<u8", 1)
        self.end, self.left = _CHUNK_HEAD_BYTES, 0

    @property
    def first(self) -> int:
        return int(self._first[0])

    def begin(self, first: int) -> None:
        """It is empty, and its next row is ``first``; 0: it is free."""
        self._first[0] = first
        self.end, self.left = _CHUNK_HEAD_BYTES, 0

    def rows_that_fit(self, row_bytes: int) -> int:
        room = CHUNK_BYTES - self.end - _HEAD.itemsize - 2 * 8  # two paddings
        return max(0, room // (row_bytes + _COUNTS_BYTES + 1))

    def head(self) -> npt.NDArray[np.void]:
        """The head of the next entry, shape ``(1,)``; shape ``(0,)`` if none fits."""
        fits = self.end + _HEAD.itemsize <= CHUNK_BYTES
        return np.frombuffer(self.map, _HEAD, 1, self.end) if fits else np.empty(0, _HEAD)

    def columns(self, rows: int, row_bytes: int) -> tuple[Any, Any, Any, Any]:
        """The columns of the next entry: rows (as octets), packets, octets, states; ``end`` moves behind them."""
        at = self.end + _HEAD.itemsize
        counts = at + -(-rows * row_bytes // 8) * 8
        states = counts + rows * _COUNTS_BYTES
        self.end = -(-(states + rows) // 8) * 8
        packets, octets = np.frombuffer(self.map, "<i8", 2 * rows, counts).reshape(2, rows)
        return self.octets[at : at + rows * row_bytes], packets, octets, self.octets[states : states + rows]


class KeptRows(Generic[D]):
    """``end``: the number of the next row."""

    def __init__(self, fd: int, encoder: Encoder[Any, D], end: int = FIRST_ROW) -> None:
        """``fd``: a file of memory; the caller may close it. ``end``: as the former process stored it last."""
        self.end = end
        self._fd = os.dup(fd)
        self._encoder = encoder
        self._entries: list[_Entry] = []
        self._firsts: list[int] = []
        self._chunks = [_Chunk(self._fd, number) for number in range(os.fstat(self._fd).st_size // CHUNK_BYTES)]
        self._writer: _Chunk | None = None
        self._parts: list[Part[D]] = []
        for chunk in sorted(self._chunks, key=lambda each: each.first):
            self._find(chunk)
        self._entries = [entry for entry in self._entries if entry.chunk.left]
        self._firsts = [entry.first for entry in self._entries]
        self._free = [chunk for chunk in self._chunks if not chunk.left]
        for chunk in self._free:
            chunk.begin(0)
        self._most = self._most_before = len(self._chunks) - len(self._free)
        self.end += _NUMBERS_LEFT_OUT if self._parts or end > FIRST_ROW else 0

    def _find(self, chunk: _Chunk) -> None:
        """The entries of the former process. What it did not complete is made void, or it would count later on."""
        expected = chunk.first
        if not FIRST_ROW <= expected < self.end:
            return
        while len(head := chunk.head()) and int(head["first"][0]) == expected:
            if expected >= self.end:
                head["first"] = 0
                return
            rows, row_bytes = int(head["rows"][0]), int(head["row_bytes"][0])
            columns = chunk.columns(rows, row_bytes)
            self._parts.append(self._enter(chunk, head, columns))
            chunk.left += int(np.count_nonzero(columns[3] != GONE))
            expected += rows

    def _enter(self, chunk: _Chunk, head: npt.NDArray[np.void], columns: tuple[Any, Any, Any, Any]) -> Part[D]:
        first, since_ns = int(head["first"][0]), int(head["since_ns"][0])
        self._firsts.append(first)
        self._entries.append(_Entry(first, columns[3], chunk))
        return Part(self._encoder.restored(int(head["template"][0]), *columns[:3]), since_ns, first)

    def found(self) -> list[tuple[Part[D], int]]:
        """Each run of rows in one state that the former process has left, with this state; empty from then on."""
        held = {entry.first for entry in self._entries}
        parts, self._parts = [part for part in self._parts if part.at in held], []
        return [run for part in parts for run in self._runs(part)]

    def _runs(self, part: Part[D]) -> Iterator[tuple[Part[D], int]]:
        states = self._entry(part.at).states
        cuts = np.flatnonzero(np.diff(states)) + 1
        for start, stop in zip([0, *cuts.tolist()], [*cuts.tolist(), len(states)]):
            yield part.slice(start, stop), int(states[start])

    def append(self, data_set: D, since_ns: int) -> Iterator[Part[D]]:
        """Writes ``data_set``, in as many parts as it takes. They count when ``end`` is stored."""
        row_bytes, start = data_set.rows.dtype.itemsize, 0
        while start < len(data_set):
            chunk = self._writer
            fitting = chunk.rows_that_fit(row_bytes) if chunk is not None else 0
            if chunk is None or fitting < min(_FEW_ROWS, len(data_set) - start):
                chunk = self._writer = self._free_chunk()
                chunk.begin(self.end)
                fitting = chunk.rows_that_fit(row_bytes)
            part = data_set.slice(start, start + fitting)
            yield self._write(chunk, part, row_bytes, since_ns)
            start += fitting

    def _write(self, chunk: _Chunk, data_set: D, row_bytes: int, since_ns: int) -> Part[D]:
        rows, head = len(data_set), chunk.head()
        columns = chunk.columns(rows, row_bytes)
        columns[0][:] = np.ascontiguousarray(data_set.rows).view(np.uint8)
        columns[1][:], columns[2][:] = data_set.packets, data_set.octets
        columns[3][:] = WAITS
        head[0] = (self.end, rows, data_set.kind, row_bytes, since_ns)
        part = self._enter(chunk, head, columns)
        chunk.left += rows
        self.end += rows
        return part

    def mark_again(self, at: int, rows: int, state: int) -> None:
        """As ``mark``, by the next process, which does not know how far the former one came."""
        entry = self._entry(at) if at >= (self._firsts or [at + 1])[0] else None
        if entry is not None and at < entry.first + len(entry.states):
            here = entry.states[at - entry.first : at - entry.first + rows]
            if state == GONE:
                self.mark(at, rows, state)
            else:  # sent rows may be gone by now
                here[here != GONE if state == WAITS else here == WAITS] = state

    def mark(self, at: int, rows: int, state: int) -> None:
        """The ``rows`` of one entry from the number ``at`` on are in ``state`` now; may be repeated."""
        entry = self._entry(at)
        states = entry.states[at - entry.first : at - entry.first + rows]
        leave = int(np.count_nonzero(states != GONE)) if state == GONE else 0
        states[:] = state
        entry.chunk.left -= leave
        if leave and not entry.chunk.left:
            self._release(entry.chunk)

    def _entry(self, at: int) -> _Entry:
        return self._entries[bisect_right(self._firsts, at) - 1]

    def _release(self, chunk: _Chunk) -> None:
        """All rows of ``chunk`` are gone."""
        start = bisect_right(self._firsts, chunk.first) - 1
        stop = start
        while stop < len(self._entries) and self._entries[stop].chunk is chunk:
            stop += 1
        del self._entries[start:stop], self._firsts[start:stop]
        if chunk is self._writer:
            self._writer = None
        chunk.begin(0)
        self._free.append(chunk)
        if len(self._free) == len(self._chunks):
            self._shrink()

    def _shrink(self) -> None:
        """Nothing waits: as many chunks keep their memory as were in use at a time since the last two such moments."""
        for chunk in self._free[: -max(self._most, self._most_before)]:
            chunk.map.madvise(mmap.MADV_REMOVE)
        self._most_before, self._most = self._most, 0

    def _free_chunk(self) -> _Chunk:
        if not self._free:
            number = len(self._chunks)
            os.ftruncate(self._fd, (number + 1) * CHUNK_BYTES)
            self._chunks.append(_Chunk(self._fd, number))
            self._free.append(self._chunks[-1])
        chunk = self._free.pop()
        self._most = max(self._most, len(self._chunks) - len(self._free))
        return chunk

    def close(self) -> None:
        """Frees the descriptor. The memory goes with the last row that is in use."""
        os.close(self._fd)
