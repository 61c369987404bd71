"""What malloc does with memory that was freed (mallopt(3)). Only glibc can be told."""

from __future__ import annotations

import contextlib
import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
MMAP_THRESHOLD_BYTES = 1 << 20  # its default grows to 32 MiB and stays there
KEPT_BYTES = 4 << 20


def return_large() -> None:
    """Arrays of a large eviction go back to the system as soon as they are freed."""
    _set(M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES)


def keep_packets() -> None:
    """Packets come in pieces that are not so large (netobs.pcap.distribution: READ_BYTES): to fetch the memory for each
    from the system anew costs more than to copy them."""
    _set(M_TRIM_THRESHOLD, KEPT_BYTES)


def _set(parameter: int, value: int) -> None:
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).mallopt(parameter, value)
