"""Many pieces of memory in one system call, without a step of Python for each: writev(2), readv's opposite."""

from __future__ import annotations

import ctypes
import os

import numpy as np
import numpy.typing as npt

from netobs.pcap.batch import Numbers

Vectors = npt.NDArray[np.uint64]
"""Shape (n, 2): address and length of each piece (struct iovec)."""

MOST = 1024  # UIO_MAXIOV (include/uapi/linux/uio.h)
_VECTOR_BYTES = 16

_writev = ctypes.CDLL(None, use_errno=True).writev
_writev.restype = ctypes.c_ssize_t
_writev.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_int]


def vectors(buffer: bytearray, first: Numbers, last: Numbers) -> Vectors:
    """The bytes ``first`` to ``last`` of each piece. ``buffer`` has to stay as long as they are used."""
    made = np.empty((len(first), 2), dtype=np.uint64)
    made[:, 0] = first
    made[:, 0] += np.uint64(_address(buffer))
    made[:, 1] = last - first
    return made


def _address(buffer: bytearray) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))


def write(fd: int, pieces: Vectors) -> int:
    """Writes the beginning of all ``pieces`` that ``fd`` takes; how many bytes.

    :raises OSError: it takes nothing; BlockingIOError if that is so only now.
    """
    written = 0
    address = pieces.ctypes.data
    for begin in range(0, len(pieces), MOST):
        count = min(MOST, len(pieces) - begin)
        taken = _writev(fd, address + begin * _VECTOR_BYTES, count)
        if taken < 0 and not written:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        written += max(taken, 0)
        if taken < int(pieces[begin : begin + count, 1].sum()):
            break
    return written
