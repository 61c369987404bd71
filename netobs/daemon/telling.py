"""What the daemon tells the operator of itself: lines of the log, and the status line of the service manager."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from netobs.base import clock
from netobs.config.text import folded
from netobs.daemon.account import Stats
from netobs.daemon.reload import Outcome
from netobs.daemon.status import Condition, StatusLine

if TYPE_CHECKING:
    from netobs.daemon.daemon import Daemon

log = logging.getLogger("netobs")


class Telling:
    """Reads the parts of ``daemon``, and changes nothing."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self.started, self.ready_ns = clock.read_pair(), 0
        """When the daemon was made, and when it was ready (CLOCK_REALTIME); 0: not yet."""
        self.last_reload: Outcome | None = None
        self._status = StatusLine(self.started.monotonic_ns)

    def stats(self) -> Stats:
        """The account now."""
        daemon = self._daemon
        return Stats(
            ledger=daemon.datapath.read_ledger(),
            table=daemon.evictions.stats(daemon.config.capture.flow_table),
            taken=daemon.metering.taken,
            handed_out=daemon.metering.handed_out,
            cached_flows=len(daemon.metering.cache),
            expired=tuple(int(count) for count in daemon.metering.cache.expired),
            collectors=daemon.exporting.stats(),
            silence=daemon.loop.longest_silence,
        )

    def log_stats(self, level: int) -> None:
        """The account, as lines of the log."""
        for line in self.stats().lines():
            log.log(level, "%s", line)
        self._daemon.packets.report(level)

    def say_status(self, now_ns: int) -> None:
        """The line for ``systemctl status``."""
        daemon = self._daemon
        if not daemon.service.listens:
            return
        if daemon.attaching.is_busy:
            daemon.service.status(daemon.attaching.progress())
            return
        daemon.service.status(self._status.text(self.condition(), now_ns))

    def condition(self) -> Condition:
        """How it goes, in a few numbers."""
        daemon = self._daemon
        return Condition(
            len(daemon.points.attached),
            daemon.metering.handed_out.flows,
            *daemon.exporting.available,
            daemon.datapath.read_ledger().lost.packets,
            daemon.exporting.not_sent_packets,
        )

    def progress(self, now_ns: int) -> None:
        """Attaching to many interfaces, or detaching from them, takes long."""
        self._daemon.service.takes_longer()
        self._daemon.service.alive()
        self.say_status(now_ns)

    def ready(self, now_ns: int) -> None:
        """The daemon does all of its work from now on."""
        self.ready_ns = clock.read_pair().realtime_ns
        log.info("netobs ready: %s", self._activity("no interface yet"))
        self.say_status(now_ns)

    def reload_ended(self, outcome: Outcome, now_ns: int) -> None:
        """The new configuration is applied, or the former one stays."""
        if not outcome.error:
            log.info("reload: done: %s", self._activity("no interface"))
        self.last_reload, self._status.reload_failed = outcome, bool(outcome.error)
        self.say_status(now_ns)

    def _activity(self, nothing: str) -> str:
        daemon = self._daemon
        names = folded(interface.name for interface in daemon.points.attached) or nothing
        if daemon.namespaces is not None:
            names += f" and {len(daemon.namespaces)} network namespace(s)"
        return f"measuring {names}, exporting to {daemon.exporting.available[1]} collector(s)"
