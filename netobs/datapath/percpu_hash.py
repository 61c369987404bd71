"""``flow_table = "percpu_hash"``: the paper's per-CPU hash, taken out in batches.

There are two of them. With one, a packet that is counted after the kernel copies an entry and before it deletes the
entry would be lost, and no ledger could see it. So packets go to one half while the other is evicted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from netobs.datapath.batch import BatchReader, hash_map_bytes, whole
from netobs.datapath.flow_table import Quiet
from netobs.datapath.layout import PLAIN, RecordLayout
from netobs.flow.journal import Intake
from netobs.flow.records import KEY, in_parts, opaque
from netobs.kernel.object import BpfObject, LoadedObject

if TYPE_CHECKING:
    import numpy.typing as npt

CLOCK_SLACK_NS = 50_000_000  # the coarse clock is up to one tick (10 ms at 100 Hz) behind


class PercpuHash:
    """Maps ``flow_hash_0`` and ``flow_hash_1``; ``cpus`` is the number of possible CPUs.

    ``stale``: how many values the stale-entry rule has dropped.
    """

    MAPS: tuple[str, ...] = ("flow_hash_0", "flow_hash_1")
    slots = 1
    slot_cpus = 0

    def __init__(self, max_flows: int, cpus: int, batch: int = 0, layout: RecordLayout = PLAIN) -> None:
        """``batch``: as in ``BatchReader``."""
        self._max_flows = max_flows
        self._cpus = cpus
        self.stale = 0
        self._layout = layout
        self._reader = BatchReader(KEY.itemsize, cpus, max_flows, batch, layout.metrics)

    def prepare(self, obj: BpfObject) -> None:
        """Sizes both halves. Before load."""
        for name in self.MAPS:
            obj.set_max_entries(name, self._max_flows)

    def open_maps(self, obj: LoadedObject) -> None:
        """After load."""
        self._fds = [obj.map_fd(name) for name in self.MAPS]

    def read(self, quiet: Quiet, intake: Intake, take: bool) -> None:
        for keys, values in self._reader.entries(self._fds[quiet.half], take):
            present = np.flatnonzero(self._present(values, quiet.since_ns))
            rows = intake.room(len(present)).view(in_parts(self._layout.record))
            rows["key"] = whole(keys).take(present // self._cpus)
            rows["metrics"] = opaque(values.reshape(-1)).take(present)

    def clear(self, half: int) -> None:
        self._reader.clear(self._fds[half])

    def _present(self, values: npt.NDArray[np.void], since_ns: int) -> npt.NDArray[np.bool_]:
        """The values of the CPUs that saw the flow: those of the others are zero. Values that are older than the half's
        last eviction do not count. A CPU left them in an element that the kernel reused (the paper's rule; kernels from
        5.10 on clear the element themselves)."""
        counts: npt.NDArray[np.bool_] = values["packets"] != 0
        stale = counts & (values["last_ns"] < max(since_ns - CLOCK_SLACK_NS, 0))
        if stale.any():
            self.stale += int(np.count_nonzero(stale))
            counts &= ~stale
        return counts

    def occupancy(self) -> dict[str, int]:
        """Nothing is known between evictions."""
        return {}

    def close(self) -> None:
        """The maps belong to the object."""

    def kernel_bytes(self) -> int:
        """Memory of both halves: entries are allocated when the map is made, with values for every possible CPU."""
        value_bytes = 8 + self._cpus * self._layout.metrics.itemsize  # a pointer to the values
        return len(self.MAPS) * hash_map_bytes(self._max_flows, KEY.itemsize, value_bytes)
