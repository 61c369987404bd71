"""The Exporting Process: the collectors of a configuration, and their replacement at a reload."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Callable

from netobs.base import clock
from netobs.base.clock import ClockPair
from netobs.base.errors import ConfigError, NetobsError, TemplateError
from netobs.base.keeper import NOTHING, Keeper
from netobs.base.loop import POLL_NS, EventLoop
from netobs.base.wall_clock import WallClock
from netobs.config import CollectorConfig, Config
from netobs.daemon import extra, host_check, protocols
from netobs.daemon.account import CollectorStats, FormerCollectors
from netobs.daemon.fill_warnings import SpoolWarning
from netobs.daemon.protocols import Surroundings
from netobs.daemon.reporter import Reporter
from netobs.encode.protocols import Exporter
from netobs.export.policies import Member
from netobs.export.router import Router
from netobs.export.session import START_WITHIN_S
from netobs.export.sink import Reach
from netobs.flow.records import FlowBatch
from netobs.flow.report import Report

if TYPE_CHECKING:
    from netobs.export.kept.places import Places
    from netobs.export.kept.session import Place

log = logging.getLogger("netobs")

Exporters = dict[tuple[str, str], Exporter]
"""The encoders, by protocol and template."""

RELOAD_WITHIN_S = 0.1
"""At a reload, the loop waits this long for the disk of a new spool; a slower disk is opened later."""
CLOSE_WITHIN_NS = 4 * clock.NS_PER_S  # systemd and an operator's patience: the whole exit takes less than 5 s
SUSPEND_WITHIN_NS = clock.NS_PER_S
"""At a restart, collectors have this time to acknowledge what was sent; the rest is sent again, and counted."""
HANDOVER_WITHIN_NS = 2 * clock.NS_PER_S
"""At a reload, removed collectors have this time for their waiting flows. The other flows wait as long."""


@dataclass(eq=False, repr=False)
class Collector:
    """One collector: ``number`` is its exportingProcessId, ``member`` its part in the router."""

    config: CollectorConfig
    exporter: Exporter
    number: int
    member: Member
    said_clamped: bool = False
    spool_warning: SpoolWarning = field(default_factory=SpoolWarning)

    def stats(self) -> CollectorStats:
        member = self.member
        account = member.sink.account
        return CollectorStats(str(member.sink), account, account.unencodable, account.clamped)


@dataclass(eq=False, repr=False)
class _Change:
    """A reload under way. ``late`` are collectors whose spool one of ``leaving`` still uses."""

    config: Config
    exporters: Exporters
    staying: list[Collector]
    fresh: list[Collector]
    late: list[CollectorConfig]
    leaving: list[Collector]
    then: Callable[[int], None]
    held: list[FlowBatch] = field(default_factory=list)


class ExportingProcess:
    """``open`` -> ``export`` batches, ``apply`` other configurations -> ``close``, until ``closed``."""

    def __init__(self, config: Config, loop: EventLoop, keeper: Keeper = NOTHING) -> None:
        """Reads templates and certificates, which may block. Goes on from what ``keeper`` has of a former process.

        :raises NetobsError: one of them cannot be used, or another process uses a spool.
        """
        self._loop = loop
        self._config = config
        self.wall_clock = WallClock(clock.read_pair())
        self._places = self._find_places(keeper) if keeper.keeps else None
        self._numbers = itertools.count(1)
        self.reporter = Reporter(config.capture.sampling)
        self._exporters = make_exporters(config, self.boot_ns)
        self.extra_groups = extra.groups(config, self._exporters.values())
        check_certificates(config)
        self._collectors = [self._collector(each, self._exporters, START_WITHIN_S) for each in config.collectors]
        if self._places is not None:
            self._places.give_up_rest()
        self._router = Router(self._members(), config.groups, loop)
        self._former = FormerCollectors()
        self._change: _Change | None = None

    def _find_places(self, keeper: Keeper) -> Places:
        from netobs.export.kept.places import Places

        places = Places(keeper)
        self.wall_clock.boot_ns = places.boot_ns(self.wall_clock.boot_ns)
        return places

    def _place(self, config: CollectorConfig, made: Exporter) -> Place | None:
        if self._places is None:
            return None
        return self._places.of(config.name, {"protocol": config.protocol, "encoder": made.encoder.fingerprint})

    @property
    def boot_ns(self) -> int:
        """The start of the exporter, for ``make_exporters``."""
        return self.wall_clock.boot_ns

    def _collector(
        self, config: CollectorConfig, exporters: Exporters, start_within_s: float = RELOAD_WITHIN_S
    ) -> Collector:
        made = exporters[config.protocol, config.template]
        number = next(self._numbers)
        for warning in template_warnings(config, made, self.reporter.sampling, bool(self._config.capture.netns)):
            log.warning("%s", warning)

        def report(realtime_ns: int) -> Report:
            self._see_not_sent(collector, realtime_ns)
            return self.reporter.report(number, collector.member.sink.account)

        sink = protocols.sink(config, made, Surroundings(self._loop, report, start_within_s, self._place(config, made)))
        collector = Collector(config, made, number, Member(config.name, sink, made.encoder))
        return collector

    def _members(self) -> list[Member]:
        return [collector.member for collector in self._collectors]

    def open(self, pair: ClockPair, now_ns: int) -> None:
        """Opens the sessions."""
        for member in self._members():
            member.sink.open(pair, now_ns)
        self._router.start(now_ns)
        host_check.look_for_twins(self._config, self._loop, now_ns)

    @property
    def ready(self) -> bool:
        """Whether each collector was tried: over UDP, the first Templates are sent."""
        return all(member.sink.account.attempts for member in self._members())

    @property
    def closed(self) -> bool:
        """Whether ``close`` has come to its end."""
        return all(member.sink.closed for member in self._members())

    @property
    def available(self) -> tuple[int, int]:
        """Number of collectors that seem to accept Messages, and of all collectors."""
        return sum(member.sink.reach is Reach.UP for member in self._members()), len(self._collectors)

    @property
    def not_sent_packets(self) -> int:
        """Packets in flows that a collector should have received and did not, over all collectors."""
        stats = self.stats()
        return sum(each.export.not_sent_total().packets + each.unencodable.packets for each in stats)

    def see_losses(self, pair: ClockPair) -> None:
        """Reads the counters of losses, which dates the losses, and warns the operator."""
        self._see_clock(pair)
        for collector in self._collectors:
            self._see_not_sent(collector, pair.realtime_ns)
            self._warn(collector, pair)

    def _see_clock(self, pair: ClockPair) -> None:
        self.wall_clock.see(pair)
        for member in self._members():
            member.sink.see_clock(pair)

    def _see_not_sent(self, collector: Collector, realtime_ns: int) -> None:
        member = collector.member
        self.reporter.see_not_sent(collector.number, member.sink.account, member.sink.account.unencodable, realtime_ns)

    def _warn(self, collector: Collector, pair: ClockPair) -> None:
        member = collector.member
        self.reporter.warn_of_not_sent(member.name, member.sink.account, member.sink.account.unencodable, pair)
        if collector.config.spool:
            used_bytes, most_bytes = member.sink.state.spool_bytes, collector.config.spool_max_bytes
            collector.spool_warning.see(member.name, used_bytes, most_bytes)

    def options_changed(self, now_ns: int) -> None:
        """Tells the sessions that the content of options records has changed."""
        for member in self._members():
            member.sink.options_changed(now_ns)

    def export(self, batch: FlowBatch, now_ns: int) -> None:
        """Encodes ``batch`` and hands it to the sessions."""
        self._see_clock(batch.clock)
        if self._change is not None:
            self._change.held.append(batch)
            return
        self._router.export(batch, now_ns)
        for collector in self._collectors:
            if collector.member.sink.account.clamped and not collector.said_clamped:
                from netobs.encode.netflow5 import MAX_INTERFACE

                collector.said_clamped = True
                log.warning("%s: NetFlow v5 cannot encode interface indexes above %d: such flows are sent with this "
                            "index and counted; use netflow9 or ipfix", collector.member.sink,
                            MAX_INTERFACE)  # fmt: skip

    @property
    def changing(self) -> bool:
        """Whether an ``apply`` is still under way."""
        return self._change is not None

    def apply(self, config: Config, exporters: Exporters, then: Callable[[int], None], now_ns: int) -> None:
        """Switches to the collectors and groups of ``config``, with the result of ``make_exporters`` for it; calls
        ``then`` in a later round, when that is done.

        Unchanged collectors are not interrupted. A removed or changed collector gets the flows that were exported so
        far. The flows that still wait for it go to its successor, which is the collector with the same name if it has
        the same protocol and template. Flows that arrive meanwhile are held, and exported afterwards.

        :raises NetobsError: nothing was changed.
        """
        extra.check_measured(exporters.values(), self.extra_groups)
        known = self._exporters
        exporters = {key: known[key] if key in known and known[key].says_the_same(made) else made
                     for key, made in exporters.items()}  # fmt: skip
        staying = [each for each in self._collectors if _stays(each, config, exporters)]
        leaving = [each for each in self._collectors if each not in staying]
        kept = {each.config.name for each in staying}
        busy = {_spool_folder(each.config) for each in leaving} - {None}
        new = [each for each in config.collectors if each.name not in kept]
        late = [each for each in new if _spool_folder(each) in busy]
        fresh = self._make([each for each in new if each not in late], exporters, now_ns)
        self._change = _Change(config, exporters, staying, fresh, late, leaving, then)
        pair = clock.read_pair()
        for collector in fresh:
            collector.member.sink.open(pair, now_ns)
        self._take_leave(now_ns)

    def _make(self, configs: Iterable[CollectorConfig], exporters: Exporters, now_ns: int) -> list[Collector]:
        """Makes all of them, or raises NetobsError and makes none."""
        made: list[Collector] = []
        try:
            for config in configs:
                made.append(self._collector(config, exporters))  # noqa: PERF401  what was made is closed below
        except NetobsError:
            for collector in made:
                collector.member.sink.close(now_ns, now_ns)
            raise
        return made

    def _take_leave(self, now_ns: int) -> None:
        """Hand over the waiting flows of leaving collectors, then give these time to send the rest."""
        change = self._change
        assert change is not None
        for collector in change.leaving:
            successor = next((each for each in change.fresh if _succeeds(each, collector)), None)
            if successor is not None:
                successor.member.sink.take_over(collector.member.sink, now_ns)
            collector.member.sink.close(now_ns, now_ns + HANDOVER_WITHIN_NS)
        self._when_gone(now_ns)

    def _when_gone(self, now_ns: int) -> None:
        change = self._change
        assert change is not None
        if not all(each.member.sink.closed for each in change.leaving):
            self._loop.call_at(now_ns + POLL_NS, self._when_gone)
            return
        for config in change.late:
            self._open_late(config, change, now_ns)
        self._change = None
        self._exporters, self._config = change.exporters, change.config
        self.reporter.sampling = change.config.capture.sampling
        for collector in change.leaving:
            self._warn(collector, clock.read_pair())
            for line in collector.stats().lines():
                log.info("reload: %s", line)
            self._former.add(collector.stats())
            self.reporter.forget(collector.number)
        in_order = {config.name: number for number, config in enumerate(change.config.collectors)}
        self._collectors = sorted([*change.staying, *change.fresh], key=lambda each: in_order[each.config.name])
        present = {each.config.name for each in self._collectors}
        groups = [group for group in change.config.groups if present.issuperset(group.collectors)]
        self._router = self._router.succeeded_by(self._members(), groups, now_ns)
        for batch in change.held:
            self.export(batch, now_ns)
        host_check.look_for_twins(self._config, self._loop, now_ns)
        self._loop.call_at(now_ns, change.then)

    def _open_late(self, config: CollectorConfig, change: _Change, now_ns: int) -> None:
        try:
            collector = self._collector(config, change.exporters)
        except NetobsError as error:  # another process took the spool first; the other collectors continue
            log.error("reload: %s: this collector gets no flows until the next reload", error)
            return
        collector.member.sink.open(clock.read_pair(), now_ns)
        change.fresh.append(collector)

    def close(self, now_ns: int) -> None:
        """Sends the waiting flows, and ends the sessions within ``CLOSE_WITHIN_NS``."""
        self._router.stop()
        for member in self._members():
            member.sink.close(now_ns, now_ns + CLOSE_WITHIN_NS)

    def suspend(self, now_ns: int) -> None:
        """Sends nothing any more, and leaves what waits to the next process; as ``close`` where nothing is kept."""
        self._router.stop()
        for member in self._members():
            member.sink.suspend(now_ns, now_ns + SUSPEND_WITHIN_NS)

    @property
    def present(self) -> list[Collector]:
        """The collectors, those that a reload under way adds or removes among them."""
        return self._collectors if self._change is None else [*self._collectors, *self._change.fresh]

    def former_stats(self) -> tuple[CollectorStats, ...]:
        """One account for all removed collectors, if there are any."""
        return self._former.stats()

    def stats(self) -> tuple[CollectorStats, ...]:
        """The account of each collector, preceded by one for all removed collectors."""
        return (*self.former_stats(), *(collector.stats() for collector in self.present))


def make_exporters(config: Config, boot_ns: int) -> Exporters:
    """An encoder for each protocol and template of ``config``.

    :raises TemplateError: a template file is unusable, or a Data Record is too large for ``max_message_size``.
    """
    made: Exporters = {}
    for collector in config.collectors:
        key = (collector.protocol, collector.template)
        try:
            if key not in made:
                made[key] = protocols.exporter(*key, boot_ns, config.capture.sampling)
            made[key].encoder.check(collector.max_message_size)
        except TemplateError as error:
            raise TemplateError(f'collector "{collector.name}": {error}') from error
    return made


def check_certificates(config: Config) -> None:
    """Reads the files of all TLS collectors; a connection reads them again.

    :raises ConfigError: some cannot be used; the message has a line for each.
    """
    problems = []
    for collector in config.collectors:
        if collector.transport == "tls":
            from netobs.export.link.tls import client_context

            try:
                client_context(collector)
            except NetobsError as error:
                problems.append(str(error))
    if problems:
        raise ConfigError(problems)


def template_warnings(
    collector: CollectorConfig, made: Exporter, sampling: int, has_namespaces: bool = False
) -> Iterator[str]:
    """Warnings about the template of ``collector``, if one packet in ``sampling`` is measured, and interfaces of other
    network namespaces if ``has_namespaces``."""
    if made.templates.former_ids:
        yield f'collector "{collector.name}": {made.templates.former_ids}'
    if sampling > 1 and not made.templates.says_sampling:
        yield (
            f'collector "{collector.name}": template {collector.template} does not say the sampling rate: the '
            f'collector shows 1/{sampling} of the traffic; add "sampling" to its options, or samplingInterval to its '
            "elements"
        )
    if has_namespaces and not made.templates.says_namespace:
        yield (
            f'collector "{collector.name}": template {collector.template} does not tell network namespaces apart: '
            "equal interface indexes of two of them look the same; use a template with ingressVRFID and egressVRFID"
        )


def _spool_folder(config: CollectorConfig) -> Path | None:
    """The spool folder, which no two sessions may use at a time; None without a spool."""
    if not config.spool:
        return None
    from netobs.export.spool.place import folder_of

    return folder_of(config.spool, config.name)


def _stays(collector: Collector, config: Config, exporters: Exporters) -> bool:
    its = collector.config
    return its in config.collectors and exporters[its.protocol, its.template] is collector.exporter


def _succeeds(fresh: Collector, leaving: Collector) -> bool:
    return fresh.config.name == leaving.config.name and fresh.exporter is leaving.exporter
