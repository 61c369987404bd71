"""Controls what malloc does with freed memory (mallopt(3)). Only glibc supports this."""

from __future__ import annotations

import contextlib
import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
MMAP_THRESHOLD_BYTES = 1 << 20  # its default grows to 32 MiB and stays there
KEPT_BYTES = 4 << 20


def return_large() -> None:
    """Returns the arrays of a large eviction to the system as soon as they are freed, and keeps the memory of smaller
    ones: an eviction has hundreds of these, one after the other."""
    _set(M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES)
    _set(M_TRIM_THRESHOLD, KEPT_BYTES)  # setting the other one ends that it adapts


def keep_packets() -> None:
    """Keeps the memory of smaller pieces. Packets come in such pieces (netobs.pcap.distribution: READ_BYTES), and
    getting new memory from the system for each costs more than copying it."""
    _set(M_TRIM_THRESHOLD, KEPT_BYTES)


def _set(parameter: int, value: int) -> None:
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).mallopt(parameter, value)
