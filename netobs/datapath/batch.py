"""Reads all entries of a hash map, or takes them out, in batches, into arrays."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from netobs.flow.records import METRICS
from netobs.kernel import libbpf

if TYPE_CHECKING:
    import numpy.typing as npt

VALUES_BYTES = 1 << 20  # of one batch, which the CPU's cache has room for: 8,192 flows on 2 CPUs
LEAST_BATCH = 512
HASH_ELEMENT_BYTES = 48  # struct htab_elem without key and value
BUCKET_BYTES = 16


def hash_map_bytes(entries: int, key_bytes: int, value_bytes: int) -> int:
    """Memory of a hash map, whose entries are allocated when it is made (kernel/bpf/hashtab.c: htab_map_alloc)."""
    buckets = 1 << (entries - 1).bit_length()
    return buckets * BUCKET_BYTES + entries * (HASH_ELEMENT_BYTES + key_bytes + value_bytes)


def whole(keys: npt.NDArray[np.uint8]) -> npt.NDArray[np.void]:
    """``keys`` (shape ``(n, key_bytes)``) as an array of ``n``, without a copy."""
    return keys.view(np.dtype((np.void, keys.shape[1]))).reshape(-1)


class BatchReader:
    """Buffers for the batches of maps with keys of ``key_bytes`` and ``values`` of dtype ``metrics`` for each key."""

    def __init__(
        self, key_bytes: int, values: int, max_entries: int, batch: int = 0, metrics: np.dtype[np.void] = METRICS
    ) -> None:
        """``batch``: entries that one call reads; 0 = as many as a buffer of sensible size holds."""
        self._key_bytes = key_bytes
        self._values_per_key, self._metrics = values, metrics
        self._cursors = (libbpf.cursor(key_bytes), libbpf.cursor(key_bytes))
        self._read: list[npt.NDArray[np.uint8]] = []
        self._resize(batch or min(max_entries, max(LEAST_BATCH, VALUES_BYTES // (metrics.itemsize * values))))

    def _resize(self, entries: int) -> None:
        self._keys: npt.NDArray[np.uint8] = np.empty((entries, self._key_bytes), dtype="u1")
        self._values = np.empty((entries, self._values_per_key), dtype=self._metrics)

    def entries(self, fd: int, take: bool) -> Iterator[tuple[npt.NDArray[np.uint8], npt.NDArray[np.void]]]:
        """All entries of map ``fd``, which ``take`` removes: keys (shape ``(n, key_bytes)``) and values (``(n,
        values)``) of each batch, valid until the next.

        :raises OSError: the kernel failed the batch; entries not yet taken stay in the map.
        """
        self._read = []
        cursor_in, cursor_out, spare = None, *self._cursors
        while True:
            count, error = libbpf.lookup_batch(
                fd, cursor_in, cursor_out, self._keys.ctypes.data, self._values.ctypes.data, len(self._keys), take
            )
            if count:
                if not take:
                    self._read.append(self._keys[:count].copy())
                yield self._keys[:count], self._values[:count]
            if error == errno.ENOENT:
                return
            if error == errno.ENOSPC:
                self._resize(2 * len(self._keys))
                continue
            cursor_in, cursor_out, spare = cursor_out, spare, cursor_out

    def clear(self, fd: int) -> None:
        """Removes all entries of map ``fd``, which nobody writes: those that were read last by their keys, which takes
        half as long; if they are not all, by reading once more.

        :raises OSError: as in ``entries``.
        """
        read, self._read = self._read, []
        if read and all(libbpf.delete_batch(fd, keys.ctypes.data, len(keys)) for keys in read):
            return
        for _ in self.entries(fd, take=True):
            pass
