"""Estimates the daemon's memory in advance, and checks that this much is available."""

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
    """Of an eviction of a full kernel table."""
    return config.capture.max_flows * EVICTION_BYTES


def warning(config: Config, kernel_bytes: int) -> str:
    """A warning if there is room for the maps (``kernel_bytes``) but not for a full flow cache; else an empty string.

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
