"""The daemon: the loop that takes flows from the datapath through metering and encode to export.

The only module that sees every stage. One direction: rows from the kernel -> due Flow Records -> Data Sets -> sessions.
"""

from __future__ import annotations

import faulthandler
import functools
import gc
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
from netobs.daemon import footprint, host_check, rights
from netobs.daemon.attaching import Attaching
from netobs.daemon.collectors import ExportingProcess
from netobs.daemon.control import Control
from netobs.daemon.evictions import Evictions
from netobs.daemon.handover import Handover
from netobs.daemon.keeping import keeper_for
from netobs.daemon.loop_watch import LoopWatch
from netobs.daemon.packet_capture import PacketCapturing
from netobs.daemon.reconciliation import Reconciliation
from netobs.daemon.reload import Checked, Outcome, Reloading
from netobs.daemon.systemd import ServiceManager
from netobs.daemon.telling import Telling
from netobs.datapath.capture import Capture, check_interfaces
from netobs.datapath.datapath import Datapath
from netobs.flow.journal import open_journal
from netobs.flow.records import FlowBatch, Records
from netobs.kernel import privileges
from netobs.metering.process import Metering

if TYPE_CHECKING:
    from netobs.daemon.metrics import Metrics
    from netobs.daemon.namespaces import Namespaces

log = logging.getLogger("netobs")

READY_WITHIN_NS = 3 * clock.NS_PER_S  # for the names of collectors; a service manager waits no longer than it has to
MINUTE_NS = 60 * clock.NS_PER_S
SETTLE_WITHIN_NS = 2 * clock.NS_PER_S
_limits = operator.attrgetter("metering.active_timeout_ns", "metering.idle_timeout_ns", "metering.max_flows")


