"""A batch of packets from the kernel for the clients: columns, and one buffer with all bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Union

import numpy as np
import numpy.typing as npt

from netobs.pcap.tap.layout import META

Numbers = npt.NDArray[np.int64]
Buffer = Union[bytearray, memoryview]

HEADROOM_BYTES = 16
"""Free bytes before each packet in the buffer: a format writes the header of its record there."""

_SHORT_OCTETS = 1024  # below this, joining slices of a bytearray (copies) is faster than those of a memoryview


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


def slices(buffer: Buffer, first: Numbers, last: Numbers) -> Sequence[Buffer]:
    """The bytes ``first`` to ``last`` of each packet."""
    bounds = zip(first.tolist(), last.tolist())
    if int((last - first).sum()) <= _SHORT_OCTETS * len(first):
        return [buffer[start:stop] for start, stop in bounds]
    view = memoryview(buffer)
    return [view[start:stop] for start, stop in bounds]
