"""``flow_table = "percpu_array"``: slots in memory that is shared with the kernel, two halves for each CPU.

A flow has a slot of one cache line with the fields that every packet touches, and a place in a second array for the
fields that only its first packet sets. A packet that finds no slot goes to a hash map, keyed by flow and CPU. There
are two such maps as well.
"""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING

import numpy as np

from netobs.datapath.batch import BatchReader, hash_map_bytes
from netobs.datapath.flow_table import Quiet
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
from netobs.flow.journal import Intake
from netobs.flow.metrics import Place, in_place
from netobs.flow.records import Records, take
from netobs.kernel.object import BpfObject, LoadedObject

if TYPE_CHECKING:
    import numpy.typing as npt

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

    def __init__(self, max_flows: int, cpus: int, batch: int = 0, layout: RecordLayout = PLAIN) -> None:
        """``batch``: as in ``BatchReader``, for the overflow hash."""
        self._max_flows = max_flows
        self.slot_cpus = cpus
        self.slots = slots_per_cpu(max_flows, cpus)
        self._layout = layout
        self._arrays = {"flow_slots": layout.slot, "flow_starts": layout.start}
        if layout.has_extra:
            self._arrays[EXTRA_MAP] = layout.extra
            self.MAPS = (*self.MAPS, EXTRA_MAP)
        self._in_slots = self._in_overflow = 0
        self._overflow = BatchReader(layout.overflow_key.itemsize, 1, max_flows, batch, layout.metrics)

    def prepare(self, obj: BpfObject) -> None:
        """Sizes the maps. Before load."""
        for name in self._arrays:
            obj.set_max_entries(name, 2 * self.slot_cpus * self.slots)
        for name in self.OVERFLOW:
            obj.set_max_entries(name, self._max_flows)

    def open_maps(self, obj: LoadedObject) -> None:
        """After load."""
        self._fds = {name: obj.map_fd(name) for name in self.MAPS}

    def read(self, quiet: Quiet, intake: Intake, take: bool) -> None:
        self._in_slots = self._in_overflow = 0
        self._read_slots(quiet, intake, take)
        for keys, values in self._overflow.entries(self._fds[self.OVERFLOW[quiet.half]], take):
            _fill_overflow_rows(intake.room(len(keys)), keys, values, self._layout)
            self._in_overflow += len(keys)

    def clear(self, half: int) -> None:
        for region in self._regions(half):
            slots = self._region("flow_slots", region)
            slots["used"][np.flatnonzero(slots["used"])] = 0
        self._overflow.clear(self._fds[self.OVERFLOW[half]])

    def occupancy(self) -> dict[str, int]:
        """Flows that the last eviction found in each level."""
        return {"slots": self._in_slots, "overflow": self._in_overflow}

    def _regions(self, half: int) -> range:
        return range(half, 2 * self.slot_cpus, 2)

    def _read_slots(self, quiet: Quiet, intake: Intake, take: bool) -> None:
        """The used slots, which ``take`` marks unused. Only these are copied and written."""
        regions = self._regions(quiet.half)
        used = {region: np.flatnonzero(self._region("flow_slots", region)["used"]) for region in regions}
        self._in_slots = sum(map(len, used.values()))
        rows, filled = intake.room(self._in_slots), 0
        try:
            for region, indices in used.items():
                if len(indices):
                    part = rows[filled : filled + len(indices)]
                    self._read_region(region, indices, part, quiet.now_ns + TIME_MARGIN_NS, take)
                    filled += len(indices)
        finally:
            rows["packets"][filled:] = 0  # after an error: no rows

    def _read_region(
        self, region: int, used: npt.NDArray[np.intp], rows: Records, reference_ns: int, take_out: bool
    ) -> None:
        slots, starts = self._region("flow_slots", region), self._region("flow_starts", region)
        _fill_rows(rows, slots.take(used), starts.take(used), reference_ns)
        if EXTRA_MAP in self._arrays:
            extras = take(self._region(EXTRA_MAP, region), used)
            _bytes(rows)[:, -extras.itemsize :] = _bytes(extras)
        if take_out:
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


def _fill_overflow_rows(
    rows: Records, keys: npt.NDArray[np.uint8], values: npt.NDArray[np.void], layout: RecordLayout
) -> None:
    key_bytes = layout.key.itemsize
    _bytes(rows)[:, :key_bytes] = keys[:, :key_bytes]
    _bytes(rows)[:, key_bytes:] = values.view("u1")


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
