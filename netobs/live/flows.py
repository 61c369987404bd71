"""Every flow that was seen since the live table was first looked at, with its packets and octets so far, exactly.

``counted`` is what evictions have taken out, ``live`` what is in the kernel now; a flow's total is their sum. Who shows
something keeps a ``Mark``: the totals when it began, and those of its last look.
"""

from __future__ import annotations

import secrets
from collections.abc import Hashable
from typing import TYPE_CHECKING, Callable

import numpy as np

from netobs.flow.key_hash import WORD, Hashes, hash_keys, key_words, same_keys
from netobs.flow.records import KEY, Records, joined, take
from netobs.live.columns import Groups, Indices, Integers, group_by_hash

if TYPE_CHECKING:
    import numpy.typing as npt

ROW = joined(KEY, np.dtype([("packets", "<u8"), ("octets", "<u8")]))
"""What is needed of a Flow Record: its first 64 bytes."""
MOST_IDLE = 1 << 18
"""So many flows that are not in the kernel are kept, those that were heard of last."""
COUNTED_PACKETS, COUNTED_OCTETS, LIVE_PACKETS, LIVE_OCTETS, BORN, MOVED = range(6)
BEGIN, LAST, CHANGE = 0, 2, 4

_KEY_BYTES = np.dtype((np.void, KEY.itemsize))
HashFunction = Callable[[Records, int], Hashes]


