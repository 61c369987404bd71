"""The flow table as a process sees it that only looks: flows are neither taken out, nor is an eviction disturbed.

Packets go to one half of the table. What is in that half, and what every eviction has taken out so far, are together
all that was counted; a look is worth something only if no eviction flips the halves meanwhile. Whoever evicts passes
on its rows, with the half that packets go to then: ``follow`` gets that. Programs write while the half is read: each
count is one word, and stands for a moment of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from netobs.datapath.flow_table import FlowTable, Quiet
from netobs.datapath.layout import LAYOUTS, RecordLayout
from netobs.datapath.percpu_array import PercpuArray
from netobs.datapath.percpu_hash import PercpuHash
from netobs.datapath.ring_only import RingOnly
from netobs.datapath.state import SharedState
from netobs.flow.journal import Intake
from netobs.flow.records import Records
from netobs.kernel import libbpf
from netobs.kernel.kept_object import HeldObject

STATE_MAP = ".bss"


class TableShape(NamedTuple):
    """What a process has to know of maps that it did not make. The fields are the keys of [capture], the CPUs with
    slots, and the object whose ``RecordLayout`` the maps have."""

    flow_table: str
    max_flows: int
    slot_cpus: int
    object: str

    def table(self) -> FlowTable:
        """The table, which cannot be written."""
        return table_of(self.flow_table, self.max_flows, self.slot_cpus, 0, LAYOUTS[self.object], writable=False)


def table_of(
    name: str, max_flows: int, slot_cpus: int, batch: int, layout: RecordLayout, writable: bool = True
) -> FlowTable:
    """The class for capture.flow_table = ``name``. ``batch``: as in ``BatchReader``."""
    if name == "percpu_array":
        return PercpuArray(max_flows, slot_cpus, batch, layout, writable)
    if name == "percpu_hash":
        return PercpuHash(max_flows, libbpf.possible_cpus(), batch, layout)
    return RingOnly()


class TableView:
    """``read``, and ``follow`` for each eviction between two of them. ``close`` frees the maps."""

    def __init__(self, shape: TableShape, maps: Mapping[str, int], active_half: int) -> None:
        """``maps``: descriptors of those of the table and of ``STATE_MAP``, which belong to this object from now on.
        ``active_half``: the half that packets went to when no eviction was under way."""
        self._record = LAYOUTS[shape.object].record
        self._half = active_half
        self.is_partial = False
        """Whether the last reading lacks flows, because the kernel lets only CAP_BPF read a hash map. They are in the
        rows of the next eviction."""
        self._object = HeldObject(maps)
        self._state, self._table = SharedState(writable=False), shape.table()
        self._state.open_maps(self._object)
        self._table.open_maps(self._object)

    def follow(self, active_half: int) -> bool:
        """The rows of all evictions have come after which packets go to ``active_half``. Whether that is another half
        than before."""
        before, self._half = self._half, active_half
        return before != active_half

    def is_still(self) -> bool:
        """Whether the rows of all evictions that have begun have come. One that ends between two looks is not seen:
        the caller has to look whether rows have come."""
        return self._state.active_half == self._half

    def read(self, now_ns: int) -> Records | None:
        """The rows of the half that packets go to: shape ``(n,)``; a flow that several CPUs saw has a row for each.
        None: an eviction is under way, and its rows are not here yet."""
        if not self.is_still():
            return None
        intake = Intake(self._record)
        try:
            self._table.read(Quiet(self._half, 0, now_ns), intake, take=False)
            self.is_partial = False
        except PermissionError:
            self.is_partial = True
        return intake.rows if self.is_still() else None

    def close(self) -> None:
        """Unmaps and frees everything."""
        self._table.close()
        self._state.close()
        self._object.close()
