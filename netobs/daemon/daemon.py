"""The daemon: the loop that takes flows from the datapath through metering and encode to export.

The only module that sees every stage. One direction: rows from the kernel -> due Flow Records -> Data Sets -> sessions.
"""

from __future__ import annotations

import faulthandler
import functools
import logging
import operator
import os
import signal
import sys
from typing import TYPE_CHECKING, Callable

from netobs.base import clock, malloc
from netobs.base import log as logs
from netobs.base.clock import ClockPair
from netobs.base.errors import CaptureError
from netobs.base.loop import POLL_NS, EventLoop
from netobs.config import Config, warnings_of
from netobs.config.text import folded
from netobs.daemon import footprint, host_check, rights
from netobs.daemon.account import Stats
from netobs.daemon.attaching import Attaching
from netobs.daemon.collectors import ExportingProcess
from netobs.daemon.evictions import Evictions
from netobs.daemon.handover import Handover
from netobs.daemon.keeping import keeper_for
from netobs.daemon.loop_watch import LoopWatch
from netobs.daemon.packet_capture import PacketCapturing
from netobs.daemon.reload import Checked, Reloading
from netobs.daemon.status import Condition, StatusLine
from netobs.daemon.systemd import ServiceManager
from netobs.datapath.capture import Capture, check_interfaces
from netobs.datapath.datapath import Datapath
from netobs.flow.journal import open_journal
from netobs.flow.records import FlowBatch, Records
from netobs.kernel import privileges
from netobs.metering.process import Metering

if TYPE_CHECKING:
    from netobs.daemon.namespaces import Namespaces

log = logging.getLogger("netobs")

READY_WITHIN_NS = 3 * clock.NS_PER_S  # for the names of collectors; a service manager waits no longer than it has to
MINUTE_NS = 60 * clock.NS_PER_S
SETTLE_WITHIN_NS = 2 * clock.NS_PER_S
_limits = operator.attrgetter("metering.active_timeout_ns", "metering.idle_timeout_ns", "metering.max_flows")