class Daemon:
    """Runs one configuration. ``start`` -> ``loop.run`` until a signal -> ``stop`` has flushed everything.

    Its parts are public for those that tell of them: ``telling``, ``state``.
    """

    def __init__(self, config: Config, loop: EventLoop) -> None:
        self.config = config
        self.loop = loop
        self.service = ServiceManager(os.environ, loop)
        self._keeper = keeper_for(config.capture.pin, os.environ, self.service)
        self.exporting = ExportingProcess(config, loop, self._keeper)
        self.capture = Capture(config.capture, extra_groups=self.exporting.extra_groups, keeper=self._keeper)
        self.points = self.capture.points
        self.datapath.journal = self._journal = open_journal(self.datapath.record, self._keeper)
        self.points.on_reuse = self._end_interface
        record = self.datapath.record
        self.metering = Metering(*_limits(config), dtype=record, journal=self._journal, keeper=self._keeper)
        self.packets = PacketCapturing(config, loop)
        self.reloading = Reloading(loop, self)
        self.telling = Telling(self)
        self.control = Control(self)
        self.metrics: Metrics | None = None
        self.attaching = Attaching(self.points, loop, self.telling.progress, self._report_interfaces)
        self.namespaces: Namespaces | None = None
        self.evictions = Evictions(self.datapath, loop, self._meter, self._after_eviction, self._keeper)
        self._handover = Handover(self.capture, self.evictions, self._meter, loop)
        self.is_stopping, self._ready_by_ns = False, 0
        self.reconciliation = Reconciliation(self, self._keeper)
        self._goes_on = self._keeper.keeps
        """Whether the next process goes on where this one ends; not after a stop."""
        self.watch = LoopWatch(loop)
        self.on_rows: Callable[[Records], None] | None = None
        """Gets the rows of each eviction, too."""

    @property
    def datapath(self) -> Datapath:
        return self.capture.datapath

    def start(self) -> None:
        """Loads, attaches, opens the sessions. Logs ``netobs ready`` once the first templates are out.

        :raises NetobsError: the daemon cannot do its work.
        """
        for warning in (
            *warnings_of(self.config),
            *host_check.warnings_of(self.config, self.points.links.interfaces()),
            footprint.warning(self.config, self.datapath.kernel_bytes(), self.datapath.record),
        ):
            if warning:
                log.warning("%s", warning)
        self.capture.load()
        self.packets.start(clock.monotonic_ns())
        self._follow_signals()
        self.control.open()
        self._attach()
        privileges.set_aside()
        now_ns, pair = clock.monotonic_ns(), clock.read_pair()
        if self.config.capture.netns or "netns" in self._keeper.names():  # the former process had some
            self.namespaces = self._follow_namespaces(now_ns)
        self._see_interfaces()
        self.exporting.reporter.warnings.is_old = self._keeper.keeps
        self.see_losses(pair)
        self.exporting.reporter.warnings.is_old = False
        self.exporting.open(pair, now_ns)
        self._log_every_minute(now_ns)
        self.service.expect_evictions(self.config.capture.eviction_interval_ns)
        self.evictions.start(self.config.capture.eviction_interval_ns, now_ns)
        self._export(self._journal.due())  # what the former process did not come to
        self._ready_by_ns = now_ns + READY_WITHIN_NS
        self._follow_metrics(now_ns)
        self.attaching.when_done(self._handover.take_former, now_ns)
        self.attaching.when_done(self.reconciliation.see, now_ns)
        self.attaching.when_done(self._report_ready, now_ns)

    def _follow_signals(self) -> None:
        for signum in (signal.SIGTERM, signal.SIGINT):
            self.loop.on_signal(signum, self._stop_soon)
        if self._keeper.keeps:
            self.loop.on_signal(signal.SIGURG, self.suspend)
        # On a terminal, SIGHUP means that the user has closed it; for a service, it means reload.
        self.loop.on_signal(signal.SIGHUP, self.stop if sys.stdin and sys.stdin.isatty() else self.reload)
        self.loop.on_signal(signal.SIGUSR1, lambda _now_ns: self.telling.log_stats(logging.INFO))

    def _stop_soon(self, now_ns: int) -> None:
        """In this round, but after ``suspend``: signals that come together are handled by their numbers."""
        self.loop.call_at(now_ns, self.stop)

    def _end_interface(self, key: int) -> None:
        """Exports the flows of a removed interface under its name, because another one has the index now."""
        self.evictions.evict()
        self._export(self.metering.end_interface(key))
        self.reconciliation.forget_interface(key)

    def _follow_namespaces(self, now_ns: int) -> Namespaces:
        from netobs.daemon import namespaces

        followed = namespaces.followed(
            self.config.capture,
            self.capture,
            self.loop,
            self._report_interfaces,
            self._end_namespace,
            self._keeper,
        )
        self._handover.swap_others = followed.swap
        followed.start(now_ns)
        return followed

    def _follow_metrics(self, now_ns: int) -> None:
        wanted = self.config.metrics
        if self.metrics is None and wanted.are_on:
            from netobs.daemon.metrics import Metrics

            self.metrics = Metrics(self)
        if self.metrics is not None:
            self.metrics.apply(wanted, now_ns)
            self.metrics = self.metrics if wanted.are_on else None

    def _end_namespace(self, number: int) -> None:
        """Exports the flows of a network namespace that has gone."""
        self.evictions.evict()
        self._export(self.metering.end_namespace(number))
        self.reconciliation.forget_namespace(number)

    def _see_interfaces(self) -> bool:
        """Whether the interfaces, or the names of network namespaces, are others than before."""
        interfaces, names = [*self.points.names.values()], None
        if self.namespaces is not None:
            interfaces += self.namespaces.interfaces
            names = self.namespaces.names
        return self.exporting.reporter.see_interfaces(interfaces, names)

    def _report_interfaces(self, now_ns: int) -> None:
        if not self.is_stopping and self._see_interfaces():
            self.exporting.options_changed(now_ns)
        self.reconciliation.see(now_ns)

    def see_losses(self, pair: ClockPair) -> None:
        """Reads the counters of losses at each eviction, which dates the losses."""
        self.exporting.reporter.see_ledger(self.datapath.read_ledger(), pair)
        self.exporting.see_losses(pair)

    def _attach(self) -> None:
        warning = check_interfaces(self.config.capture, self.points.links.interfaces())
        if warning:
            log.warning("%s", warning)
        now_ns = clock.monotonic_ns()
        self.attaching.start(now_ns)
        if not warning:
            self.attaching.when_done(self._check_attached, now_ns)

    def _check_attached(self, _now_ns: int) -> None:
        if not self.points.attached:
            raise CaptureError("no interface could be attached to", "the lines above say why", may_pass=True)

    def _report_ready(self, now_ns: int) -> None:
        """A name server that does not answer holds nothing up: the collector gets its flows when it does."""
        if (self.exporting.ready and self.packets.settled) or now_ns >= self._ready_by_ns:
            self.telling.ready(now_ns)
            gc.freeze()  # else each full collection walks all that the start has made, and is a silence of some 40 ms
            rights.give_up(self.config, self.capture)
            self.service.ready()
        else:
            self.loop.call_at(now_ns + POLL_NS, self._report_ready)

    def _after_eviction(self, succeeded: bool, began_ns: int) -> None:
        now_ns = clock.monotonic_ns()
        if succeeded:
            self.service.alive()
            self.reconciliation.after_eviction(began_ns, now_ns)
        self.see_losses(clock.read_pair())
        self.telling.say_status(now_ns)

    def _meter(self, rows: Records) -> None:
        rows = self._journal.rows([rows])
        if self.on_rows is not None:
            self.on_rows(rows)
        self._export(self.metering.update(rows, clock.monotonic_ns()))

    def _export(self, due: Records) -> None:
        """Exports ``due``, or all that the journal keeps. It goes on keeping it while a reload changes collectors."""
        if self._journal.keeps:
            due = due[:0] if self.exporting.changing else self.metering.due()
        if len(due):
            batch = FlowBatch(due, clock.read_pair(), self.points.interface_names.table(), self._journal.number)
            self.exporting.export(batch, clock.monotonic_ns())
            if self.metrics is not None:
                self.metrics.count(batch)
            self._journal.exported()

    def reload(self, now_ns: int) -> None:
        """Reads the configuration file again, now or after the present reload. A mistake in it is logged, and all goes
        on as before."""
        if self.reloading.request(now_ns):
            self.service.reloading(now_ns)

    def present(self) -> tuple[Config, int]:
        """The configuration in force, and when the exporter began."""
        return self.config, self.exporting.boot_ns

    def load(self, config: Config) -> None:
        """In a thread: loads other programs, if ``config`` asks for others, for ``follow``.

        :raises CaptureError: they cannot be loaded.
        """
        self._handover.load(self.config.capture, config.capture)

    def export_by(self, checked: Checked, then: Callable[[int], None], now_ns: int) -> None:
        """Switches to other collectors; see ``ExportingProcess.apply``."""
        if self.config.capture.sampling != checked.config.capture.sampling:
            self.evictions.evict()  # what was measured so far is exported as sampled so far
            self._export(self.metering.expire_all())
        self.exporting.apply(checked.config, checked.exporters, then, now_ns)

    def follow(self, config: Config, now_ns: int) -> None:
        """Puts all but the collectors of ``config`` into force."""
        self.config = config
        logs.set_up(config.log.level)
        self._handover.use(now_ns)
        self.attaching.select(config.capture.selector, config.capture, now_ns)
        if self.namespaces is not None:
            self.namespaces.select(config.capture, now_ns)
        elif config.capture.netns:
            self.namespaces = self._follow_namespaces(now_ns)
        self.packets.apply(config, now_ns)
        self._follow_metrics(now_ns)
        self._report_interfaces(now_ns)
        self._export(self.metering.set_limits(*_limits(config)))
        self.service.expect_evictions(config.capture.eviction_interval_ns)
        self.evictions.set_interval(config.capture.eviction_interval_ns, now_ns)

    def reload_ended(self, outcome: Outcome, now_ns: int) -> None:
        """Tells the operator and the service manager, as soon as the programs are on the wanted interfaces."""
        if outcome.error:
            self._handover.undo()
        self.attaching.when_done(functools.partial(self._tell_reload_ended, outcome), now_ns)

    def _tell_reload_ended(self, outcome: Outcome, now_ns: int) -> None:
        if not self.is_stopping:
            self.telling.reload_ended(outcome, now_ns)
            self.control.reload_ended(outcome, now_ns)
            self.service.ready()

    def stop(self, now_ns: int) -> None:
        """Stops counting, exports all measured flows, detaches, then ends the loop. The programs stay attached until
        the last flows are out, which must not wait until hundreds of interfaces are done."""
        if self.is_stopping or not self.reloading.stop(self.stop, now_ns):
            return
        self._goes_on = False
        self._handover.take_former(now_ns)  # at a restart the next process does, once no hook has the former programs
        self._end(now_ns)
        log.info("stopping: counting has ended, and the last flows are on their way")

    def suspend(self, now_ns: int) -> None:
        """The service manager is about to end this process, and to start the next one: programs and maps go on."""
        if self.is_stopping or not self.reloading.stop(self.suspend, now_ns):
            return
        self._end(now_ns)
        log.info("restarting: counting goes on, and the next process has the flows so far")

    def _end(self, now_ns: int) -> None:
        self.is_stopping = True
        self.service.stopping()
        self.attaching.stop()
        if self.namespaces is not None:
            self.namespaces.stop()
        self.evictions.finish(self._goes_on)
        if not self._goes_on:
            self._export(self.metering.expire_all())
        self.packets.stop(now_ns)
        self._close_sessions(clock.monotonic_ns())  # their time starts now

    def _close_sessions(self, now_ns: int) -> None:
        if self.exporting.changing:  # a reload holds the last flows: it takes a moment
            self.loop.call_at(now_ns + POLL_NS, self._close_sessions)
        else:
            self._export(self._journal.due())
            (self.exporting.suspend if self._goes_on else self.exporting.close)(now_ns)
            self._when_closed(now_ns)

    def _when_closed(self, now_ns: int) -> None:
        if self.exporting.closed and self.packets.closed:
            self.see_losses(clock.read_pair())
            self.telling.log_stats(logging.INFO)  # the last lines account for every packet
            if self._goes_on:
                self.loop.stop()
            else:
                self.attaching.finish(self._leave_namespaces, clock.monotonic_ns())
        else:
            self.loop.call_at(now_ns + POLL_NS, self._when_closed)

    def _leave_namespaces(self, now_ns: int) -> None:
        if self.namespaces is None:
            self.loop.stop()
        else:
            self.namespaces.finish(lambda _now_ns: self.loop.stop(), now_ns)

    def _log_every_minute(self, now_ns: int) -> None:
        self.see_losses(clock.read_pair())
        self.telling.log_stats(logging.DEBUG)
        self.loop.call_at(now_ns + MINUTE_NS, self._log_every_minute)

    def close(self) -> None:
        """Frees everything that ``start`` took, even if it failed half-way; but what the next process needs to go on
        stays, also after a failure."""
        self.control.close()
        if self.metrics is not None:
            self.metrics.close()
        self.packets.close()
        if self.namespaces is not None:
            self.namespaces.close(self._goes_on)
        self._handover.undo()
        self.reconciliation.close()
        self.capture.close(self._goes_on)
        if not self._goes_on:
            self._keeper.forget()
        self._keeper.settle(SETTLE_WITHIN_NS)
        self._keeper.close()
        self.service.close()


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
