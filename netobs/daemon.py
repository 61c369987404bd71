"""The daemon: the loop that takes flows from capture through metering and encode to export.

The only module that sees every stage. One direction: rows from the kernel -> due Flow Records -> Data Sets -> sessions.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import signal

from netobs import clock
from netobs.capture.capture import Capture, check_interfaces
from netobs.capture.datapath import RingReading
from netobs.config import CollectorConfig, Config, warnings_of
from netobs.encode.netflow5 import MAX_INTERFACE
from netobs.encode.protocols import Exporter, exporter
from netobs.errors import CaptureError
from netobs.export.group import Member
from netobs.export.routing import Router
from netobs.export.session import TransportSession
from netobs.loop import EventLoop, Timer
from netobs.metering.process import Metering
from netobs.records import ClockPair, FlowBatch, Records, concatenate, empty
from netobs.report import Report
from netobs.reporter import Reporter
from netobs.stats import CollectorStats, Stats, TableStats

log = logging.getLogger("netobs")

EMERGENCY_SPACING_NS = 100_000_000  # least time between two evictions, however loudly the table calls
SHED_ROWS = 65_536  # records from the ring that wait for the next eviction before metering takes them
READY_POLL_NS = 20_000_000
M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES = -3, 1 << 20  # malloc.h; its default grows to 32 MiB and stays there
MINUTE_NS = 60 * clock.NS_PER_S
CLOSE_WITHIN_NS = 4 * clock.NS_PER_S  # systemd and an operator's patience: the whole exit takes less than 5 s


class Daemon:
    """Runs one configuration. ``start`` -> ``loop.run`` until a signal -> ``stop`` has flushed everything."""

    def __init__(self, config: Config, loop: EventLoop) -> None:
        self._config = config
        self._loop = loop
        self._capture = Capture(config.capture)
        self._datapath = self._capture.datapath
        metering = config.metering
        self._metering = Metering(metering.active_timeout_ns, metering.idle_timeout_ns, metering.max_flows)
        self._boot_s = clock.read_pair().realtime_ns // clock.NS_PER_S  # from here counts the sysUptime of NetFlow
        self._exporters: dict[tuple[str, str], Exporter] = {}
        self._reporter = Reporter(config.capture.sampling)
        self._members = [self._member(collector, number) for number, collector in enumerate(config.collectors, 1)]
        self._router = Router(self._members, config.groups, loop)
        self._said_clamped: set[str] = set()
        self._shed: list[Records] = []
        self._shed_rows = 0
        self._last_eviction_ns = 0
        self._eviction: Timer | None = None
        self._emergency: Timer | None = None
        self._stopping = False
        self._evictions = self._emergency_evictions = self._ring_packets = 0

    def _member(self, collector: CollectorConfig, number: int) -> Member:
        key = (collector.protocol, collector.template)
        if key not in self._exporters:
            self._exporters[key] = exporter(*key, self._boot_s, self._config.capture.sampling)
        encoder, header = self._exporters[key]
        encoder.check(collector.max_message_size)

        def report(realtime_ns: int) -> Report:
            self._reporter.see_not_sent(number, member.session.stats, member.unencodable, realtime_ns)
            return self._reporter.report(number, member.session.stats)

        member = Member(collector.name, TransportSession(collector, encoder, header, self._loop, report), encoder)
        return member

    def start(self) -> None:
        """Loads, attaches, opens the sessions. Logs ``netobs ready`` once the first templates are out.

        :raises NetobsError: the daemon cannot do its work.
        """
        for warning in warnings_of(self._config):
            log.warning("%s", warning)
        self._capture.load()
        self._attach()
        now_ns, pair = clock.monotonic_ns(), clock.read_pair()
        self._reporter.see_interfaces(self._capture.names.values())
        self._see_losses(pair)
        for member in self._members:
            member.session.open(pair, now_ns)
        self._router.start(now_ns)
        self._loop.add_reader(self._datapath.ring.fd, self._on_ring)
        self._loop.add_reader(self._capture.links.fileno(), self._on_links)
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            self._loop.on_signal(signum, self.stop)
        self._loop.on_signal(signal.SIGUSR1, lambda _now_ns: self._log_stats(logging.INFO))
        self._log_every_minute(now_ns)
        self._last_eviction_ns = now_ns
        self._schedule_eviction(now_ns)
        self._report_ready(now_ns)

    def _on_links(self, now_ns: int) -> None:
        self._capture.follow_links()
        if self._reporter.see_interfaces(self._capture.names.values()):
            for member in self._members:
                member.session.options_changed(now_ns)

    def _see_losses(self, pair: ClockPair) -> None:
        """What was lost is dated when it is seen here: at each eviction."""
        self._reporter.see_ledger(self._datapath.read_ledger(), pair.realtime_ns)
        for number, member in enumerate(self._members, 1):
            self._reporter.see_not_sent(number, member.session.stats, member.unencodable, pair.realtime_ns)

    def _attach(self) -> None:
        warning = check_interfaces(self._config.capture, self._capture.links.interfaces())
        if warning:
            log.warning("%s", warning)
        elif not self._capture.attach():
            raise CaptureError("no interface could be attached to", "the lines above say why", may_pass=True)

    def _report_ready(self, now_ns: int) -> None:
        if all(member.session.ready for member in self._members):
            names = ", ".join(interface.name for interface in self._capture.attached) or "no interface yet"
            log.info("netobs ready: measuring %s, exporting to %d collector(s)", names, len(self._members))
        else:
            self._loop.call_at(now_ns + READY_POLL_NS, self._report_ready)

    def _schedule_eviction(self, now_ns: int) -> None:
        """The next one keeps the rhythm, but is never due in the past."""
        interval_ns = self._config.capture.eviction_interval_ns
        due_ns = max(self._last_eviction_ns + interval_ns, now_ns)
        self._eviction = self._loop.call_at(due_ns, self._on_interval)

    def _on_interval(self, now_ns: int) -> None:
        self._evict()
        self._see_losses(clock.read_pair())
        self._schedule_eviction(now_ns)

    def _on_ring(self, now_ns: int) -> None:
        """What the table did not take. Full: one eviction, soon. Busy: only merged, an eviction would not help."""
        reading = self._read_ring()
        self._shed.append(reading.records)
        self._shed_rows += len(reading.records)
        if self._shed_rows >= SHED_ROWS:
            self._meter(self._take_shed())
        if reading.table_full and self._emergency is None and not self._stopping:
            due_ns = max(now_ns, self._last_eviction_ns + EMERGENCY_SPACING_NS)
            self._emergency = self._loop.call_at(due_ns, self._on_emergency)

    def _on_emergency(self, _now_ns: int) -> None:
        self._emergency = None
        self._emergency_evictions += 1
        self._evict()

    def _take_shed(self) -> list[Records]:
        shed, self._shed, self._shed_rows = self._shed, [], 0
        return shed

    def _evict(self) -> None:
        self._evictions += 1
        self._last_eviction_ns = clock.monotonic_ns()
        try:
            rows = self._datapath.evict(self._last_eviction_ns)
        except OSError as error:  # an error of the moment: what was not taken out is still there
            log.error("eviction failed (%s): the flows stay in the kernel until the next one", error.strerror)
            rows = empty(0)
        parts = [rows, *self._take_shed(), self._read_ring().records]
        del rows
        self._meter(parts)

    def _read_ring(self) -> RingReading:
        reading = self._datapath.read_ring()
        self._ring_packets += int(reading.records["packets"].sum())
        return reading

    def _meter(self, parts: list[Records]) -> None:
        rows = concatenate(parts)
        parts.clear()  # memory counts: from here on there is one copy
        self._export(self._metering.update(rows, clock.monotonic_ns()))

    def _export(self, due: Records) -> None:
        if not len(due):
            return
        batch = FlowBatch(due, clock.read_pair(), self._capture.interface_names.table())
        self._router.export(batch, clock.monotonic_ns())
        for member in self._members:
            if member.clamped and member.name not in self._said_clamped:
                self._said_clamped.add(member.name)
                log.warning("%s: NetFlow v5 cannot say an interface index above %d: such flows are sent with this "
                            "index and counted; use netflow9 or ipfix", member.session, MAX_INTERFACE)  # fmt: skip

    def stop(self, now_ns: int) -> None:
        """Detaches, takes out and exports everything that was measured, then ends the loop."""
        if self._stopping:
            return
        self._stopping = True
        for timer in (self._eviction, self._emergency):
            if timer is not None:
                timer.cancel()
        self._loop.remove(self._datapath.ring.fd)
        self._loop.remove(self._capture.links.fileno())
        self._capture.detach()
        for _ in range(2):  # both halves: a program that began before the detach may have written after the flip
            self._evict()
        self._export(self._metering.close())
        self._router.stop()
        for member in self._members:
            member.session.close(now_ns, now_ns + CLOSE_WITHIN_NS)
        self._when_closed(now_ns)

    def _when_closed(self, now_ns: int) -> None:
        if all(member.session.closed for member in self._members):
            self._log_stats(logging.INFO)  # the last lines say what became of every packet
            self._loop.stop()
        else:
            self._loop.call_at(now_ns + READY_POLL_NS, self._when_closed)

    def stats(self) -> Stats:
        """The state of everything now."""
        table = TableStats(
            self._config.capture.flow_table,
            self._datapath.table.occupancy(),
            self._evictions,
            self._emergency_evictions,
            self._ring_packets,
        )
        return Stats(
            ledger=self._datapath.read_ledger(),
            table=table,
            taken=self._metering.taken,
            handed_out=self._metering.handed_out,
            cached_flows=len(self._metering.cache),
            expired=tuple(int(count) for count in self._metering.cache.expired),
            collectors=tuple(
                CollectorStats(str(member.session), member.session.stats, member.unencodable, member.clamped)
                for member in self._members
            ),
        )

    def _log_stats(self, level: int) -> None:
        for line in self.stats().lines():
            log.log(level, "%s", line)

    def _log_every_minute(self, now_ns: int) -> None:
        self._log_stats(logging.DEBUG)
        self._loop.call_at(now_ns + MINUTE_NS, self._log_every_minute)

    def close(self) -> None:
        """Frees what ``start`` took, whether it came to its end or not."""
        self._capture.close()


def _return_memory() -> None:
    """Arrays of a large eviction go back to the system when they are freed (mallopt(3); only glibc has it)."""
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES)


def run(config: Config) -> None:
    """Runs the daemon until a signal ends it.

    :raises NetobsError: it cannot start.
    """
    _return_memory()
    with EventLoop() as loop:
        daemon = Daemon(config, loop)
        try:
            daemon.start()
            loop.run()
        finally:
            daemon.close()
