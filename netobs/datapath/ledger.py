"""The ledger: counters that the programs keep for each CPU, read from shared memory without a system call."""

from __future__ import annotations

import mmap
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from netobs.datapath.layout import LEDGER, LEDGER_COUNT, LEDGER_REASONS, NOT_IP, NOT_IP_ETHERTYPES
from netobs.kernel.object import BpfObject

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
    ethertypes: dict[int, Count] = field(default_factory=dict)
    """What reason ``not_ip`` consists of, by EtherType, the most packets first; 0: IEEE 802.3, without EtherType."""
    other_ethertypes: Count = Count(0, 0)
    """Those beyond the ``NOT_IP_ETHERTYPES`` that are counted one by one."""

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
    """Reads the maps ``ledgers`` and ``not_ip``."""

    MAPS = {"ledgers": LEDGER, "not_ip": NOT_IP}

    def __init__(self, cpus: int) -> None:
        self._cpus = cpus
        self._memory: dict[str, mmap.mmap] = {}

    def prepare(self, obj: BpfObject) -> None:
        """Sizes the maps: one entry for each possible CPU. Before load."""
        for name in self.MAPS:
            obj.set_max_entries(name, self._cpus)

    def open(self, obj: BpfObject) -> None:
        """Maps the ledgers into this process. After load."""
        for name, dtype in self.MAPS.items():
            self._memory[name] = obj.shared(name, self._cpus * dtype.itemsize)

    def read(self) -> LedgerReading:
        """The ledger now, summed over the CPUs. Counters of packets that arrive meanwhile may or may not be in."""
        rows = self._rows("ledgers")
        reasons = {name: _sum(rows["reasons"][:, i]) for i, name in enumerate(LEDGER_REASONS)}
        return LedgerReading(_sum(rows["seen"]), reasons, *self._not_ip())

    def _not_ip(self) -> tuple[dict[int, Count], Count]:
        """By EtherType, and the others. CPUs count one by one what came to them first, which need not be the same."""
        rows = self._rows("not_ip")
        counts = rows["ethertypes"][rows["ethertypes"]["count"]["packets"] != 0]
        numbers = np.unique(counts["ethertype"])
        sums = {int(number): _sum(counts["count"][counts["ethertype"] == number]) for number in numbers}
        ranked = sorted(sums.items(), key=lambda item: -item[1].packets)
        beyond = (count for _, count in ranked[NOT_IP_ETHERTYPES:])
        return dict(ranked[:NOT_IP_ETHERTYPES]), _total((_sum(rows["others"]), *beyond))

    def _rows(self, name: str) -> np.ndarray[tuple[int], np.dtype[np.void]]:
        return np.frombuffer(self._memory[name], dtype=self.MAPS[name], count=self._cpus)

    def close(self) -> None:
        """Unmaps the ledgers."""
        while self._memory:
            self._memory.popitem()[1].close()

    @classmethod
    def kernel_bytes(cls, cpus: int) -> int:
        """Memory of the maps."""
        return cpus * sum(dtype.itemsize for dtype in cls.MAPS.values())


def _total(counts: Iterable[Count]) -> Count:
    counts = tuple(counts)
    return Count(sum(count.packets for count in counts), sum(count.octets for count in counts))


def _sum(counts: np.ndarray[tuple[int], np.dtype[np.void]]) -> Count:
    assert counts.dtype == LEDGER_COUNT
    return Count(int(counts["packets"].sum()), int(counts["octets"].sum()))
