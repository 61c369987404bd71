"""A batch of packets from the kernel for the clients: columns, and one buffer with all bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from netobs.base.vectors import Numbers
from netobs.pcap.tap.layout import META

if TYPE_CHECKING:
    import numpy.typing as npt

HEADROOM_BYTES = 16
"""Free bytes before each packet in the buffer: a format writes the header of its record there."""


@dataclass(frozen=True)
class PacketBatch:
    """Packets in the order of time. Each format must use the headroom before another format writes into it."""

    buffer: bytearray
    """The captured octets of all packets, with gaps between them of at least HEADROOM_BYTES."""

    meta: npt.NDArray[np.void]
    """Shape (n,), dtype META. ``caplen`` and ``length`` include the VLAN tag, which is back in its place
    (``vlan_proto`` still tells that the kernel kept it beside the packet); ``part`` is 0."""

    start: Numbers
    """Shape (n,): start of a packet's octets in ``buffer``; a multiple of 4, at least HEADROOM_BYTES."""

    def __len__(self) -> int:
        return len(self.meta)


def no_packets() -> PacketBatch:
    """An empty batch."""
    return PacketBatch(bytearray(), np.empty(0, dtype=META), np.empty(0, dtype=np.int64))
