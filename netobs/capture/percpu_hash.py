"""``flow_table = "percpu_hash"``: the paper's per-CPU hash, taken out in batches.

There are two of them. A packet that is counted between the moment when the kernel copies an entry and the moment when
it deletes it would be lost, and no ledger could see it. So packets go to one half while the other is taken out.
"""

from __future__ import annotations

import errno
import mmap

import numpy as np
import numpy.typing as npt

from netobs.capture import libbpf
from netobs.capture.grace import GracePeriod
from netobs.capture.object import BpfObject
from netobs.records import KEY, METRICS, RECORD, Records, empty

BSS = np.dtype([("active_half", "<u4")])
"""Section .bss: the word that says which half packets go to."""

VALUES_BYTES = 4 << 20  # aim for the value buffer of one batch: 37,000 flows on 2 CPUs, 290 on 256
LEAST_BATCH = 512
CLOCK_SLACK_NS = 50_000_000  # the coarse clock is up to one tick (10 ms at 100 Hz) behind
HASH_ELEMENT_BYTES = 48  # struct htab_elem; key, and a pointer to the per-CPU values, come on top
BUCKET_BYTES = 16


class PercpuHash:
    """Maps ``flow_hash_0`` and ``flow_hash_1``; ``cpus`` is the number of possible CPUs.

    ``stale``: how many values the stale-entry rule has dropped.
    """

    MAPS = ("flow_hash_0", "flow_hash_1")

    def __init__(self, max_flows: int, cpus: int, batch: int = 0) -> None:
        """``batch``: entries that one call takes out; 0 = as many as a buffer of sensible size holds."""
        self._max_flows = max_flows
        self._cpus = cpus
        self.stale = 0
        self._grace = GracePeriod()
        self._memory: mmap.mmap | None = None
        self._cursors = (libbpf.cursor(KEY.itemsize), libbpf.cursor(KEY.itemsize))
        self._in_use_since_ns = [0, 0]  # since when packets go to this half, empty as it was
        self._emptied = [True, True]
        self._taken: list[Records] = []
        self._size_batch(batch or min(max_flows, max(LEAST_BATCH, VALUES_BYTES // (METRICS.itemsize * cpus))))

    def _size_batch(self, entries: int) -> None:
        self._keys: npt.NDArray[np.uint8] = np.empty((entries, KEY.itemsize), dtype="u1")
        self._values = np.empty((entries, self._cpus), dtype=METRICS)

    def prepare(self, obj: BpfObject) -> None:
        """Sizes both halves. Before load."""
        for name in self.MAPS:
            obj.set_max_entries(name, self._max_flows)

    def open(self, obj: BpfObject) -> None:
        """After load."""
        self._fds = [obj.map_fd(name) for name in self.MAPS]
        self._memory = obj.shared(".bss", BSS.itemsize, writable=True)
        self._bss = np.frombuffer(self._memory, dtype=BSS, count=1)

    def evict(self, now_ns: int) -> Records:
        """Turns the halves, waits for a grace period, and takes the quiet half out.

        :raises CaptureError: no grace period can be waited for.
        :raises OSError: the kernel failed the batch; nothing is lost, the next two evictions take what this one left.
        """
        quiet = int(self._bss["active_half"][0])
        if self._emptied[1 - quiet]:
            self._in_use_since_ns[1 - quiet] = now_ns
        self._bss["active_half"][0] = 1 - quiet
        self._emptied[quiet] = False
        self._grace.wait()
        self._take(self._fds[quiet], self._in_use_since_ns[quiet])
        self._emptied[quiet] = True
        taken, self._taken = self._taken, []
        if len(taken) == 1:
            return taken[0]
        return np.concatenate(taken) if taken else empty(0)

    def _drop_stale(self, rows: Records, since_ns: int) -> Records:
        """Without values that are older than the half's last eviction: what a CPU left in an element that the kernel
        used again (the paper's rule; kernels from 5.10 on clear the element themselves)."""
        stale = rows["last_ns"] < max(since_ns - CLOCK_SLACK_NS, 0)
        if not stale.any():
            return rows
        self.stale += int(np.count_nonzero(stale))
        return rows[~stale]

    def _take(self, fd: int, since_ns: int) -> None:
        cursor_in, cursor_out, spare = None, *self._cursors
        while True:
            count, error = libbpf.lookup_and_delete_batch(
                fd, cursor_in, cursor_out, self._keys.ctypes.data, self._values.ctypes.data, len(self._keys)
            )
            if count:
                self._taken.append(self._drop_stale(self._rows(count), since_ns))
            if error == errno.ENOENT:
                return
            if error == errno.ENOSPC:
                self._size_batch(2 * len(self._keys))
                continue
            cursor_in, cursor_out, spare = cursor_out, spare, cursor_out

    def _rows(self, count: int) -> Records:
        """A row for each CPU that saw the flow: the others' values are zero."""
        values = self._values[:count]
        flow, cpu = np.nonzero(values["packets"])
        rows = np.empty(len(flow), dtype=RECORD)
        row_bytes = rows.view("u1").reshape(len(rows), RECORD.itemsize)
        row_bytes[:, : KEY.itemsize] = self._keys[flow]
        row_bytes[:, KEY.itemsize :] = values.view("u1").reshape(count, self._cpus, METRICS.itemsize)[flow, cpu]
        return rows

    def close(self) -> None:
        """Lets go of the shared memory; the maps belong to the object."""
        if self._memory is not None:
            del self._bss
            self._memory.close()
            self._memory = None

    def kernel_bytes(self) -> int:
        """Memory of both halves: entries are allocated when the map is made, with values for every possible CPU."""
        buckets = 1 << (self._max_flows - 1).bit_length()
        entries = self._max_flows + self._cpus  # the kernel keeps one spare entry for each CPU
        entry = HASH_ELEMENT_BYTES + KEY.itemsize + 8 + self._cpus * METRICS.itemsize
        return len(self.MAPS) * (buckets * BUCKET_BYTES + entries * entry)
