"""``flow_table = "percpu_array"``: slots in memory that is shared with the kernel, two halves for each CPU.

A flow has a slot of one cache line with the fields that every packet touches, and a place in a second array for the
fields that only its first packet sets. A packet that finds no slot goes to a hash map, keyed by flow and CPU. There
are two such maps as well.
"""

from __future__ import annotations

import mmap

import numpy as np
import numpy.typing as npt

from netobs.datapath.batch import BatchReader, hash_map_bytes
from netobs.datapath.halves import Halves
from netobs.datapath.layout import (
    FLOW_START,
    PLAIN,
    SLOT_EGRESS_BIT,
    SLOT_IPV6_BIT,
    SLOT_NETNS_BIT,
    SLOT_NETNS_HIGH_BIT,
    SLOT_NETNS_LOW_BITS,
    SLOT_OCTETS_BITS,
    SLOT_TIME_SHIFT,
    RecordLayout,
)
from netobs.flow.metrics import Place, in_place
from netobs.flow.records import Records, concatenate, take
from netobs.kernel.object import BpfObject, LoadedObject

LEAST_SLOTS = max(1024, mmap.PAGESIZE // FLOW_START.itemsize)
"""Of a CPU and half. Fewer would not fill whole pages in both arrays."""
EXTRA_MAP = "flow_extras"
IN_SLOT = ("src_addr", "dst_addr", "src_port", "dst_port", "ifindex", "protocol", *in_place(Place.SLOT))
IN_START = in_place(Place.START)
TIME_MARGIN_NS = 60_000_000_000
"""Slot times are unwrapped from this long after the start of an eviction: packets may arrive until the halves flip."""
ETHERTYPE_IPV4, ETHERTYPE_IPV6 = 0x0800, 0x86DD


def slots_per_cpu(max_flows: int, cpus: int) -> int:
    """Slots of a CPU and half: its share of ``max_flows``, rounded up to a power of two."""
    return max(LEAST_SLOTS, 1 << (-(-max_flows // cpus) - 1).bit_length())


class PercpuArray:
    """Maps ``flow_slots``, ``flow_starts``, ``overflow_0`` and ``overflow_1``; ``flow_extras`` with ``WITH_EXTRA``.

    ``cpus``: how many CPUs get slots. Those that come online later have none and use the overflow hash.
    """

    MAPS: tuple[str, ...] = ("flow_slots", "flow_starts", "overflow_0", "overflow_1")
    OVERFLOW = MAPS[2:]

    def __init__(self, max_flows: int, cpus: int, halves: Halves, batch: int = 0, layout: RecordLayout = PLAIN) -> None:
        """``batch``: as in ``BatchReader``, for the overflow hash."""
        self._max_flows = max_flows
        self.slot_cpus = cpus
        self.slots = slots_per_cpu(max_flows, cpus)
        self._halves, self._layout = halves, layout
        self._arrays = {"flow_slots": layout.slot, "flow_starts": layout.start}
        if layout.has_extra:
            self._arrays[EXTRA_MAP] = layout.extra
            self.MAPS = (*self.MAPS, EXTRA_MAP)
        self._in_slots = self._in_overflow = 0
        self._overflow = BatchReader(layout.overflow_key.itemsize, 1, max_flows, batch, layout.metrics)
        self._taken: list[Records] = []

    def prepare(self, obj: BpfObject) -> None:
        """Sizes the maps. Before load."""
        for name in self._arrays:
            obj.set_max_entries(name, 2 * self.slot_cpus * self.slots)
        for name in self.OVERFLOW:
            obj.set_max_entries(name, self._max_flows)

    def open_maps(self, obj: LoadedObject) -> None:
        """After load."""
        self._fds = {name: obj.map_fd(name) for name in self.MAPS}

    def evict(self, now_ns: int) -> Records:
        """Flips the halves, waits for a grace period, and takes the flows out of the quiet half.

        :raises CaptureError: waiting for a grace period is impossible.
        :raises OSError: the overflow hash is unreadable; nothing is lost, the next two evictions take the rest.
        """
        quiet = self._halves.flip(now_ns)
        self._taken.append(self._take_slots(quiet, now_ns))
        self._in_slots = sum(len(rows) for rows in self._taken)
        for keys, values in self._overflow.take_entries(self._fds[self.OVERFLOW[quiet]]):
            self._taken.append(_overflow_rows(keys, values, self._layout))
        self._halves.emptied(quiet)
        taken, self._taken = self._taken, []
        rows = concatenate(taken)
        self._in_overflow = len(rows) - self._in_slots
        return rows

    def occupancy(self) -> dict[str, int]:
        """Flows that the last eviction found in each level."""
        return {"slots": self._in_slots, "overflow": self._in_overflow}

    def _take_slots(self, half: int, now_ns: int) -> Records:
        """The used slots of ``half``, which are marked unused. Only these are copied and written."""
        used = [self._used(2 * cpu + half) for cpu in range(self.slot_cpus)]
        rows = np.empty(sum(map(len, used)), dtype=self._layout.record)
        end = 0
        for cpu, indices in enumerate(used):
            if len(indices):
                begin, end = end, end + len(indices)
                self._take_region(2 * cpu + half, indices, rows[begin:end], now_ns + TIME_MARGIN_NS)
        return rows

    def _used(self, region: int) -> npt.NDArray[np.intp]:
        return np.flatnonzero(self._region("flow_slots", region)["used"])

    def _take_region(self, region: int, used: npt.NDArray[np.intp], rows: Records, reference_ns: int) -> None:
        slots, starts = self._region("flow_slots", region), self._region("flow_starts", region)
        _fill_rows(rows, slots.take(used), starts.take(used), reference_ns)
        if EXTRA_MAP in self._arrays:
            extras = take(self._region(EXTRA_MAP, region), used)
            _bytes(rows)[:, -extras.itemsize :] = _bytes(extras)
        slots["used"][used] = 0

    def _region(self, name: str, region: int) -> npt.NDArray[np.void]:
        """One CPU's half of an array map. It is mapped as long as the array lives, which is short: mapped pages count
        as this process's memory, although they are the kernel's."""
        dtype = self._arrays[name]
        size = self.slots * dtype.itemsize
        protection = mmap.PROT_READ | mmap.PROT_WRITE
        memory = mmap.mmap(self._fds[name], size, mmap.MAP_SHARED, protection, offset=region * size)
        return np.frombuffer(memory, dtype=dtype)

    def close(self) -> None:
        """The maps belong to the object."""

    def kernel_bytes(self) -> int:
        """Memory of the maps."""
        slots = 2 * self.slot_cpus * self.slots * sum(dtype.itemsize for dtype in self._arrays.values())
        return slots + 2 * hash_map_bytes(
            self._max_flows, self._layout.overflow_key.itemsize, self._layout.metrics.itemsize
        )


def _bytes(rows: npt.NDArray[np.void]) -> npt.NDArray[np.uint8]:
    return rows.view("u1").reshape(len(rows), rows.dtype.itemsize)


def _overflow_rows(keys: npt.NDArray[np.uint8], values: npt.NDArray[np.void], layout: RecordLayout) -> Records:
    rows = np.empty(len(keys), dtype=layout.record)
    key_bytes = layout.key.itemsize
    _bytes(rows)[:, :key_bytes] = keys[:, :key_bytes]
    _bytes(rows)[:, key_bytes:] = values.view("u1")
    return rows


def _fill_rows(rows: Records, slots: npt.NDArray[np.void], starts: npt.NDArray[np.void], reference_ns: int) -> None:
    """Slots and starts as Flow Records, all of the same length."""
    for name in IN_SLOT:
        rows[name] = slots[name]
    for name in IN_START:
        rows[name] = starts[name]
    rows["errno"] = rows["flow_end_reason"] = 0
    place = slots["place"]
    rows["netns"] = (
        place >> SLOT_NETNS_BIT | (slots["used"].astype("<u2") >> SLOT_NETNS_HIGH_BIT) << SLOT_NETNS_LOW_BITS
    )
    rows["vlan_id"] = place & 0x0FFF
    rows["direction"] = (place >> SLOT_EGRESS_BIT) & 1
    rows["ethertype"] = np.where(place & (1 << SLOT_IPV6_BIT), ETHERTYPE_IPV6, ETHERTYPE_IPV4)
    counters = slots["counters"]
    rows["packets"] = counters >> np.uint64(SLOT_OCTETS_BITS)
    rows["octets"] = counters & np.uint64((1 << SLOT_OCTETS_BITS) - 1)
    rows["first_ns"] = _unwrap(starts["first"], reference_ns)
    rows["last_ns"] = _unwrap(slots["last"], reference_ns)


def _unwrap(times: npt.NDArray[np.uint32], reference_ns: int) -> npt.NDArray[np.uint64]:
    """Slot times (units of 1,024 ns, modulo 2**32) as ns: the latest possible moment before ``reference_ns``."""
    reference = reference_ns >> SLOT_TIME_SHIFT
    age = (np.uint32(reference & 0xFFFF_FFFF) - times).astype(np.uint64)
    result: npt.NDArray[np.uint64] = (np.uint64(reference) - age) << np.uint64(SLOT_TIME_SHIFT)
    return result
