"""Many pieces of memory in one system call, without a step of Python for each: writev(2)."""

from __future__ import annotations

import contextlib
import ctypes
import os

import numpy as np

from netobs.pcap.batch import Buffer, Numbers, slices

MOST = 1024  # UIO_MAXIOV (include/uapi/linux/uio.h)
VECTOR = np.dtype([("address", "=u8"), ("length", "=u8")])  # struct iovec, where addresses have 64 bits

_writev = ctypes.CDLL(None, use_errno=True).writev
_writev.restype = ctypes.c_ssize_t
_writev.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_int]


class Vectors:
    """``count`` pieces of buffers, which are kept as long as this is."""

    def __init__(self, count: int) -> None:
        self.table = np.empty(count, dtype=VECTOR)
        """Shape (count,): where each piece is."""
        self._put: list[tuple[slice, Buffer, Numbers, Numbers]] = []

    def put(self, places: slice, buffer: Buffer, first: Numbers, last: Numbers) -> None:
        """The pieces at ``places`` are the bytes ``first`` to ``last`` of ``buffer``."""
        self._put.append((places, buffer, first, last))
        self.table["address"][places] = first + ctypes.addressof(ctypes.c_char.from_buffer(buffer))
        self.table["length"][places] = last - first

    def join(self) -> bytes:
        """A copy of all pieces, back to back. A step of Python for each."""
        parts: list[Buffer] = [bytearray()] * len(self.table)
        for places, buffer, first, last in self._put:
            parts[places] = slices(buffer, first, last)
        return b"".join(parts)

    def skip(self, count: int) -> None:
        """Leaves the first ``count`` bytes out."""
        ends = self.table["length"].cumsum()
        whole = int(ends.searchsorted(count, side="right"))
        self.table = self.table[whole:]
        begun = count - (int(ends[whole - 1]) if whole else 0)
        if begun:
            self.table["address"][0] += np.uint64(begun)
            self.table["length"][0] -= np.uint64(begun)


def write(fd: int, pieces: Vectors) -> int:
    """Writes the beginning of all ``pieces`` that ``fd`` takes; how many bytes.

    :raises OSError: it takes nothing; BlockingIOError if that is so only now.
    """
    written = 0
    table = pieces.table
    for begin in range(0, len(table), MOST):
        count = min(MOST, len(table) - begin)
        taken = _writev(fd, table.ctypes.data + begin * VECTOR.itemsize, count)
        if taken < 0 and not written:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        written += max(taken, 0)
        if taken < int(table["length"][begin : begin + count].sum()):
            break
    return written


def write_all(fd: int, pieces: Vectors) -> None:
    """Writes all ``pieces``, which are used up, to ``fd``, however long that takes; goes on where a signal came.

    :raises OSError: it takes nothing more.
    """
    while len(pieces.table):
        with contextlib.suppress(InterruptedError):
            pieces.skip(write(fd, pieces))
