"""Writes many pieces of memory with one system call, writev(2), without a Python loop over them."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import TYPE_CHECKING, Union

import numpy as np

from netobs.base.libc import checked

if TYPE_CHECKING:
    import numpy.typing as npt

    Numbers = npt.NDArray[np.int64]
else:
    Numbers = np.ndarray

Buffer = Union[bytearray, memoryview]

MOST = 1024  # UIO_MAXIOV (include/uapi/linux/uio.h)
_SHORT_OCTETS = 1024  # below this, joining slices of a bytearray (copies) is faster than those of a memoryview
VECTOR = np.dtype([("address", "=u8"), ("length", "=u8")])  # struct iovec, where addresses have 64 bits

_writev = ctypes.CDLL(None, use_errno=True).writev
_writev.restype = ctypes.c_ssize_t
_writev.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_int]


def slices(buffer: Buffer, first: Numbers, last: Numbers) -> Sequence[Buffer]:
    """The bytes ``first`` to ``last`` of each piece."""
    bounds = zip(first.tolist(), last.tolist())
    if int((last - first).sum()) <= _SHORT_OCTETS * len(first):
        return [buffer[start:stop] for start, stop in bounds]
    view = memoryview(buffer)
    return [view[start:stop] for start, stop in bounds]


class Vectors:
    """``count`` pieces of buffers. It keeps the buffers alive."""

    def __init__(self, count: int) -> None:
        self.table = np.empty(count, dtype=VECTOR)
        """Shape (count,): address and length of each piece."""
        self._put: list[tuple[slice, Buffer, Numbers, Numbers]] = []

    def put(self, places: slice, buffer: Buffer, first: Numbers, last: Numbers) -> None:
        """Sets the pieces at ``places`` to the bytes ``first`` to ``last`` of ``buffer``."""
        self._put.append((places, buffer, first, last))
        self.table["address"][places] = first + ctypes.addressof(ctypes.c_char.from_buffer(buffer))
        self.table["length"][places] = last - first

    def join(self) -> bytes:
        """A copy of all pieces, back to back, by a Python loop."""
        parts: list[Buffer] = [bytearray()] * len(self.table)
        for places, buffer, first, last in self._put:
            parts[places] = slices(buffer, first, last)
        return b"".join(parts)


def write(fd: int, pieces: Vectors) -> int:
    """Writes as much of the start of ``pieces`` as ``fd`` accepts; returns the number of bytes.

    :raises OSError: it accepts nothing; BlockingIOError if that is temporary.
    """
    written = 0
    table = pieces.table
    for begin in range(0, len(table), MOST):
        count = min(MOST, len(table) - begin)
        taken = _writev(fd, table.ctypes.data + begin * VECTOR.itemsize, count)
        if not written:
            checked(taken)
        written += max(taken, 0)
        if taken < int(table["length"][begin : begin + count].sum()):
            break
    return written
