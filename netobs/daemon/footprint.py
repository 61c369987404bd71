"""Estimates the daemon's memory in advance, and checks that this much is available."""

from __future__ import annotations

import numpy as np

from netobs.config import Config
from netobs.datapath.memory import MIB, room
from netobs.flow.records import RECORD
from netobs.metering.store import BYTES_PER_FLOW

EVICTION_COPIES = 3
"""Of each flow, while it is taken out: its row, a merged copy, its encoded form (measured)."""


def cache_bytes(config: Config, record: np.dtype[np.void] = RECORD) -> int:
    """Of the flow cache when it is full of records of the dtype ``record``."""
    return config.metering.max_flows * (BYTES_PER_FLOW + record.itemsize)


def eviction_bytes(config: Config, record: np.dtype[np.void] = RECORD) -> int:
    """Of an eviction of as many flows as the kernel's table is made for."""
    return config.capture.max_flows * EVICTION_COPIES * record.itemsize


def warning(config: Config, kernel_bytes: int, record: np.dtype[np.void] = RECORD) -> str:
    """What to say where the maps find room, ``kernel_bytes``, and a full flow cache would not; else an empty string.

    :raises CaptureError: there is no /proc.
    """
    needed = kernel_bytes + cache_bytes(config, record) + eviction_bytes(config, record)
    left, whose = room()
    if needed <= left:
        return ""
    return (
        f"memory: with full tables {needed / MIB:.0f} MiB are needed, {whose} has {left / MIB:.0f} MiB left; "
        "lower metering.max_flows and capture.max_flows"
    )
