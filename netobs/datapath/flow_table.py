"""What a flow table is to the rest of capture: one object with ``evict()``."""

from __future__ import annotations

from typing import Protocol

from netobs.flow.records import Records
from netobs.kernel.object import BpfObject


class FlowTable(Protocol):
    """The kernel's flow table, seen from user space."""

    MAPS: tuple[str, ...]
    """Its maps; those of the other tables are left out."""
    slots: int
    """For the settings of the programs: slots of a CPU, 1 where the table has none."""
    slot_cpus: int
    """And how many CPUs have slots."""

    def prepare(self, obj: BpfObject) -> None:
        """Sizes the maps. Before load."""

    def open(self, obj: BpfObject) -> None:
        """Takes hold of the maps. After load."""

    def evict(self, now_ns: int) -> Records:
        """Takes all flows out: shape ``(n,)``, dtype ``RECORD``; a flow that several CPUs saw has a row for each."""

    def occupancy(self) -> dict[str, int]:
        """Flows that the last eviction found, by level; empty where the table has no levels."""

    def close(self) -> None:
        """Lets go of the maps."""

    def kernel_bytes(self) -> int:
        """Memory of the maps."""
