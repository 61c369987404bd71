"""Packets on their way from the kernel to the clients: columns, and one buffer with the bytes of all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from netobs.pcap.layout import META

HEADROOM_BYTES = 16
"""So many bytes in front of each packet in the buffer are free: a format writes the header of its record there."""


@dataclass(frozen=True)
class PacketBatch:
    """Packets in the order of time. Whoever writes into the headroom does so before the next one does."""

    buffer: bytearray
    """The captured octets of all packets, with gaps between them of at least HEADROOM_BYTES."""

    meta: npt.NDArray[np.void]
    """Shape (n,), dtype META. ``caplen`` and ``length`` count the VLAN tag, which is back in its place (``vlan_proto``
    still tells that it was beside); ``part`` is 0."""

    start: npt.NDArray[np.int64]
    """Shape (n,): where in ``buffer`` the octets of a packet begin; a multiple of 4, not less than HEADROOM_BYTES."""

    def __len__(self) -> int:
        return len(self.meta)


def no_packets() -> PacketBatch:
    """An empty batch."""
    return PacketBatch(bytearray(), np.empty(0, dtype=META), np.empty(0, dtype=np.int64))
