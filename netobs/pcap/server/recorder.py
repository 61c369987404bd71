"""The flight recorder: the packets of the last moments, in memory, until somebody asks for them."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from netobs.base.clock import NS_PER_S
from netobs.base.vectors import Numbers, slices
from netobs.kernel.interfaces import Interface
from netobs.pcap.batch import HEADROOM_BYTES, PacketBatch
from netobs.pcap.distribution import Losses, ReadContext
from netobs.pcap.tap.layout import META

PART_BYTES = 128 << 10
"""How much of a recording is put into a client's queue at a time."""
LEAST_ENTRIES = 16
"""A recorder that is full has so many: it forgets one at a time."""
MAX_INTERFACES = 4096
"""Whose names are remembered."""

_MAX_LOSSES = 4096
_ENTRY_BYTES = 720  # what an entry takes beside its packets: measured by a test
_OPAQUE_META = np.dtype((np.void, META.itemsize))  # numpy copies records of META field by field, these at once


class _Entry(NamedTuple):
    batch: PacketBatch
    offset_ns: int
    newest_ns: int
    bytes: int


class Recorder:
    """A sink that keeps packets of the last ``keep_ns``, or less if they are more than ``max_bytes``."""

    def __init__(self, keep_ns: int, max_bytes: int, snaplen: int) -> None:
        self.snaplen = snaplen
        self.bytes = 0
        """Memory that is taken."""
        self.packets = 0
        self.losses: Losses = dict
        """What the kernel lost of what is recorded."""
        self._keep_ns = keep_ns
        self._max_bytes = max_bytes
        self._entries: deque[_Entry] = deque()
        self._interfaces: dict[int, Interface] = {}
        # When it was noticed, and by interface index.
        self._lost: deque[tuple[int, Counter[int]]] = deque(maxlen=_MAX_LOSSES)
        self._lost_before: Counter[int] = Counter()

    def take(self, batch: PacketBatch, rows: Numbers, context: ReadContext) -> None:
        """Keep a copy of the packets ``rows`` of ``batch``."""
        octets = np.cumsum(batch.meta["caplen"][rows], dtype=np.int64)
        for part in np.split(rows, np.flatnonzero(np.diff(octets // (self._max_bytes // LEAST_ENTRIES))) + 1):
            self._keep(compact(batch, part), context)

    def _keep(self, kept: PacketBatch, context: ReadContext) -> None:
        for index in np.unique(kept.meta["ifindex"]).tolist():
            if index in context.interfaces:
                self._interfaces.pop(index, None)  # to be the last again
                self._interfaces[index] = context.interfaces[index]
        while len(self._interfaces) > MAX_INTERFACES:
            del self._interfaces[next(iter(self._interfaces))]
        size = len(kept.buffer) + kept.meta.nbytes + kept.start.nbytes + _ENTRY_BYTES
        self._entries.append(_Entry(kept, context.offset_ns, int(kept.meta["time_ns"].max()), size))
        self.bytes += size
        self.packets += len(kept)
        while self.bytes > self._max_bytes:
            self._forget()

    def check(self, now_ns: int) -> None:
        """Forget what is too old, and notice once in a second what was lost."""
        while self._entries and self._entries[0].newest_ns < now_ns - self._keep_ns:
            self._forget()
        while self._lost and self._lost[0][0] < now_ns - self._keep_ns:
            self._lost.popleft()
        if not self._lost or now_ns - self._lost[-1][0] >= NS_PER_S:
            self._see_losses(now_ns)

    def recording(self, ifindex: int, now_ns: int) -> Recording:
        """What is kept now, of one interface or, with ``ifindex`` 0, of all."""
        self._see_losses(now_ns)
        total = sum((counts for _, counts in self._lost), Counter[int]())
        lost = {index: count for index, count in total.items() if ifindex in (0, index)}
        oldest_ns = max(0, now_ns - self._keep_ns)
        since_ns = max(oldest_ns, int(self._entries[0].batch.meta["time_ns"][0]) if self._entries else 0)
        parts = _parts(deque(self._entries), ifindex, oldest_ns)
        return Recording(dict(self._interfaces), lost, since_ns, parts)

    def account(self, now_ns: int) -> str:
        """What is kept now, and from how long ago, for people."""
        age_ns = now_ns - int(self._entries[0].batch.meta["time_ns"][0]) if self._entries else 0
        return f"{self.packets} packets of the last {age_ns / 1e9:.1f} s, {self.bytes} of {self._max_bytes} bytes"

    def _see_losses(self, now_ns: int) -> None:
        lost = Counter(self.losses())
        if lost != self._lost_before:
            self._lost.append((now_ns, lost - self._lost_before))
            self._lost_before = lost

    def _forget(self) -> None:
        entry = self._entries.popleft()
        self.bytes -= entry.bytes
        self.packets -= len(entry.batch)


@dataclass(frozen=True)
class Recording:
    """What was kept when somebody asked for it."""

    interfaces: Mapping[int, Interface]
    lost: Mapping[int, int]
    since_ns: int
    """When its first packet was captured, CLOCK_MONOTONIC; when it would be kept no longer, if there is none."""
    parts: Iterator[tuple[PacketBatch, Numbers, int]]
    """Packets of a batch, and the offset of its clock. Each batch is freed when the next is asked for."""


def _parts(entries: deque[_Entry], ifindex: int, oldest_ns: int) -> Iterator[tuple[PacketBatch, Numbers, int]]:
    while entries:
        batch, offset_ns, _, _ = entries.popleft()
        stop = 0
        while stop < len(batch):
            begin, first = stop, int(batch.start[stop])
            stop = max(begin + 1, int(batch.start.searchsorted(first + PART_BYTES)))
            rows = np.arange(begin, stop)
            rows = rows[batch.meta["time_ns"][rows] >= oldest_ns]
            if ifindex:
                rows = rows[batch.meta["ifindex"][rows] == ifindex]
            if len(rows):
                yield batch, rows, offset_ns


def compact(batch: PacketBatch, rows: Numbers) -> PacketBatch:
    """A copy of some packets, without the rest of the buffer."""
    meta = batch.meta.view(_OPAQUE_META)[rows].view(META)
    size = HEADROOM_BYTES + ((meta["caplen"].astype(np.int64) + 3) & ~3)
    first = batch.start[rows] - HEADROOM_BYTES
    buffer = bytearray().join(slices(batch.buffer, first, first + size))
    return PacketBatch(buffer, meta, np.cumsum(size) - size + HEADROOM_BYTES)
