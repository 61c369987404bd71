"""When flows are taken out of the kernel: at each interval, soon after the table is full, and what it refused."""

from __future__ import annotations

import functools
import logging
from typing import Callable

from netobs.base import background, clock
from netobs.base.errors import NetobsError
from netobs.base.histogram import Histogram
from netobs.base.keeper import NOTHING, Keeper, file_of
from netobs.base.kept_record import KeptRecord
from netobs.base.loop import EventLoop, Timer
from netobs.daemon.account import TableStats
from netobs.daemon.fill_warnings import TableWarning
from netobs.datapath.datapath import Datapath
from netobs.datapath.taking import RingReading
from netobs.flow.records import Records

Then = Callable[[bool, int], None]

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
        after_interval: Then,
        keeper: Keeper = NOTHING,
    ) -> None:
        """``after_interval`` is called after each regular eviction: whether it succeeded, and when it began.
        ``keeper``: has the counters of the former process."""
        self._datapath, self._loop = datapath, loop
        self._meter, self._after_interval = meter, after_interval
        self._interval_ns = 0
        self._last_ns = 0
        self._regular: Timer | None = None
        self._emergency: Timer | None = None
        self._begun: Then | None = None
        """What comes after the eviction that waits for its grace period."""
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
        self._finish_begun()
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
        self._begin(self._after_interval)
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
        self._begin(_nothing)

    def evict(self) -> None:
        """Takes out everything now, which is a silence of the loop of some ten milliseconds."""
        self._finish_begun()
        if self._flip():
            self._datapath.halves.settle()
        self._take()

    def _begin(self, then: Then) -> None:
        """Begins an eviction, which ends after a grace period, for which a thread waits: then ``then`` is called."""
        self._finish_begun()
        if not self._flip():
            then(self._take(), self._last_ns)
            return
        self._begun = then
        ended = functools.partial(self._on_settled, self._count)
        background.run(self._loop, "grace", self._datapath.halves.settle, ended)

    def _on_settled(self, number: int, error: NetobsError | None, _now_ns: int) -> None:
        if self._begun is None or self._count != number:
            return  # it was finished meanwhile
        if error is not None:
            self._finish_begun()
            return
        then, self._begun = self._begun, None
        then(self._take(), self._last_ns)

    def _finish_begun(self) -> None:
        """If an eviction waits for its grace period, the loop waits, too."""
        then, self._begun = self._begun, None
        if then is not None:
            self._datapath.halves.settle()
            succeeded, began_ns = self._take(), self._last_ns
            self._loop.call_at(began_ns, lambda _now_ns: then(succeeded, began_ns))

    def _flip(self) -> bool:
        """Whether a grace period has to pass before ``_take``."""
        self._count += 1
        self._last_ns = clock.monotonic_ns()
        self._succeeded = True
        try:
            return self._datapath.flip(self._last_ns)
        except OSError as error:
            self._fail(error)
            return False

    def _fail(self, error: OSError) -> None:
        """A temporary error: the flows are still in the kernel."""
        log.error("eviction failed (%s): the flows stay in the kernel until the next one", error.strerror)
        self._succeeded = False

    def _take(self) -> bool:
        """Ends an eviction. Whether it succeeded."""
        try:
            self._parts.append(self._datapath.take())
        except OSError as error:
            self._fail(error)
        self._read_ring()
        self._hand_over()
        self._record.write({"counters": (self._count, self._emergencies, self._ring_packets)})
        self._took.add(clock.monotonic_ns() - self._last_ns)
        return self._succeeded

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
        self._finish_begun()
        self._datapath.end_counting()
        for _ in range(2):
            self.evict()

    def stats(self, name: str) -> TableStats:
        """What became of them so far, for the flow table called ``name``."""
        occupancy = self._datapath.table.occupancy()
        durations = self._took, self._datapath.grace.waited
        return TableStats(name, occupancy, self._count, self._emergencies, self._ring_packets, *durations)


def _nothing(_succeeded: bool, _began_ns: int) -> None:
    """Nothing comes after this eviction."""
