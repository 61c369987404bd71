"""The interface of all flow tables: one object with ``evict()``."""

from __future__ import annotations

from typing import Protocol

from netobs.flow.records import Records
from netobs.kernel.object import BpfObject, LoadedObject


class FlowTable(Protocol):
    """The kernel's flow table, seen from user space."""

    MAPS: tuple[str, ...]
    """Its maps; the maps of other tables are not created."""
    slots: int
    """For the programs' settings: slots per CPU, 1 if the table has none."""
    slot_cpus: int
    """For the programs' settings: number of CPUs with slots."""

    def prepare(self, obj: BpfObject) -> None:
        """Sizes the maps. Before load."""

    def open_maps(self, obj: LoadedObject) -> None:
        """Gets the maps' descriptors and memory. After load."""

    def evict(self, now_ns: int) -> Records:
        """Takes all flows out: shape ``(n,)``; a flow that several CPUs saw has a row for each."""

    def occupancy(self) -> dict[str, int]:
        """Flows that the last eviction found, by level; empty where the table has no levels."""

    def close(self) -> None:
        """Releases the maps."""

    def kernel_bytes(self) -> int:
        """Memory of the maps."""
