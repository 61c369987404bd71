"""``flow_table = "percpu_array"``: slots in memory that is shared with the kernel, two halves for each CPU.

A flow has a slot of one cache line with the fields that every packet touches, and a place in a second array for the
fields that only its first packet sets. A packet that finds no slot goes to a hash map, keyed by flow and CPU. There
are two such maps as well.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

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
from netobs.flow.records import CHUNK_ROWS, Records, take
from netobs.kernel.object import BpfObject, LoadedObject

if TYPE_CHECKING:
    import numpy.typing as npt

LEAST_SLOTS = max(1024, mmap.PAGESIZE // FLOW_START.itemsize)
"""Of a CPU and half. Fewer would not fill whole pages in both arrays."""
EXTRA_MAP, INSIGHT_MAP, SEQS_MAP = "flow_extras", "flow_insights", "next_seqs"
SEQ_BYTES = 4
IN_SLOT = ("src_addr", "dst_addr", "src_port", "dst_port", "ifindex", "protocol", *in_place(Place.SLOT))
IN_START = in_place(Place.START)
TIME_MARGIN_NS = 60_000_000_000
"""Slot times are unwrapped from this long after the start of an eviction: packets may arrive until the halves flip."""
ETHERTYPE_IPV4, ETHERTYPE_IPV6 = 0x0800, 0x86DD


class _Used(NamedTuple):
    """The slots of a CPU and half, and which of them are used."""

    region: int
    slots: npt.NDArray[np.void]
    indices: npt.NDArray[np.intp]


def slots_per_cpu(max_flows: int, cpus: int) -> int:
    """Slots of a CPU and half: its share of ``max_flows``, rounded up to a power of two."""
    return max(LEAST_SLOTS, 1 << (-(-max_flows // cpus) - 1).bit_length())


def maps_of(layout: RecordLayout) -> tuple[str, ...]:
    """The names of the table's maps."""
    insight = (INSIGHT_MAP, SEQS_MAP) if layout.has_insight else ()
    return (*PercpuArray.MAPS, *((EXTRA_MAP,) if layout.has_extra else ()), *insight)


class PercpuArray:
    """Maps ``flow_slots``, ``flow_starts``, ``overflow_0`` and ``overflow_1``; and, where the layout has them,
    ``flow_extras``, ``flow_insights``, and ``next_seqs``, which only the kernel reads.

    ``cpus``: how many CPUs get slots. Those that come online later have none and use the overflow hash.
    """

    MAPS: tuple[str, ...] = ("flow_slots", "flow_starts", "overflow_0", "overflow_1")
    OVERFLOW = MAPS[2:]

    def __init__(
        self, max_flows: int, cpus: int, batch: int = 0, layout: RecordLayout = PLAIN, writable: bool = True
    ) -> None:
        """``batch``: as in ``BatchReader``, for the overflow hash. ``writable``: flows are to be taken out."""
        self._max_flows = max_flows
        self._writable = writable
        self.slot_cpus = cpus
        self.slots = slots_per_cpu(max_flows, cpus)
        self._layout = layout
        self._arrays = {"flow_slots": layout.slot, "flow_starts": layout.start}
        if layout.has_extra:
            self._arrays[EXTRA_MAP] = layout.extra
        if layout.has_insight:
            self._arrays[INSIGHT_MAP] = layout.insight
        self.MAPS = maps_of(layout)
        whole: Mapping[str, Any] = layout.record.fields or {}
        self._beside = [whole[(dtype.names or ())[0]][1] for dtype in [*self._arrays.values()][2:]]
        """Where in a record the contents of the third and all further arrays begin."""
        self._copied = (_Copied(layout.slot, layout.record, IN_SLOT), _Copied(layout.start, layout.record, IN_START))
        self._state = _state_of(layout.slot)
        self._in_slots = self._in_overflow = 0
        self._read: tuple[int, list[_Used]] = (-1, [])
        self._overflow = BatchReader(layout.overflow_key.itemsize, 1, max_flows, batch, layout.metrics)

    def prepare(self, obj: BpfObject) -> None:
        """Sizes the maps. Before load."""
        for name in {*self.MAPS}.difference(self.OVERFLOW):
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
        (read, used), self._read = self._read, (-1, [])
        for part in used if read == half else self._used(half):
            self._empty(part)
        self._overflow.clear(self._fds[self.OVERFLOW[half]])

    def _empty(self, part: _Used) -> None:
        """Frees the slots. Whoever reads one while a program fills it again sees it without packets, or whole: a
        program writes the counters behind the rest (bpf/flow.bpf.h: first_in_slot)."""
        state = part.slots.view(self._state)["state"]
        state[part.indices] = np.zeros((), state.dtype)

    def occupancy(self) -> dict[str, int]:
        """Flows that the last eviction found in each level."""
        return {"slots": self._in_slots, "overflow": self._in_overflow}

    def _used(self, half: int) -> list[_Used]:
        """The used slots of each CPU's ``half``."""
        regions = range(half, 2 * self.slot_cpus, 2)
        slots = [self._region("flow_slots", region) for region in regions]
        return [_Used(region, part, np.flatnonzero(part["used"])) for region, part in zip(regions, slots)]

    def _read_slots(self, quiet: Quiet, intake: Intake, take: bool) -> None:
        """The used slots, which ``take`` marks unused. Only these are copied and written."""
        used = self._used(quiet.half)
        if self._writable and not take:
            self._read = (quiet.half, used)
        self._in_slots = sum(len(part.indices) for part in used)
        rows, filled = intake.room(self._in_slots), 0
        try:
            for part in used:
                count = len(part.indices)
                if count:
                    self._read_part(part, rows[filled : filled + count], quiet.now_ns + TIME_MARGIN_NS)
                    if take:
                        self._empty(part)
                    filled += count
        finally:
            rows["packets"][filled:] = 0  # after an error: no rows

    def _read_part(self, used: _Used, rows: Records, reference_ns: int) -> None:
        others = [self._region(name, used.region) for name in [*self._arrays][1:]]
        for begin in range(0, len(rows), CHUNK_ROWS):
            chunk, indices = rows[begin : begin + CHUNK_ROWS], used.indices[begin : begin + CHUNK_ROWS]
            slots, starts, *beside = (take(array, indices) for array in (used.slots, *others))
            for copied, source in zip(self._copied, (slots, starts)):
                copied.copy(source, chunk)
            _compute(chunk, slots, starts, reference_ns)
            for begin_at, part in zip(self._beside, beside):
                _bytes(chunk)[:, begin_at : begin_at + part.itemsize] = _bytes(part)

    def _region(self, name: str, region: int) -> npt.NDArray[np.void]:
        """One CPU's half of an array map. It is mapped as long as the array lives, which is short: mapped pages count
        as this process's memory, although they are the kernel's."""
        dtype = self._arrays[name]
        size = self.slots * dtype.itemsize
        protection = mmap.PROT_READ | (mmap.PROT_WRITE if self._writable else 0)
        memory = mmap.mmap(self._fds[name], size, mmap.MAP_SHARED, protection, offset=region * size)
        return np.frombuffer(memory, dtype=dtype)

    def close(self) -> None:
        """The maps belong to the object."""

    def kernel_bytes(self) -> int:
        """Memory of the maps."""
        slot_bytes = sum(dtype.itemsize for dtype in self._arrays.values()) + SEQ_BYTES * self._layout.has_insight
        return 2 * self.slot_cpus * self.slots * slot_bytes + 2 * hash_map_bytes(
            self._max_flows, self._layout.overflow_key.itemsize, self._layout.metrics.itemsize
        )


