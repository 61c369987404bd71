"""``flow_table = "ringbuf"``: the paper's predecessor. Every packet is a record in the ring buffer."""

from __future__ import annotations

from netobs.flow.records import Records, empty
from netobs.kernel.object import BpfObject


class RingOnly:
    """No table in the kernel: the ring's records are added up in the flow cache."""

    MAPS: tuple[str, ...] = ()
    slots = 1
    slot_cpus = 0

    def prepare(self, obj: BpfObject) -> None:
        """Nothing to size."""

    def open(self, obj: BpfObject) -> None:
        """Nothing to open."""

    def evict(self, now_ns: int) -> Records:
        """Empty: only the ring has records."""
        return empty(0)

    def occupancy(self) -> dict[str, int]:
        """There is no level to count."""
        return {}

    def close(self) -> None:
        """Nothing to release."""

    def kernel_bytes(self) -> int:
        """None."""
        return 0
