"""How much memory the daemon takes, as far as it is known beforehand, and whether that much is left."""

from __future__ import annotations

from netobs.config import Config
from netobs.datapath.memory import MIB, room
from netobs.flow.records import RECORD
from netobs.metering.store import BYTES_PER_FLOW

EVICTION_BYTES = 3 * RECORD.itemsize
"""For each flow, while it is taken out: its row, a merged copy, its encoded form (measured)."""


def cache_bytes(config: Config) -> int:
    """Of the flow cache when it is full."""
    return config.metering.max_flows * BYTES_PER_FLOW


def eviction_bytes(config: Config) -> int:
    """Of an eviction of as many flows as the kernel's table is made for."""
    return config.capture.max_flows * EVICTION_BYTES


def warning(config: Config, kernel_bytes: int) -> str:
    """What to say where the maps find room, ``kernel_bytes``, and a full flow cache would not; else an empty string.

    :raises CaptureError: there is no /proc.
    """
    needed = kernel_bytes + cache_bytes(config) + eviction_bytes(config)
    left, whose = room()
    if needed <= left:
        return ""
    return (
        f"memory: with full tables {needed / MIB:.0f} MiB are needed, {whose} has {left / MIB:.0f} MiB left; "
        "lower metering.max_flows and capture.max_flows"
    )
