"""What the programs count for each interface and direction, read from shared memory without a system call."""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING

import numpy as np

from netobs.datapath.layout import INTERFACE_COUNT, INTERFACE_NETNS_SHIFT, PLAIN, RecordLayout
from netobs.kernel import libbpf
from netobs.kernel.object import BpfObject, LoadedObject

if TYPE_CHECKING:
    import numpy.typing as npt

INGRESS, EGRESS = 0, 1
"""enum netobs_direction."""
LEAST_ROWS, MOST_ROWS = 512, 16_384
"""Of a CPU."""
ROWS_OF_NAMESPACES = 2048
_GOLDEN_RATIO = 0x9E3779B9
"""Its fractional part in units of 2^-32: multiples of it are far from each other, modulo 1."""

COUNTED = np.dtype([
    (name, "<u8") for name in ("key", "packets", "octets", "merged", "link_octets", "tagged_skbs", "repeated_octets")
])  # fmt: skip
"""Of one interface and direction on all CPUs, as in ``struct interface_count``; modulo 2^64. ``packets``, ``octets``:
of ``seen``, as in the ledger."""
_COLUMNS = len(COUNTED.names or ())


def rows_for(interfaces: int, namespaces: bool = False) -> int:
    """Rows of a CPU where there are ``interfaces`` now: twice as many as are needed, a power of two. ``namespaces``:
    those of others may come."""
    wanted = 4 * interfaces + ROWS_OF_NAMESPACES * namespaces
    return min(max(1 << (wanted - 1).bit_length(), LEAST_ROWS), MOST_ROWS)


def row_key(netns: int, rows: int) -> int:
    """netobs_settings.row_key of the namespace ``netns``. The interfaces of each begin with small numbers: their rows
    begin far from those of others."""
    return netns << INTERFACE_NETNS_SHIFT | (netns * _GOLDEN_RATIO % (1 << 32)) * rows >> 32


def count_key(netns: int, ifindex: int, direction: int) -> int:
    """Identifies an interface and direction of all namespaces. ``direction``: ``INGRESS`` or ``EGRESS``."""
    return netns << INTERFACE_NETNS_SHIFT | ifindex << 1 | direction


def _first_rows(keys: npt.NDArray[np.uint64], rows: int) -> npt.NDArray[np.uint64]:
    """What ``interface_count.key`` has beside ``count_key``, by namespace."""
    numbers = keys >> np.uint64(INTERFACE_NETNS_SHIFT)
    return (numbers * np.uint64(_GOLDEN_RATIO) % np.uint64(1 << 32)) * np.uint64(rows) >> np.uint64(32)


def _words(rows: npt.NDArray[np.void]) -> npt.NDArray[np.uint64]:
    return rows.view("<u8").reshape(len(rows), rows.dtype.itemsize // 8)


class InterfaceCounts:
    """Reads the map ``interface_counts``, if the layout has it.

    Counters never go back. A row of a removed interface becomes free again (``free``) while its counters stay as they
    are, so that the sum over all rows is what was seen at any time. ``freed`` has what they were: another interface
    that gets the row starts from there.
    """

    MAP = "interface_counts"

    def __init__(self, cpus: int, rows: int = LEAST_ROWS, layout: RecordLayout = PLAIN) -> None:
        self.rows = rows if layout.interface is not None else 0
        self.freed: npt.NDArray[np.void] | None = None
        """The rows as they were when they became free; None: none did. May be replaced by as many or more."""
        self.number = 0
        """Of the map, which no other map gets until the kernel ends; 0 before ``open_maps``."""
        self._cpus = cpus
        self._dtype = layout.interface or INTERFACE_COUNT
        self._memory: mmap.mmap | None = None

    def prepare(self, obj: BpfObject) -> None:
        """Sizes the map. Before load."""
        obj.set_max_entries(self.MAP, self._cpus * self.rows)

    def open_maps(self, obj: LoadedObject) -> None:
        """Maps the rows into this process. After load."""
        if self.rows:
            self._memory = obj.shared(self.MAP, self._cpus * self.rows * self._dtype.itemsize, writable=True)
            self.number = libbpf.number_of(obj.map_fd(self.MAP))

    def _rows(self) -> npt.NDArray[np.void]:
        if self._memory is None:
            return np.zeros(0, self._dtype)
        return np.frombuffer(self._memory, self._dtype, count=self._cpus * self.rows)

    def seen(self) -> tuple[int, int]:
        """(packets, octets) of all interfaces since the map was made: as the ledger's ``seen``."""
        seen = self._rows()["seen"]
        return int(seen["packets"].sum()), int(seen["octets"].sum())

    def read(self) -> npt.NDArray[np.void]:
        """The present counts, dtype ``COUNTED``, in ascending order of keys, which are all different. May be called in
        a thread. A row that gets its key meanwhile is left out."""
        rows = self._rows()
        used = np.flatnonzero(rows["key"])
        words = _words(rows[used])  # a copy: programs go on counting in the rows
        keys, counts = words[:, 0] - _first_rows(words[:, 0], self.rows), words[:, 1:_COLUMNS]
        if self.freed is not None:
            counts = counts - _words(self.freed[used])[:, 1:_COLUMNS]
        order = np.argsort(keys, kind="stable")
        keys, first = np.unique(keys[order], return_index=True)
        counted = np.zeros(len(keys), COUNTED)
        if len(keys):
            every = _words(counted)
            every[:, 0], every[:, 1:] = keys, np.add.reduceat(counts[order], first, axis=0)
        return counted

    def free(self, keys: npt.NDArray[np.uint64]) -> None:
        """Gives the rows of ``keys`` away: of interfaces that are gone. No program may count there any more: the
        interfaces went before the last grace period began."""
        rows = self._rows()
        given = np.flatnonzero(np.isin(rows["key"], keys + _first_rows(keys, self.rows)))
        if not len(given):
            return
        if self.freed is None:
            self.freed = np.zeros(len(rows), self._dtype)
        self.freed[given] = rows[given]
        rows["key"][given] = 0

    def close(self) -> None:
        """Releases the memory, which stays mapped as long as a thread reads it."""
        self._memory = None

    def kernel_bytes(self) -> int:
        """Memory of the map."""
        return self._cpus * self.rows * self._dtype.itemsize
