"""``flow_table = "ringbuf"``: the paper's predecessor. Every packet is a record in the ring buffer."""

from __future__ import annotations

import numpy as np

from netobs.flow.records import RECORD, Records, empty
from netobs.kernel.object import BpfObject, LoadedObject


class RingOnly:
    """No table in the kernel: the ring's records are added up in the flow cache."""

    MAPS: tuple[str, ...] = ()
    slots = 1
    slot_cpus = 0

    def __init__(self, record: np.dtype[np.void] = RECORD) -> None:
        """``record``: the dtype of the records."""
        self._record = record

    def prepare(self, obj: BpfObject) -> None:
        """Nothing to size."""

    def open_maps(self, obj: LoadedObject) -> None:
        """Nothing to open."""

    def evict(self, now_ns: int) -> Records:
        """Nothing waits in the kernel but what is in the ring."""
        return empty(0, self._record)

    def occupancy(self) -> dict[str, int]:
        """There is no level to count."""
        return {}

    def close(self) -> None:
        """Nothing to release."""

    def kernel_bytes(self) -> int:
        """None."""
        return 0
