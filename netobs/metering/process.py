"""The Metering Process: takes evictions, hands out due Flow Records, and keeps the totals of both."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from netobs.flow.records import RECORD, Records
from netobs.metering.cache import FORCED_END, FlowCache


@dataclass
class Totals:
    """Totals since the start in one direction: Flow Records (rows), wire packets and IP octets."""

    flows: int = 0
    packets: int = 0
    octets: int = 0

    def add(self, records: Records) -> None:
        """Count ``records``."""
        self.flows += len(records)
        self.packets += int(records["packets"].sum())
        self.octets += int(records["octets"].sum())


class Metering:
    """A flow cache with totals: ``taken`` (rows of evictions) and ``handed_out`` (Flow Records).

    ``taken.packets - handed_out.packets`` are the packets in the cache; the same holds for octets.
    """

    def __init__(
        self,
        active_timeout_ns: int,
        idle_timeout_ns: int,
        max_flows: int = 1_000_000,
        seed: int | None = None,
        dtype: np.dtype[np.void] = RECORD,
    ) -> None:
        """Without ``seed`` each process has its own random one. ``dtype``: of the records."""
        seed = int.from_bytes(os.urandom(8), "little") if seed is None else seed
        self.cache = FlowCache(active_timeout_ns, idle_timeout_ns, max_flows, seed, dtype=dtype)
        self.taken = Totals()
        self.handed_out = Totals()

    def update(self, records: Records, now_ns: int) -> Records:
        """Take in an eviction and hand out the due records. Takes over ``records`` like ``FlowCache.update``."""
        self.taken.add(records)
        due = self.cache.update(records, now_ns)
        self.handed_out.add(due)
        return due

    def set_limits(self, active_timeout_ns: int, idle_timeout_ns: int, max_flows: int) -> Records:
        """Change the limits; hands out the records that are due because of it."""
        due = self.cache.set_limits(active_timeout_ns, idle_timeout_ns, max_flows)
        self.handed_out.add(due)
        return due

    def end_interface(self, key: int) -> Records:
        """Hand out the flows of the interface ``key`` (``interface_key``), which has gone."""
        due = self.cache.expire_interface(key)
        self.handed_out.add(due)
        return due

    def end_namespace(self, netns: int) -> Records:
        """Hand out the flows of the network namespace with the number ``netns``, which has gone."""
        due = self.cache.expire_namespace(netns)
        self.handed_out.add(due)
        return due

    def expire_all(self) -> Records:
        """Hand out all remaining records, with the reason "forced end"."""
        due = self.cache.expire_all(FORCED_END)
        self.handed_out.add(due)
        return due