def rows_of(records: Records) -> Records:
    """The fields of ``ROW`` of contiguous Flow Records, which begin with them."""
    words = records.view(WORD).reshape(len(records), records.dtype.itemsize // WORD.itemsize)
    rows: Records = np.ascontiguousarray(words[:, : ROW.itemsize // WORD.itemsize]).view(ROW).reshape(-1)
    return rows


class Mark:
    """What one client has seen. ``interval_ns``: between its last two looks; 0: there was no second one yet."""

    def __init__(self, flows: Flows, now_ns: int) -> None:
        packets, octets = flows.totals()
        self.values: Integers = np.stack([packets, octets, packets, octets, 0 * packets, 0 * octets])
        self.look, self._before, self._at_ns = flows.look, flows.look, now_ns
        self.interval_ns = 0
        self.grouped: tuple[Hashable, Indices, Groups] | None = None
        """What the groups of its last frame depended on, the numbers of their flows, and the groups."""

    def see(self, flows: Flows, now_ns: int) -> None:
        """This is the next look."""
        totals = np.stack(flows.totals())
        self.values[CHANGE : CHANGE + 2] = totals - self.values[LAST : LAST + 2]
        self.values[LAST : LAST + 2] = totals
        self._before, self.look = self.look, flows.look
        self.interval_ns, self._at_ns = now_ns - self._at_ns, now_ns

    @property
    def since_began(self) -> Integers:
        """Packets and octets of each flow since the first look: shape ``(2, n)``."""
        return self.values[LAST : LAST + 2] - self.values[BEGIN : BEGIN + 2]

    @property
    def change(self) -> Integers:
        """Packets and octets of each flow between the last two looks."""
        return self.values[CHANGE : CHANGE + 2]

    def new(self, flows: Flows) -> npt.NDArray[np.bool_]:
        """Which flows were not known at the look before the last."""
        born = flows.values[BORN]
        is_new: npt.NDArray[np.bool_] = (born > self._before) & (born <= self.look)
        return is_new


class Flows:
    """``add`` what evictions took out, and ``set_live`` what is in the kernel, at each look."""

    def __init__(self, most_idle: int = MOST_IDLE, hash_function: HashFunction = hash_keys) -> None:
        self._most_idle, self._hash = most_idle, hash_function
        self._seed = secrets.randbits(63)
        self.keys: Records = np.zeros(0, KEY)
        self._hashes: Hashes = np.zeros(0, np.uint64)  # ascending
        self.values: Integers = np.zeros((6, 0), np.int64)
        self.marks: list[Mark] = []
        self.look = 0
        self.version = 0
        """Changes whenever flows get other numbers."""
        self.forgotten = 0
        """How many flows were, because there are too many."""

    def __len__(self) -> int:
        return len(self.keys)

    def totals(self) -> tuple[Integers, Integers]:
        """Packets and octets of each flow so far."""
        values = self.values
        return values[COUNTED_PACKETS] + values[LIVE_PACKETS], values[COUNTED_OCTETS] + values[LIVE_OCTETS]

    def add(self, rows: Records) -> None:
        """Adds ``rows`` (of ``ROW``) that an eviction has taken out."""
        self._put(rows, COUNTED_PACKETS)

    def set_live(self, rows: Records) -> None:
        """``rows`` are what is in the kernel; this is a look."""
        self.look += 1
        self.values[LIVE_PACKETS : LIVE_OCTETS + 1] = 0
        self._put(rows, LIVE_PACKETS)
        self._forget()

    def _put(self, rows: Records, place: int) -> None:
        counted = np.flatnonzero(rows["packets"])
        rows = rows if len(counted) == len(rows) else take(rows, counted)
        groups, numbers = self._find(rows)
        fresh = np.flatnonzero(numbers < 0)
        if len(fresh):
            self._insert(take(rows, groups.first[fresh]), self.look + (place == COUNTED_PACKETS))
            groups, numbers = self._find(rows)
        for offset, name in enumerate(("packets", "octets")):
            self.values[place + offset, numbers] += groups.sums(rows[name].astype(np.int64))
        self.values[MOVED, numbers] = self.look

    def _find(self, rows: Records) -> tuple[Groups, Indices]:
        """``rows`` by flow, and the number of each of these flows, -1 for those that are new."""
        while True:
            hashes = self._hash(rows, self._seed)
            groups = group_by_hash(key_words(rows), hashes)
            if groups is not None:
                first = hashes[groups.first]  # ascending
                numbers = self._hashes.searchsorted(first)
                numbers[numbers == len(self)] = -1
                known = np.flatnonzero(numbers >= 0)
                other = self._hashes[numbers[known]] != first[known]
                numbers[known[other]] = -1
                known = known[~other]
                if same_keys(take(self.keys, numbers[known]), take(rows, groups.first[known])).all():
                    return groups, numbers
            self._reseed()

    def _insert(self, rows: Records, born: int) -> None:
        """Adds the flows of ``rows``."""
        hashes = self._hash(rows, self._seed)
        order = np.argsort(hashes)
        at = self._hashes.searchsorted(hashes[order])
        self._hashes = np.insert(self._hashes, at, hashes[order])
        keys = np.ascontiguousarray(key_words(rows)[order]).view(_KEY_BYTES).reshape(-1)
        self.keys = np.insert(self.keys.view(_KEY_BYTES), at, keys).view(KEY)
        self.values = np.insert(self.values, at, 0, axis=1)
        for mark in self.marks:
            mark.values = np.insert(mark.values, at, 0, axis=1)
        self.values[BORN, at + np.arange(len(at))] = born
        self.version += 1

    def _reseed(self) -> None:
        """Two flows have one hash: no two of them have, by another seed."""
        self._seed = (self._seed + 1) & ((1 << 63) - 1)
        hashes = self._hash(self.keys, self._seed)
        self._keep(np.argsort(hashes), hashes)

    def _forget(self) -> None:
        """Of more flows than are kept, those that were not heard of for the longest time."""
        idle = np.flatnonzero(self.values[LIVE_PACKETS] == 0)
        excess = len(idle) - self._most_idle
        if excess <= 0:
            return
        excess += self._most_idle // 4  # not again at each look
        leaving = idle[np.argsort(self.values[MOVED, idle], kind="stable")[:excess]]
        staying = np.ones(len(self), np.bool_)
        staying[leaving] = False
        self._keep(np.flatnonzero(staying), self._hashes)
        self.forgotten += len(leaving)

    def _keep(self, numbers: Indices, hashes: Hashes) -> None:
        self._hashes, self.keys, self.values = hashes[numbers], take(self.keys, numbers), self.values[:, numbers]
        for mark in self.marks:
            mark.values = mark.values[:, numbers]
        self.version += 1
