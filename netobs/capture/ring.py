"""The ring buffer, read as an array.

libbpf would call back for each record. Our records all have one size, so that what lies between the consumer's and
the producer's position is an array with a header in front of each row (kernel/bpf/ringbuf.c: struct bpf_ringbuf_hdr).
"""

from __future__ import annotations

import ctypes
import mmap

import numpy as np
import numpy.typing as npt

from netobs.capture.object import BpfObject
from netobs.records import RECORD, Records, empty

BUSY = np.uint32(1 << 31)  # reserved, not yet submitted
ENTRY = np.dtype([("length", "<u4"), ("page_offset", "<u4"), ("record", RECORD)])
"""A header and a record: 112 bytes, a multiple of 8 as the kernel rounds."""


class RingBuffer:
    """Consumer of map ``ring``. ``fd`` is readable when there are records."""

    MAP = "ring"

    def __init__(self, size_bytes: int) -> None:
        """``size_bytes``: a power of two, at least one page."""
        self.size_bytes = size_bytes
        self.fd = -1
        self._consumer: mmap.mmap | None = None
        self._producer: mmap.mmap | None = None

    def prepare(self, obj: BpfObject) -> None:
        """Sizes the map. Before load."""
        obj.set_max_entries(self.MAP, self.size_bytes)

    def open(self, obj: BpfObject) -> None:
        """Maps the ring into this process: the consumer's page; the producer's page, then the data twice in a row."""
        self.fd = obj.map_fd(self.MAP)
        page = mmap.PAGESIZE
        self._consumer = mmap.mmap(self.fd, page, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        self._producer = mmap.mmap(self.fd, page + 2 * self.size_bytes, mmap.MAP_SHARED, mmap.PROT_READ, offset=page)
        self._consumer_position = ctypes.c_uint64.from_buffer(self._consumer)
        self._producer_position = np.frombuffer(self._producer, dtype="<u8", count=1)
        # Positions modulo the size are not multiples of the entry: one view for each of the 14 phases would do, a
        # byte view that is sliced and cast does as well.
        self._data: npt.NDArray[np.uint8] = np.frombuffer(self._producer, dtype="u1", offset=page)

    def consume(self) -> Records:
        """Takes what was submitted (a copy, shape ``(n,)``, dtype ``RECORD``) and gives the space back."""
        start = self._consumer_position.value
        available = (int(self._producer_position[0]) - start) // ENTRY.itemsize
        if not available:
            return empty(0)
        offset = start % self.size_bytes
        entries = self._data[offset : offset + available * ENTRY.itemsize].view(ENTRY)
        busy = np.flatnonzero(entries["length"] & BUSY)
        if len(busy):
            entries = entries[: busy[0]]
        records = entries["record"].copy()
        self._consumer_position.value = start + entries.nbytes
        return records

    def close(self) -> None:
        """Unmaps the ring."""
        if self._consumer is not None and self._producer is not None:
            del self._consumer_position, self._producer_position, self._data
            self._consumer.close()
            self._producer.close()
            self._consumer = self._producer = None

    def kernel_bytes(self) -> int:
        """Memory of the map."""
        return self.size_bytes + 3 * mmap.PAGESIZE
