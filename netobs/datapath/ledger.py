"""The ledger: counters that the programs keep for each CPU, read from shared memory without a system call."""

from __future__ import annotations

import dataclasses
import mmap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from netobs.datapath.layout import LEDGER_COUNT, NOT_IP_ETHERTYPES, PLAIN, RecordLayout
from netobs.kernel.object import BpfObject, LoadedObject

NOT_LOST = ("not_ip", "not_sampled")
"""Reasons that are not losses: packets without an IP flow, and packets left out on purpose."""


@dataclass(frozen=True)
class Count:
    """Packets (on the wire) and octets (of IP if the IP header was understood, else of the frame)."""

    packets: int
    octets: int


NONE = Count(0, 0)
_K = TypeVar("_K")


@dataclass(frozen=True)
class LedgerReading:
    """Packets that the programs saw since they were loaded, and packets in no flow, by reason."""

    seen: Count
    reasons: dict[str, Count]
    ethertypes: dict[int, Count] = field(default_factory=dict)
    """Packets of reason ``not_ip`` by EtherType, most packets first; 0: IEEE 802.3, without EtherType."""
    other_ethertypes: Count = NONE
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

    def __add__(self, other: LedgerReading) -> LedgerReading:
        def total(mine: Mapping[_K, Count], its: Mapping[_K, Count]) -> dict[_K, Count]:
            return {key: _total((mine.get(key, NONE), its.get(key, NONE))) for key in {**mine, **its}}

        return LedgerReading(
            _total((self.seen, other.seen)),
            total(self.reasons, other.reasons),
            total(self.ethertypes, other.ethertypes),
            _total((self.other_ethertypes, other.other_ethertypes)),
        )

    def as_json(self) -> dict[str, Any]:
        """For ``of_json``."""
        return dataclasses.asdict(self)

    @classmethod
    def of_json(cls, values: Mapping[str, Any]) -> LedgerReading:
        """The reading that ``as_json`` has written; an empty one of an empty object. The keys of JSON are text."""
        if not values:
            return cls(NONE, {})
        ethertypes = {int(number): Count(**count) for number, count in values["ethertypes"].items()}
        reasons = {reason: Count(**count) for reason, count in values["reasons"].items()}
        return cls(Count(**values["seen"]), reasons, ethertypes, Count(**values["other_ethertypes"]))


class Ledger:
    """Reads the maps ``ledgers`` and ``not_ip``. ``base``: what former maps had, which are freed."""

    def __init__(self, cpus: int, layout: RecordLayout = PLAIN) -> None:
        self._cpus = cpus
        self._maps = {"ledgers": layout.ledger, "not_ip": layout.not_ip}
        self._reasons = layout.reasons
        self.base: LedgerReading | None = None
        self._memory: dict[str, mmap.mmap] = {}

    def prepare(self, obj: BpfObject) -> None:
        """Sizes the maps: one entry for each possible CPU. Before load."""
        for name in self._maps:
            obj.set_max_entries(name, self._cpus)

    def open_maps(self, obj: LoadedObject) -> None:
        """Maps the ledgers into this process. After load."""
        for name, dtype in self._maps.items():
            self._memory[name] = obj.shared(name, self._cpus * dtype.itemsize)

    def read(self) -> LedgerReading:
        """The ledger now, summed over the CPUs. Packets that arrive meanwhile may or may not be included. ``seen`` is
        without what ``InterfaceCounts.seen`` has."""
        rows = self._rows("ledgers")
        reasons = {name: _sum(rows["reasons"][:, i]) for i, name in enumerate(self._reasons)}
        reading = LedgerReading(_sum(rows["seen"]), reasons, *self._not_ip())
        return reading if self.base is None else self.base + reading

    def rest(self) -> int:
        """Packets that found no row in ``interface_counts``."""
        return int(self._rows("ledgers")["seen"]["packets"].sum())

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
        return np.frombuffer(self._memory[name], dtype=self._maps[name], count=self._cpus)

    def close(self) -> None:
        """Unmaps the ledgers."""
        while self._memory:
            self._memory.popitem()[1].close()

    def kernel_bytes(self) -> int:
        """Memory of the maps."""
        return self._cpus * sum(dtype.itemsize for dtype in self._maps.values())


def _total(counts: Iterable[Count]) -> Count:
    counts = tuple(counts)
    return Count(sum(count.packets for count in counts), sum(count.octets for count in counts))


def _sum(counts: np.ndarray[tuple[int], np.dtype[np.void]]) -> Count:
    assert counts.dtype == LEDGER_COUNT
    return Count(int(counts["packets"].sum()), int(counts["octets"].sum()))
