"""The programs and their maps: loads, configures, and reads them. Attaching is done elsewhere."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Collection, Iterator
from dataclasses import replace

import numpy as np

from netobs.base import clock
from netobs.base.keeper import NOTHING, Keeper
from netobs.config import CaptureConfig
from netobs.datapath.extra_maps import ExtraMaps
from netobs.datapath.flow_table import FlowTable
from netobs.datapath.generations import Generations, Manifest, described, hash_of, read_layout, settings_of
from netobs.datapath.halves import Halves
from netobs.datapath.interface_counts import InterfaceCounts, row_key, rows_for
from netobs.datapath.layout import (
    FLOW_TABLES,
    HASH_KEYS,
    SETTINGS,
    RecordLayout,
    layout_for,
    slot_netns,
)
from netobs.datapath.ledger import NONE, Count, Ledger, LedgerReading
from netobs.datapath.memory import MIB, check_memory
from netobs.datapath.percpu_array import maps_of
from netobs.datapath.percpu_hash import PercpuHash
from netobs.datapath.ring import RingBuffer
from netobs.datapath.ring_only import RingOnly
from netobs.datapath.state import SharedState
from netobs.datapath.taking import Taking
from netobs.datapath.tick import CoarseClock
from netobs.datapath.view import TableShape, table_of
from netobs.flow.metrics import GROUPS
from netobs.flow.records import KEY, Records, concatenate, in_dtype
from netobs.kernel import host, libbpf, numa
from netobs.kernel.grace import GracePeriod
from netobs.kernel.object import OBJECT, PROGRAMS, BpfObject, LoadedObject

log = logging.getLogger("netobs.capture")

RING_BYTES = 16 << 20  # 139,000 records: enough for the packets that a full table sheds during an eviction
CLOCK_PROGRAM, CLOCK_FRAME = "netobs_clock", bytes(64)
SHARED_MAPS = (".bss", "ledgers", "interface_counts", "not_ip", "ring")
"""The maps that all programs use, beside those of the table."""


class Datapath(Taking):
    """``load`` -> programs to attach (``program_fd``), flows to take out (``evict``, ``read_ring``) -> ``close``.

    ``journal`` may be replaced before ``load``.
    """

    def __init__(
        self,
        config: CaptureConfig,
        batch: int = 0,
        extra_groups: Collection[str] = (),
        keeper: Keeper = NOTHING,
        slot_cpus: int = 0,
        interface_rows: int = 0,
        layout: RecordLayout | None = None,
    ) -> None:
        """``batch``: as in ``BatchReader``. ``extra_groups``: those of ``metrics.GROUPS`` that are measured.
        ``keeper``: keeps the maps and programs for the next process. ``slot_cpus``, ``interface_rows``, ``layout``:
        those of maps that are there; else the CPUs that are online, enough rows for the present interfaces, and what
        ``extra_groups`` ask for."""
        self._config = config
        self._keeper = keeper
        self._slot_cpus = slot_cpus or libbpf.online_cpus()
        self._extra_groups = extra_groups
        self._layout = layout or layout_for(extra_groups)
        super().__init__(self._layout.record)
        self._cpus = libbpf.possible_cpus()
        self.preemptible = host.is_realtime()
        """Whether programs of one CPU may interrupt each other: they may in a PREEMPT_RT kernel from 6.18 on, unless
        CONFIG_PREEMPT_RT_NEEDS_BH_LOCK is set (kernel/softirq.c: __local_bh_disable_ip)."""
        self._object: LoadedObject | None = None
        self._generations: Generations | None = None
        self._formers: list[tuple[Manifest, Datapath | None]] = []
        self._clock: CoarseClock | None = None
        self.state = SharedState(self._layout.state)
        self.grace = GracePeriod()
        self.halves = Halves(self.state, self.grace)
        self.ledger = Ledger(self._cpus, self._layout)
        rows = interface_rows or rows_for(len(socket.if_nameindex()), bool(config.netns))
        self.interface_counts = InterfaceCounts(self._cpus, rows, self._layout)
        self.ring = RingBuffer(RING_BYTES, self.record)
        self.extra_maps = ExtraMaps(self._layout, self._cpus, config.max_flows)
        self.table: FlowTable = table_of(config.flow_table, config.max_flows, self._slot_cpus, batch, self._layout)

    @property
    def _parts(self) -> tuple[Ledger, InterfaceCounts, RingBuffer, ExtraMaps, FlowTable]:
        return self.ledger, self.interface_counts, self.ring, self.extra_maps, self.table

    @property
    def record(self) -> np.dtype[np.void]:
        """The dtype of the rows that ``evict`` and ``read_ring`` give."""
        return self._layout.record

    def shape(self) -> TableShape:
        """For another process that reads the table."""
        config = self._config
        return TableShape(config.flow_table, config.max_flows, self.table.slot_cpus, self._layout.object)

    def kernel_bytes(self) -> int:
        """Memory that the maps take."""
        return sum(part.kernel_bytes() for part in self._parts)

    def load(self) -> None:
        """Loads and verifies the programs, or goes on with what the former process has kept: with all of it, or with
        the maps only, where the layout, the sizes and the sampling are the same. Other maps that it has kept count
        until the programs on the hooks are these; ``take_former`` empties them.

        :raises CaptureError: the host has too little memory, or the kernel refused them.
        """
        self._generations = generations = Generations(self._keeper)
        try:
            self._load(generations)
        except OSError as error:
            if generations.last is None:
                raise
            log.warning("what the former process has left in the kernel is lost: it cannot be used: %s", error.strerror)
            self.close()
            generations.drop_all()
            self._load(generations)

    def _load(self, generations: Generations) -> None:
        last = generations.last
        if last is not None:
            there = last.entries.get(InterfaceCounts.MAP, 0) // self._cpus
            self.interface_counts.rows = max(self.interface_counts.rows, there)
        obj, manifest = self._prepare()
        if last is not None and manifest.has_same_programs(last):
            obj.close()
            self._settings["hash_keys"] = last.settings["hash_keys"]
            self._adopt(generations.open(last))
            generations.go_on()
        elif last is not None and manifest.has_same_maps(last):
            self._load_on(obj, manifest, last)
        else:
            self._load_anew(obj)
            generations.keep(manifest, obj)
        self._formers = [(each, self._of(each)) for each in generations.former]
        self.ledger.base = LedgerReading.of_json(generations.last.ledger) if generations.last is not None else None
        self._start_clock()

    def _prepare(self) -> tuple[BpfObject, Manifest]:
        """The object before it is loaded, and what it will be."""
        obj = self._open_object()
        for part in self._parts:
            part.prepare(obj)
        self._write_settings(obj)
        programs = [*PROGRAMS, CLOCK_PROGRAM]
        entries = {".bss": 1, **obj.entries}
        settings, layout = settings_of(self._settings), described(self._layout)
        return obj, Manifest(hash_of(obj.path), layout, settings, entries, programs, self._config.max_flows)

    def _adopt(self, obj: LoadedObject) -> None:
        """Uses the maps and programs of ``obj``."""
        self._object = obj
        for reader in (self.state, *self._parts):
            reader.open_maps(obj)
        self.state.go_on()
        self.go_on()

    def _load_on(self, obj: BpfObject, manifest: Manifest, last: Manifest) -> None:
        """Loads the programs for the maps of ``last``, under its hash keys, by which flows are found there."""
        assert self._generations is not None
        settings = obj.initial(".rodata", SETTINGS)
        settings["hash_keys"] = self._settings["hash_keys"] = last.settings["hash_keys"]
        manifest = replace(manifest, settings=settings_of(self._settings))
        kept = self._generations.open(last)
        for name in last.entries:
            obj.reuse(name, kept.map_fd(name))
        obj.load()
        kept.close()
        log.info("the programs are new, their maps are those of the former process")
        self._adopt(obj)
        self._generations.keep_programs(manifest, obj)

    def _load_anew(self, obj: BpfObject) -> None:
        check_memory(self._config.max_flows, self.kernel_bytes())
        log.info("flow table %s: %.1f MiB of kernel memory", self._config.flow_table, self.kernel_bytes() / MIB)
        if self.preemptible:
            log.info("PREEMPT_RT kernel: a packet that interrupts another one on its CPU goes through the ring buffer")
        memory_nodes = numa.with_memory()
        with numa.interleaved(memory_nodes) if len(memory_nodes) > 1 else contextlib.nullcontext():
            obj.load()
        self._adopt(obj)

    def load_beside(self) -> None:
        """Loads and verifies the programs, with maps of their own, to take the place of another datapath.

        :raises CaptureError: as in ``load``.
        """
        obj, self._manifest = self._prepare()
        self._load_anew(obj)
        self._start_clock()

    def succeed(self, predecessor: Datapath) -> None:
        """After ``load_beside``: this is the datapath that the next process goes on with. ``take_former`` empties the
        maps of ``predecessor``, which this one owns from now on."""
        self._generations = generations = predecessor._generations
        self.journal = predecessor.journal
        assert generations is not None
        assert self._object is not None
        last = generations.last
        generations.keep(self._manifest, self._object)
        predecessors, predecessor._formers = predecessor._formers, []
        self._formers = predecessors if last is None else [*predecessors, (last, predecessor)]

    def _of(self, manifest: Manifest) -> Datapath | None:
        """The maps that a former process has kept, to be emptied; None if this version cannot read them."""
        layout, settings = read_layout(manifest.layout), manifest.settings
        if layout is None or settings["flow_table"] >= len(FLOW_TABLES):
            return None
        if FLOW_TABLES[settings["flow_table"]] == "percpu_hash" and layout.key != KEY:
            return None
        config = replace(
            self._config, max_flows=manifest.max_flows, flow_table=FLOW_TABLES[settings["flow_table"]],
            precise_time=True,  # its clock is of no interest: it counts no more
        )  # fmt: skip
        rows = settings.get("interface_rows", 0)
        former = Datapath(config, slot_cpus=settings["slot_cpus"] or 1, interface_rows=rows, layout=layout)
        assert self._generations is not None
        former.journal = self.journal
        former._adopt(self._generations.open(manifest))
        former.ledger.base = LedgerReading.of_json(manifest.ledger)
        return former

    def take_former(self, now_ns: int) -> Iterator[Records]:
        """The programs on all hooks are these: takes the rest out of former maps, and frees them. Rows of the dtype
        ``record``.

        :raises CaptureError: waiting for a grace period is impossible.
        :raises OSError: a map is unreadable.
        """
        generations = self._generations
        assert generations is not None
        while self._formers:
            manifest, former = self._formers[0]
            base = self.ledger.base or LedgerReading(NONE, {})
            if former is None:
                log.warning("flows in the kernel are of a version of netobs that this one cannot read: they are lost")
            else:
                yield in_dtype(former.take_rest(now_ns), self.record)
                self.ledger.base = base = base + former.read_ledger()
                former.close()
            generations.drained(manifest, base)
            del self._formers[0]

    @property
    def has_former(self) -> bool:
        """Whether programs may still count in former maps."""
        return bool(self._formers)

    def take_rest(self, now_ns: int) -> Records:
        """Ends counting, and takes everything out.

        :raises CaptureError: waiting for a grace period is impossible.
        :raises OSError: a map is unreadable.
        """
        self.end_counting()
        return concatenate([self.evict(now_ns), self.evict(now_ns), self.read_ring().records])

    def keep_nothing(self) -> None:
        """The next process finds nothing: for a stop."""
        if self._generations is not None:
            self._generations.drop_all()

    def _open_object(self) -> BpfObject:
        """The object without the maps of other tables."""
        obj = BpfObject(OBJECT.with_name(self._layout.object))
        for name in {*maps_of(self._layout), *PercpuHash.MAPS, *RingOnly.MAPS}.difference(self.table.MAPS):
            obj.leave_out(name)
        return obj

    def open_again(self, number: int, names: Collection[str], turn: int = 0) -> BpfObject:
        """The programs ``names`` again, ready to be loaded, with the same maps and settings, for interfaces of the
        network namespace ``number`` (1 to ``MAX_NAMESPACES``; 0: this one), which its flows have in their key. ``turn``
        (enum netobs_turn): when they count; 0: always. After ``load``. The caller loads the object, perhaps in a
        thread, and closes it.

        :raises CaptureError: the object cannot be used.
        """
        obj = self._open_object()
        try:
            settings = obj.initial(".rodata", SETTINGS)
            settings[:] = self._settings
            settings["netns"] = number
            settings["slot_netns"] = slot_netns(number)
            settings["row_key"] = row_key(number, self.interface_counts.rows)
            settings["turn"] = turn
            for name in (*SHARED_MAPS, *self.extra_maps.entries, *self.table.MAPS):
                obj.reuse(name, self.map_fd(name))
            for name in {*PROGRAMS, CLOCK_PROGRAM}.difference(names):
                obj.leave_out_program(name)
        except BaseException:
            obj.close()
            raise
        return obj

    def _write_settings(self, obj: BpfObject) -> None:
        settings = obj.initial(".rodata", SETTINGS)
        settings["sampling"] = self._config.sampling
        settings["flow_table"] = FLOW_TABLES.index(self._config.flow_table)
        settings["slots"], settings["slot_cpus"] = self.table.slots, self.table.slot_cpus
        settings["interface_rows"], settings["interface_mask"] = (
            self.interface_counts.rows,
            self.interface_counts.rows - 1,
        )
        settings["precise_time"], settings["preemptible"] = self._config.precise_time, self.preemptible
        settings["extra_groups"] = sum(1 << GROUPS.index(group) for group in self._extra_groups)
        settings["pair_mask"] = self.extra_maps.pair_mask
        settings["tick_ns"] = clock.tick_ns()
        settings["hash_keys"] = np.frombuffer(os.urandom(8 * HASH_KEYS), dtype="<u8") | 1
        self._settings = settings.copy()

    def _start_clock(self) -> None:
        if self._config.precise_time:
            return
        program = self.program_fd(CLOCK_PROGRAM)

        def read() -> tuple[int, int]:
            libbpf.run_program(program, CLOCK_FRAME)
            return self.state.clock_reading()

        self._clock = CoarseClock(read, clock.tick_ns())
        self._clock.start()
        self.state.set_tick_offset(self._clock.offset_ns)

    def _follow_clock(self) -> None:
        try:
            if self._clock is not None and self._clock.follow():
                self.state.set_tick_offset(self._clock.offset_ns)
        except OSError as error:  # too little memory for a frame: the next eviction tries again
            log.debug("the clocks cannot be compared: %s", error.strerror)

    def program_fd(self, name: str) -> int:
        """File descriptor of a program; it belongs to the object."""
        assert self._object is not None
        return self._object.program_fd(name)

    def map_fd(self, name: str) -> int:
        """File descriptor of a map; it belongs to the object."""
        assert self._object is not None
        return self._object.map_fd(name)

    def end_counting(self) -> None:
        """Stops counting: packets are neither counted nor seen. When this returns, all earlier counts are in the
        table, the ring or the ledger, and two evictions take all of them.

        :raises CaptureError: waiting for a grace period is impossible.
        """
        self.halves.end_counting()

    def flip(self, now_ns: int) -> bool:
        """As ``Taking.flip``."""
        self._follow_clock()
        return super().flip(now_ns)

    def read_ledger(self) -> LedgerReading:
        """Counts of seen packets, and of packets in no flow."""
        packets, octets = self.interface_counts.seen()
        reading = self.ledger.read()
        return replace(reading, seen=Count(reading.seen.packets + packets, reading.seen.octets + octets))

    def close(self) -> None:
        """Frees the maps, and the programs that are not attached."""
        for part in (*self._parts, self.state, self.grace):
            part.close()
        for _, former in self._formers:
            if former is not None:
                former.close()
        self._formers.clear()
        if self._object is not None:
            self._object.close()
            self._object = None
