"""When flows are taken out of the kernel: at each interval, soon after the table is full, and what it refused."""

from __future__ import annotations

import logging
from typing import Callable

from netobs.base import clock
from netobs.base.histogram import Histogram
from netobs.base.keeper import NOTHING, Keeper, file_of
from netobs.base.kept_record import KeptRecord
from netobs.base.loop import EventLoop, Timer
from netobs.daemon.account import TableStats
from netobs.daemon.fill_warnings import TableWarning
from netobs.datapath.datapath import Datapath
from netobs.datapath.taking import RingReading
from netobs.flow.records import Records

log = logging.getLogger("netobs")

EMERGENCY_SPACING_NS = 100_000_000  # least time between two evictions, even if the table keeps asking
COUNTERS = "evictions"
SHED_ROWS = 65_536  # records from the ring that wait for the next eviction before metering takes them


class Evictions:
    """``start`` -> rows go to ``meter`` from the loop -> ``finish``, after which nothing is left in the kernel."""

    def __init__(
        self,
        datapath: Datapath,
        loop: EventLoop,
        meter: Callable[[Records], None],
        after_interval: Callable[[bool, int], None],
        keeper: Keeper = NOTHING,
    ) -> None:
        """``after_interval`` is called after each regular eviction: whether it succeeded, and ``now_ns``. ``keeper``:
        has the counters of the former process."""
        self._datapath, self._loop = datapath, loop
        self._meter, self._after_interval = meter, after_interval
        self._interval_ns = 0
        self._last_ns = 0
        self._regular: Timer | None = None
        self._emergency: Timer | None = None
        self._often_full = TableWarning()
        self._took = Histogram()
        self._parts: list[Records] = []
        self._shed_rows = 0
        self._record = KeptRecord(file_of(keeper, COUNTERS))
        counters = (self._record.read() or {}).get("counters", (0, 0, 0))
        self._count, self._emergencies, self._ring_packets = counters

    def start(self, interval_ns: int, now_ns: int) -> None:
        """The programs are loaded: the first eviction comes after ``interval_ns``."""
        self._loop.add_reader(self._datapath.ring.fd, self._on_ring)
        self._last_ns = now_ns
        self.set_interval(interval_ns, now_ns)

    def follow(self, datapath: Datapath) -> None:
        """Takes flows out of another ``datapath`` from now on."""
        self._loop.remove(self._datapath.ring.fd)
        datapath.grace.waited = self._datapath.grace.waited
        self._datapath = datapath
        self._loop.add_reader(datapath.ring.fd, self._on_ring)

    def set_interval(self, interval_ns: int, now_ns: int) -> None:
        """From now on so much time lies between two evictions."""
        self._interval_ns = interval_ns
        if self._regular is not None:
            self._regular.cancel()
        self._schedule(now_ns)

    def _schedule(self, now_ns: int) -> None:
        """Schedules the next eviction in rhythm, but never in the past."""
        self._regular = self._loop.call_at(max(self._last_ns + self._interval_ns, now_ns), self._on_interval)

    def _on_interval(self, now_ns: int) -> None:
        self._after_interval(self.evict(), now_ns)
        self._schedule(now_ns)

    def _on_ring(self, now_ns: int) -> None:
        """Reads the packets that the table refused. Full: evict soon. Busy: only merge, an eviction would not help."""
        reading = self._read_ring()
        self._shed_rows += len(reading.records)
        if self._shed_rows >= SHED_ROWS:
            self._hand_over()
        if reading.table_full and self._emergency is None:
            self._emergency = self._loop.call_at(max(now_ns, self._last_ns + EMERGENCY_SPACING_NS), self._on_emergency)

    def _on_emergency(self, now_ns: int) -> None:
        self._emergency = None
        self._emergencies += 1
        self._often_full.full(now_ns)
        self.evict()

    def evict(self) -> bool:
        """Takes out everything now. Whether it succeeded."""
        self._count += 1
        self._last_ns = clock.monotonic_ns()
        done = True
        try:
            self._parts.append(self._datapath.evict(self._last_ns))
        except OSError as error:  # a temporary error: the flows are still in the kernel
            log.error("eviction failed (%s): the flows stay in the kernel until the next one", error.strerror)
            done = False
        self._read_ring()
        self._hand_over()
        self._record.write({"counters": (self._count, self._emergencies, self._ring_packets)})
        self._took.add(clock.monotonic_ns() - self._last_ns)
        return done

    def _read_ring(self) -> RingReading:
        reading = self._datapath.read_ring()
        self._parts.append(reading.records)
        self._ring_packets += int(reading.records["packets"].sum())
        return reading

    def _hand_over(self) -> None:
        rows = self._datapath.journal.rows(self._parts)
        self._parts.clear()  # to save memory: from here on there is one copy
        self._shed_rows = 0
        self._meter(rows)

    def finish(self, goes_on: bool = False) -> None:
        """Ends counting, and takes out what was counted: both halves of the table. With ``goes_on``, takes out what was
        counted so far."""
        for timer in (self._regular, self._emergency):
            if timer is not None:
                timer.cancel()
        self._loop.remove(self._datapath.ring.fd)
        if goes_on:
            self.evict()
            return
        self._datapath.end_counting()
        for _ in range(2):
            self.evict()

    def stats(self, name: str) -> TableStats:
        """What became of them so far, for the flow table called ``name``."""
        occupancy = self._datapath.table.occupancy()
        durations = self._took, self._datapath.grace.waited
        return TableStats(name, occupancy, self._count, self._emergencies, self._ring_packets, *durations)
