"""The interface of all flow tables."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from netobs.flow.journal import Intake
from netobs.kernel.object import BpfObject, LoadedObject


class Quiet(NamedTuple):
    """A half that nobody writes. ``since_ns``: when it was empty last; ``now_ns``: when the eviction began."""

    half: int
    since_ns: int
    now_ns: int


class FlowTable(Protocol):
    """The kernel's flow table, seen from user space."""

    MAPS: tuple[str, ...]
    """Its maps, if it has any; the maps of other tables are not created."""
    slots: int
    """For the programs' settings: slots per CPU, 1 if the table has none."""
    slot_cpus: int
    """For the programs' settings: number of CPUs with slots."""

    def prepare(self, obj: BpfObject) -> None:
        """Sizes the maps. Before load."""

    def open_maps(self, obj: LoadedObject) -> None:
        """Gets the maps' descriptors and memory. After load."""

    def read(self, quiet: Quiet, intake: Intake, take: bool) -> None:
        """Copies the flows of the quiet half to ``intake``, and with ``take`` removes them. A flow that several CPUs
        saw has a row for each.

        :raises OSError: a map is unreadable. With ``take``, what is in ``intake`` is not in the maps any more, and the
            rest still is.
        """

    def clear(self, half: int) -> None:
        """Empties a quiet half. May be repeated.

        :raises OSError: a map is unreadable, and a part is left.
        """

    def occupancy(self) -> dict[str, int]:
        """Flows that the last eviction found, by level; empty where the table has no levels."""

    def close(self) -> None:
        """Releases the maps."""

    def kernel_bytes(self) -> int:
        """Memory of the maps."""