def _state_of(slot: np.dtype[np.void]) -> np.dtype[np.void]:
    """``used``, ``counters`` and what lies between them in a slot, as one field: numpy writes these at once."""
    assert slot.fields is not None
    spans = [(slot.fields[name][1], slot.fields[name][1] + slot[name].itemsize) for name in ("used", "counters")]
    begin, end = min(spans)[0], max(spans)[1]
    return np.dtype({"names": ["state"], "formats": [f"V{end - begin}"], "offsets": [begin], "itemsize": slot.itemsize})


def _bytes(rows: npt.NDArray[np.void]) -> npt.NDArray[np.uint8]:
    return rows.view("u1").reshape(len(rows), rows.dtype.itemsize)


def _fill_overflow_rows(
    rows: Records, keys: npt.NDArray[np.uint8], values: npt.NDArray[np.void], layout: RecordLayout
) -> None:
    key_bytes = layout.key.itemsize
    _bytes(rows)[:, :key_bytes] = keys[:, :key_bytes]
    _bytes(rows)[:, key_bytes:] = values.view("u1")


class _Copied:
    """The fields of a source that are those of a record: neighbours in both are copied at once."""

    def __init__(self, source: np.dtype[np.void], record: np.dtype[np.void], names: Iterable[str]) -> None:
        runs: list[list[int]] = []
        offsets = [{name: field[1] for name, field in (whole.fields or {}).items()} for whole in (source, record)]
        there = [name for name in names if all(name in each for each in offsets)]  # another version measures others
        for begin, target, size in sorted((*(each[name] for each in offsets), source[name].itemsize) for name in there):
            if runs and begin - runs[-1][0] == target - runs[-1][1] == runs[-1][2]:
                runs[-1][2] += size
            else:
                runs.append([begin, target, size])
        self._names = [str(number) for number in range(len(runs))]
        formats = [f"V{size}" for _, _, size in runs]
        self._source, self._record = (
            np.dtype({"names": self._names, "formats": formats, "offsets": list(begins), "itemsize": whole.itemsize})
            for whole, begins in zip((source, record), zip(*runs))
        )

    def copy(self, sources: npt.NDArray[np.void], rows: Records) -> None:
        """From ``sources`` to ``rows``, which are as many."""
        sources, rows = sources.view(self._source), rows.view(self._record)
        for name in self._names:
            rows[name] = sources[name]


def _compute(rows: Records, slots: npt.NDArray[np.void], starts: npt.NDArray[np.void], reference_ns: int) -> None:
    """The fields of ``rows`` that are not those of ``slots`` and ``starts``, all of the same length."""
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