class Daemon:
    """Runs one configuration. ``start`` -> ``loop.run`` until a signal -> ``stop`` has flushed everything."""

    def __init__(self, config: Config, loop: EventLoop) -> None:
        self._config = config
        self._loop = loop
        self._service = ServiceManager(os.environ, loop)
        self._keeper = keeper_for(config.capture.pin, os.environ, self._service)
        self._exporting = ExportingProcess(config, loop, self._keeper)
        self._capture = Capture(config.capture, extra_groups=self._exporting.extra_groups, keeper=self._keeper)
        self._points = self._capture.points
        self._datapath.journal = self._journal = open_journal(self._datapath.record, self._keeper)
        self._points.on_reuse = self._end_interface
        record = self._datapath.record
        self._metering = Metering(*_limits(config), dtype=record, journal=self._journal, keeper=self._keeper)
        self._packets = PacketCapturing(config, loop)
        self._reloading = Reloading(loop, self)
        self._attaching = Attaching(self._points, loop, self._tell_progress, self._report_interfaces)
        self._namespaces: Namespaces | None = None
        self._evictions = Evictions(self._datapath, loop, self._meter, self._after_eviction, self._keeper)
        self._handover = Handover(self._capture, self._evictions, self._meter, loop)
        self._stopping, self._ready_by_ns = False, 0
        self._goes_on = self._keeper.keeps
        """Whether the next process goes on where this one ends; not after a stop."""
        self._status = StatusLine(clock.monotonic_ns())
        self._watch = LoopWatch(loop)

    @property
    def _datapath(self) -> Datapath:
        return self._capture.datapath

    def start(self) -> None:
        """Loads, attaches, opens the sessions. Logs ``netobs ready`` once the first templates are out.

        :raises NetobsError: the daemon cannot do its work.
        """
        for warning in (
            *warnings_of(self._config),
            *host_check.warnings_of(self._config, self._points.links.interfaces()),
            footprint.warning(self._config, self._datapath.kernel_bytes(), self._datapath.record),
        ):
            if warning:
                log.warning("%s", warning)
        self._capture.load()
        self._packets.start(clock.monotonic_ns())
        self._follow_signals()
        self._attach()
        privileges.set_aside()
        now_ns, pair = clock.monotonic_ns(), clock.read_pair()
        if self._config.capture.netns or "netns" in self._keeper.names():  # the former process had some
            self._namespaces = self._follow_namespaces(now_ns)
        self._see_interfaces()
        self._exporting.reporter.warnings.is_old = self._keeper.keeps
        self._see_losses(pair)
        self._exporting.reporter.warnings.is_old = False
        self._exporting.open(pair, now_ns)
        self._log_every_minute(now_ns)
        self._service.expect_evictions(self._config.capture.eviction_interval_ns)
        self._evictions.start(self._config.capture.eviction_interval_ns, now_ns)
        self._export(self._journal.due())  # what the former process did not come to
        self._ready_by_ns = now_ns + READY_WITHIN_NS
        self._attaching.when_done(self._handover.take_former, now_ns)
        self._attaching.when_done(self._report_ready, now_ns)

    def _follow_signals(self) -> None:
        for signum in (signal.SIGTERM, signal.SIGINT):
            self._loop.on_signal(signum, self._stop_soon)
        if self._keeper.keeps:
            self._loop.on_signal(signal.SIGURG, self.suspend)
        # On a terminal, SIGHUP means that the user has closed it; for a service, it means reload.
        self._loop.on_signal(signal.SIGHUP, self.stop if sys.stdin and sys.stdin.isatty() else self.reload)
        self._loop.on_signal(signal.SIGUSR1, lambda _now_ns: self._log_stats(logging.INFO))

    def _stop_soon(self, now_ns: int) -> None:
        """In this round, but after ``suspend``: signals that come together are handled by their numbers."""
        self._loop.call_at(now_ns, self.stop)

    def _end_interface(self, key: int) -> None:
        """Exports the flows of a removed interface under its name, because another one has the index now."""
        self._evictions.evict()
        self._export(self._metering.end_interface(key))

    def _follow_namespaces(self, now_ns: int) -> Namespaces:
        from netobs.daemon import namespaces

        followed = namespaces.followed(
            self._config.capture,
            self._capture,
            self._loop,
            self._report_interfaces,
            self._end_namespace,
            self._keeper,
        )
        self._handover.swap_others = followed.swap
        followed.start(now_ns)
        return followed

    def _end_namespace(self, number: int) -> None:
        """Exports the flows of a network namespace that has gone."""
        self._evictions.evict()
        self._export(self._metering.end_namespace(number))

    def _see_interfaces(self) -> bool:
        """Whether the interfaces, or the names of network namespaces, are others than before."""
        interfaces, names = [*self._points.names.values()], None
        if self._namespaces is not None:
            interfaces += self._namespaces.interfaces
            names = self._namespaces.names
        return self._exporting.reporter.see_interfaces(interfaces, names)

    def _report_interfaces(self, now_ns: int) -> None:
        if not self._stopping and self._see_interfaces():
            self._exporting.options_changed(now_ns)

    def _see_losses(self, pair: ClockPair) -> None:
        """Reads the counters of losses at each eviction, which dates the losses."""
        self._exporting.reporter.see_ledger(self._datapath.read_ledger(), pair)
        self._exporting.see_losses(pair)

    def _attach(self) -> None:
        warning = check_interfaces(self._config.capture, self._points.links.interfaces())
        if warning:
            log.warning("%s", warning)
        now_ns = clock.monotonic_ns()
        self._attaching.start(now_ns)
        if not warning:
            self._attaching.when_done(self._check_attached, now_ns)

    def _check_attached(self, _now_ns: int) -> None:
        if not self._points.attached:
            raise CaptureError("no interface could be attached to", "the lines above say why", may_pass=True)

    def _tell_progress(self, now_ns: int) -> None:
        """Attaching to many interfaces, or detaching from them, takes long."""
        self._service.takes_longer()
        self._service.alive()
        self._say_status(now_ns)

    def _report_ready(self, now_ns: int) -> None:
        """A name server that does not answer holds nothing up: the collector gets its flows when it does."""
        if (self._exporting.ready and self._packets.settled) or now_ns >= self._ready_by_ns:
            log.info("netobs ready: %s", self._activity("no interface yet"))
            self._say_status(now_ns)
            rights.give_up(self._config, self._capture)
            self._service.ready()
        else:
            self._loop.call_at(now_ns + POLL_NS, self._report_ready)

    def _say_status(self, now_ns: int) -> None:
        if not self._service.listens:
            return
        if self._attaching.is_busy:
            self._service.status(self._attaching.progress())
            return
        condition = Condition(
            len(self._points.attached),
            self._metering.handed_out.flows,
            *self._exporting.available,
            self._datapath.read_ledger().lost.packets,
            self._exporting.not_sent_packets,
        )
        self._service.status(self._status.text(condition, now_ns))

    def _after_eviction(self, succeeded: bool, now_ns: int) -> None:
        if succeeded:
            self._service.alive()
        self._see_losses(clock.read_pair())
        self._say_status(now_ns)

    def _meter(self, rows: Records) -> None:
        self._export(self._metering.update(self._journal.rows([rows]), clock.monotonic_ns()))

    def _export(self, due: Records) -> None:
        """Exports ``due``, or all that the journal keeps. It goes on keeping it while a reload changes collectors."""
        if self._journal.keeps:
            due = due[:0] if self._exporting.changing else self._metering.due()
        if len(due):
            batch = FlowBatch(due, clock.read_pair(), self._points.interface_names.table(), self._journal.number)
            self._exporting.export(batch, clock.monotonic_ns())
            self._journal.exported()

    def reload(self, now_ns: int) -> None:
        """Reads the configuration file again. A mistake in it is logged, and all goes on as before."""
        if self._reloading.request(now_ns):
            self._service.reloading(now_ns)

    def present(self) -> tuple[Config, int]:
        """The configuration in force, and when the exporter began."""
        return self._config, self._exporting.boot_ns

    def load(self, config: Config) -> None:
        """In a thread: loads other programs, if ``config`` asks for others, for ``follow``.

        :raises CaptureError: they cannot be loaded.
        """
        self._handover.load(self._config.capture, config.capture)

    def export_by(self, checked: Checked, then: Callable[[int], None], now_ns: int) -> None:
        """Switches to other collectors; see ``ExportingProcess.apply``."""
        if self._config.capture.sampling != checked.config.capture.sampling:
            self._evictions.evict()  # what was measured so far is exported as sampled so far
            self._export(self._metering.expire_all())
        self._exporting.apply(checked.config, checked.exporters, then, now_ns)

    def follow(self, config: Config, now_ns: int) -> None:
        """Puts all but the collectors of ``config`` into force."""
        self._config = config
        logs.set_up(config.log.level)
        self._handover.use(now_ns)
        self._attaching.select(config.capture.selector, config.capture, now_ns)
        if self._namespaces is not None:
            self._namespaces.select(config.capture, now_ns)
        elif config.capture.netns:
            self._namespaces = self._follow_namespaces(now_ns)
        self._packets.apply(config, now_ns)
        self._report_interfaces(now_ns)
        self._export(self._metering.set_limits(*_limits(config)))
        self._service.expect_evictions(config.capture.eviction_interval_ns)
        self._evictions.set_interval(config.capture.eviction_interval_ns, now_ns)

    def reload_ended(self, failed: bool, now_ns: int) -> None:
        """Tells the operator and the service manager, as soon as the programs are on the wanted interfaces."""
        if failed:
            self._handover.undo()
        self._attaching.when_done(functools.partial(self._tell_reload_ended, failed), now_ns)

    def _tell_reload_ended(self, failed: bool, now_ns: int) -> None:
        if self._stopping:
            return
        if not failed:
            log.info("reload: done: %s", self._activity("no interface"))
        self._status.reload_failed = failed
        self._say_status(now_ns)
        self._service.ready()

    def _activity(self, nothing: str) -> str:
        names = folded(interface.name for interface in self._points.attached) or nothing
        if self._namespaces is not None:
            names += f" and {len(self._namespaces)} network namespace(s)"
        return f"measuring {names}, exporting to {self._exporting.available[1]} collector(s)"

    def stop(self, now_ns: int) -> None:
        """Stops counting, exports all measured flows, detaches, then ends the loop. The programs stay attached until
        the last flows are out, which must not wait until hundreds of interfaces are done."""
        if self._stopping or not self._reloading.stop(self.stop, now_ns):
            return
        self._goes_on = False
        self._handover.take_former(now_ns)  # at a restart the next process does, once no hook has the former programs
        self._end(now_ns)
        log.info("stopping: counting has ended, and the last flows are on their way")

    def suspend(self, now_ns: int) -> None:
        """The service manager is about to end this process, and to start the next one: programs and maps go on."""
        if self._stopping or not self._reloading.stop(self.suspend, now_ns):
            return
        self._end(now_ns)
        log.info("restarting: counting goes on, and the next process has the flows so far")

    def _end(self, now_ns: int) -> None:
        self._stopping = True
        self._service.stopping()
        self._attaching.stop()
        if self._namespaces is not None:
            self._namespaces.stop()
        self._evictions.finish(self._goes_on)
        if not self._goes_on:
            self._export(self._metering.expire_all())
        self._packets.stop(now_ns)
        self._close_sessions(clock.monotonic_ns())  # their time starts now

    def _close_sessions(self, now_ns: int) -> None:
        if self._exporting.changing:  # a reload holds the last flows: it takes a moment
            self._loop.call_at(now_ns + POLL_NS, self._close_sessions)
        else:
            self._export(self._journal.due())
            (self._exporting.suspend if self._goes_on else self._exporting.close)(now_ns)
            self._when_closed(now_ns)

    def _when_closed(self, now_ns: int) -> None:
        if self._exporting.closed and self._packets.closed:
            self._see_losses(clock.read_pair())
            self._log_stats(logging.INFO)  # the last lines account for every packet
            if self._goes_on:
                self._loop.stop()
            else:
                self._attaching.finish(self._leave_namespaces, clock.monotonic_ns())
        else:
            self._loop.call_at(now_ns + POLL_NS, self._when_closed)

    def _leave_namespaces(self, now_ns: int) -> None:
        if self._namespaces is None:
            self._loop.stop()
        else:
            self._namespaces.finish(lambda _now_ns: self._loop.stop(), now_ns)

    def stats(self) -> Stats:
        """The account now."""
        return Stats(
            ledger=self._datapath.read_ledger(),
            table=self._evictions.stats(self._config.capture.flow_table),
            taken=self._metering.taken,
            handed_out=self._metering.handed_out,
            cached_flows=len(self._metering.cache),
            expired=tuple(int(count) for count in self._metering.cache.expired),
            collectors=self._exporting.stats(),
            silence=self._loop.longest_silence,
        )

    def _log_stats(self, level: int) -> None:
        for line in self.stats().lines():
            log.log(level, "%s", line)
        self._packets.report(level)

    def _log_every_minute(self, now_ns: int) -> None:
        self._see_losses(clock.read_pair())
        self._log_stats(logging.DEBUG)
        self._loop.call_at(now_ns + MINUTE_NS, self._log_every_minute)

    def close(self) -> None:
        """Frees everything that ``start`` took, even if it failed half-way; but what the next process needs to go on
        stays, also after a failure."""
        self._packets.close()
        if self._namespaces is not None:
            self._namespaces.close(self._goes_on)
        self._handover.undo()
        self._capture.close(self._goes_on)
        if not self._goes_on:
            self._keeper.forget()
        self._keeper.settle(SETTLE_WITHIN_NS)
        self._keeper.close()
        self._service.close()


def run(config: Config) -> None:
    """Runs the daemon until a signal ends it.

    :raises NetobsError: it cannot start.
    """
    malloc.return_large()
    faulthandler.enable()  # prints where it hung, if the watchdog's SIGABRT ends it
    with EventLoop() as loop:
        daemon = Daemon(config, loop)
        try:
            daemon.start()
            loop.run()
        finally:
            daemon.close()
