"""The ring buffer, read as an array.

libbpf would call back for each record. Our records all have one size, so that what lies between the consumer's and
the producer's position is an array with a header before each row (kernel/bpf/ringbuf.c: struct bpf_ringbuf_hdr).
"""

from __future__ import annotations

import ctypes
import mmap
from typing import TYPE_CHECKING

import numpy as np

from netobs.flow.journal import Intake
from netobs.flow.records import RECORD, opaque
from netobs.kernel.fence import fence
from netobs.kernel.object import BpfObject, LoadedObject

if TYPE_CHECKING:
    import numpy.typing as npt

BUSY = np.uint32(1 << 31)  # reserved, not yet submitted
DATA_OFFSET = 2 * mmap.PAGESIZE
"""In the map's file: the page with the consumer's position, the one with the producer's, then the data, twice."""


def entry(record: np.dtype[np.void]) -> np.dtype[np.void]:
    """A header and a record of the dtype ``record``: a multiple of 8 bytes, as the kernel rounds."""
    return np.dtype([("length", "<u4"), ("page_offset", "<u4"), ("record", f"V{record.itemsize}")])


class RingBuffer:
    """Consumer of map ``ring``. ``fd`` is readable when there are records.

    The data is mapped only while there is some: mapped pages count as this process's memory, although they are the
    kernel's.
    """

    MAP = "ring"

    def __init__(self, size_bytes: int, record: np.dtype[np.void] = RECORD) -> None:
        """``size_bytes``: a power of two, at least one page. ``record``: the dtype of the records."""
        self.size_bytes = size_bytes
        self._record, self._entry = record, entry(record)
        self.fd = -1
        self._consumer: mmap.mmap | None = None
        self._producer: mmap.mmap | None = None
        self._data: mmap.mmap | None = None

    def prepare(self, obj: BpfObject) -> None:
        """Sizes the map. Before load."""
        obj.set_max_entries(self.MAP, self.size_bytes)

    def open_maps(self, obj: LoadedObject) -> None:
        """Maps the two positions into this process. After load."""
        self.fd = obj.map_fd(self.MAP)
        page = mmap.PAGESIZE
        self._consumer = mmap.mmap(self.fd, page, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        self._producer = mmap.mmap(self.fd, page, mmap.MAP_SHARED, mmap.PROT_READ, offset=page)
        self._consumer_position = ctypes.c_uint64.from_buffer(self._consumer)
        self._producer_position: npt.NDArray[np.uint64] = np.frombuffer(self._producer, dtype="<u8", count=1)

    def read(self, intake: Intake) -> int:
        """Copies what was submitted to ``intake``. The position up to which ``give_back`` may go then."""
        start, end = self._consumer_position.value, int(self._producer_position[0])
        if start == end:
            self._unmap_data()
            return start
        fence()  # what is up to `end` was there before the position said so
        while start < end:
            count = self._copy(start, end, intake)
            if not count:
                break
            start += count * self._entry.itemsize
        return start

    def give_back(self, position: int) -> None:
        """Lets the kernel write up to ``position`` again. May be repeated."""
        if position > self._consumer_position.value:
            fence()  # the copy is made before
            self._consumer_position.value = position

    def _copy(self, start: int, end: int, intake: Intake) -> int:
        """Copies the records from ``start`` on, up to ``end``, the end of the ring, or one still being written. Returns
        how many there were."""
        if self._data is None:
            # One page more than the ring: a record that begins at its end goes on there, where the ring begins again.
            size = self.size_bytes + mmap.PAGESIZE
            self._data = mmap.mmap(self.fd, size, mmap.MAP_SHARED, mmap.PROT_READ, offset=DATA_OFFSET)
        offset = start % self.size_bytes
        count = min((end - start) // self._entry.itemsize, -(-(self.size_bytes - offset) // self._entry.itemsize))
        entries = np.frombuffer(self._data, dtype=self._entry, count=count, offset=offset)
        busy = np.flatnonzero(entries["length"] & BUSY)
        fence()  # a record is whole once its header says so, which was read
        submitted = int(busy[0]) if len(busy) else count
        opaque(intake.room(submitted))[:] = entries["record"][:submitted]
        return submitted

    def _unmap_data(self) -> None:
        if self._data is not None:
            self._data.close()
            self._data = None

    def close(self) -> None:
        """Unmaps the ring."""
        self._unmap_data()
        if self._consumer is not None and self._producer is not None:
            del self._consumer_position, self._producer_position
            self._consumer.close()
            self._producer.close()
            self._consumer = self._producer = None

    def kernel_bytes(self) -> int:
        """Memory of the map."""
        return self.size_bytes + 3 * mmap.PAGESIZE
