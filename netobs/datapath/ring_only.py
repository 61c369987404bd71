"""``flow_table = "ringbuf"``: the paper's predecessor. Every packet is a record in the ring buffer."""

from __future__ import annotations

from netobs.datapath.flow_table import Quiet
from netobs.flow.journal import Intake
from netobs.kernel.object import BpfObject, LoadedObject


class RingOnly:
    """No table in the kernel: the ring's records are added up in the flow cache."""

    MAPS: tuple[str, ...] = ()
    slots = 1
    slot_cpus = 0

    def prepare(self, obj: BpfObject) -> None:
        """Nothing to size."""

    def open_maps(self, obj: LoadedObject) -> None:
        """Nothing to open."""

    def read(self, quiet: Quiet, intake: Intake, take: bool) -> None:
        """Nothing waits in the kernel but what is in the ring."""

    def clear(self, half: int) -> None:
        """Nothing to clear."""

    def occupancy(self) -> dict[str, int]:
        """There is no level to count."""
        return {}

    def close(self) -> None:
        """Nothing to release."""

    def kernel_bytes(self) -> int:
        """None."""
        return 0
