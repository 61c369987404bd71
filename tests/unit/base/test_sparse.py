"""Arrays in files of memory that are mostly holes."""

from __future__ import annotations

import os
import resource
import signal

import numpy as np
import pytest

from netobs.base import sparse
from netobs.base.errors import NetobsError
from netobs.base.sparse import SparseArray


def kib(fd: int) -> int:
    return os.fstat(fd).st_blocks // 2


def test_only_what_was_written_takes_memory_and_trim_gives_it_back() -> None:
    fd = os.memfd_create("test")
    rows = SparseArray(np.uint64, fd)
    rows.array[: 1 << 20] = 7
    assert 8 << 10 <= kib(fd) < 9 << 10
    rows.trim(1 << 20)
    rows.array[3] = 9
    rows.trim(4)
    assert kib(fd) <= 2 * (sparse.LEAST_BYTES >> 10)
    again = SparseArray(np.uint64, fd)
    assert again.array[3] == 9
    os.close(fd)


def test_a_limit_of_files_is_named() -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    former = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, limits[1]))
    fd = os.memfd_create("test")
    try:
        with pytest.raises(NetobsError, match=r"a file of 32 GiB.* is refused: File too large; set LimitFSIZE="):
            SparseArray(np.uint64, fd)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, former)
        os.close(fd)
