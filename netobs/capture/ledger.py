"""The ledger: counters that the programs keep for each CPU, read from shared memory without a system call."""

from __future__ import annotations

import mmap
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from netobs.capture.layout import LEDGER, LEDGER_COUNT, LEDGER_REASONS
from netobs.capture.object import BpfObject

NOT_LOST = ("not_ip", "not_sampled")
"""Reasons that are no loss: what has no IP flow, and what is left out on purpose."""


@dataclass(frozen=True)
class Count:
    """Packets (on the wire) and octets (of IP where the IP header was understood, else of the frame)."""

    packets: int
    octets: int


@dataclass(frozen=True)
class LedgerReading:
    """What the programs saw since they were loaded, and what of it is in no flow, by reason."""

    seen: Count
    reasons: dict[str, Count]

    @property
    def not_in_flows(self) -> Count:
        """The sum over all reasons."""
        return _total(self.reasons.values())

    @property
    def lost(self) -> Count:
        """What should be in a flow and is in none."""
        return _total(self.losses.values())

    @property
    def losses(self) -> dict[str, Count]:
        """``lost`` by reason."""
        return {reason: count for reason, count in self.reasons.items() if reason not in NOT_LOST}


class Ledger:
    """Reads map ``ledgers``."""

    MAP = "ledgers"

    def __init__(self, cpus: int) -> None:
        self._cpus = cpus
        self._memory: mmap.mmap | None = None

    def prepare(self, obj: BpfObject) -> None:
        """Sizes the map: one ledger for each possible CPU. Before load."""
        obj.set_max_entries(self.MAP, self._cpus)

    def open(self, obj: BpfObject) -> None:
        """Maps the ledgers into this process. After load."""
        self._memory = obj.shared(self.MAP, self.kernel_bytes(self._cpus))

    def read(self) -> LedgerReading:
        """The ledger now, summed over the CPUs. Counters of packets that arrive meanwhile may or may not be in."""
        assert self._memory is not None
        rows = np.frombuffer(self._memory, dtype=LEDGER, count=self._cpus)
        reasons = rows["reasons"]
        return LedgerReading(_sum(rows["seen"]), {name: _sum(reasons[:, i]) for i, name in enumerate(LEDGER_REASONS)})

    def close(self) -> None:
        """Unmaps the ledgers."""
        if self._memory is not None:
            self._memory.close()
            self._memory = None

    @staticmethod
    def kernel_bytes(cpus: int) -> int:
        """Memory of the map."""
        return cpus * LEDGER.itemsize


def _total(counts: Iterable[Count]) -> Count:
    counts = tuple(counts)
    return Count(sum(count.packets for count in counts), sum(count.octets for count in counts))


def _sum(counts: np.ndarray[tuple[int], np.dtype[np.void]]) -> Count:
    assert counts.dtype == LEDGER_COUNT
    return Count(int(counts["packets"].sum()), int(counts["octets"].sum()))
