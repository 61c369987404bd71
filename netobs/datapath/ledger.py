"""The ledger: counters that the programs keep for each CPU, read from shared memory without a system call."""

from __future__ import annotations

import mmap
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from netobs.datapath.layout import LEDGER, LEDGER_COUNT, LEDGER_REASONS, NOT_IP, NOT_IP_ETHERTYPES
from netobs.kernel.object import BpfObject

NOT_LOST = ("not_ip", "not_sampled")
"""Reasons that are not losses: packets without an IP flow, and packets left out on purpose."""


@dataclass(frozen=True)
class Count:
    """Packets (on the wire) and octets (of IP if the IP header was understood, else of the frame)."""

    packets: int
    octets: int


@dataclass(frozen=True)
class LedgerReading:
    """Packets that the programs saw since they were loaded, and packets in no flow, by reason."""

    seen: Count
    reasons: dict[str, Count]
    ethertypes: dict[int, Count] = field(default_factory=dict)
    """Packets of reason ``not_ip`` by EtherType, most packets first; 0: IEEE 802.3, without EtherType."""
    other_ethertypes: Count = Count(0, 0)
    """Packets of other EtherTypes: only ``NOT_IP_ETHERTYPES`` have a counter each."""

    @property
    def not_in_flows(self) -> Count:
        """The sum over all reasons."""
        return _total(self.reasons.values())

    @property
    def lost(self) -> Count:
        """Packets that should be in a flow and are in none."""
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

    def open_maps(self, obj: BpfObject) -> None:
        """Maps the ledgers into this process. After load."""
        for name, dtype in self.MAPS.items():
            self._memory[name] = obj.shared(name, self._cpus * dtype.itemsize)

    def read(self) -> LedgerReading:
        """The ledger now, summed over the CPUs. Packets that arrive meanwhile may or may not be included."""
        rows = self._rows("ledgers")
        reasons = {name: _sum(rows["reasons"][:, i]) for i, name in enumerate(LEDGER_REASONS)}
        return LedgerReading(_sum(rows["seen"]), reasons, *self._not_ip())

    def _not_ip(self) -> tuple[dict[int, Count], Count]:
        """Counts by EtherType, and the rest. Each CPU counts the EtherTypes that it saw first, so CPUs may differ."""
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
