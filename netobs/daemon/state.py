"""The state document, version 1: all that the daemon knows of itself at one moment, as one tree for JSON.

``netobs status``, the metrics and scripts show this tree, and reckon nothing again. Times of day are seconds since
1970, ``*_s`` without a date are durations. None: not measured, or not yet.
"""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from netobs import __version__
from netobs.base.clock import NS_PER_S, ClockPair
from netobs.daemon.account import REASONS, CollectorStats, Stats, ethertypes
from netobs.daemon.collectors import Collector
from netobs.daemon.compared import UNKNOWN, Comparison, by_hook
from netobs.daemon.hooks import DIRECTIONS
from netobs.daemon.interface_metrics import Hook
from netobs.daemon.loss_warnings import Moving
from netobs.daemon.problems import problems
from netobs.daemon.reporter import Reporter
from netobs.daemon.survey import Found
from netobs.datapath.capture import REMOVED
from netobs.datapath.interface_counts import count_key
from netobs.datapath.ledger import NOT_LOST, Count, LedgerReading
from netobs.flow.tally import Tally
from netobs.kernel.attach import Attachment
from netobs.kernel.interfaces import Interface
from netobs.kernel.observation_points import ObservationPoints
from netobs.metering.process import Totals

if TYPE_CHECKING:
    from netobs.daemon.daemon import Daemon

VERSION = 1
Tree = dict[str, Any]
_STATM = Path("/proc/self/statm")
_DESCRIPTORS = "/proc/self/fd"
PART = 64
"""So many elements of a list are encoded at once."""
_JSON = json.JSONEncoder(separators=(",", ":")).encode


class Programs(NamedTuple):
    """The programs on the hooks of a network namespace, "" for the daemon's own, and its interfaces by index."""

    netns: str
    placed: list[Attachment]
    names: dict[int, Interface]


class Snapshot(NamedTuple):
    """What the daemon knows at one moment. Nothing in it changes later."""

    tree: Tree
    """Without interfaces and problems."""
    hooks: list[Programs]
    found: Found
    comparison: Comparison | None


def snapshot(daemon: Daemon, found: Found, pair: ClockPair) -> Snapshot:
    """Takes it, in the loop. ``found``: what was found out beside the loop. ``pair``: now."""
    hooks = [Programs(netns, [*points.placed()], dict(points.names)) for points, netns in _points(daemon)]
    return Snapshot(_measured(daemon, found, pair), hooks, found, daemon.reconciliation.last)


class Listing:
    """Lists the hooks of snapshots for the metrics, and sorts them again only when they are others."""

    def __init__(self) -> None:
        self._of: list[Programs] = []
        self._hooks: list[Hook] = []

    def hooks(self, taken: Snapshot) -> list[Hook]:
        """In ascending order of their keys: by number of the network namespace, then index, then direction."""
        if taken.hooks != self._of:  # attachments and interfaces do not change: most are the same objects
            self._of = taken.hooks
            self._hooks = sorted(
                Hook(
                    count_key(one.interface.netns, one.interface.index, DIRECTIONS[one.direction]),
                    netns,
                    names.get(one.interface.index, one.interface).name,
                    one.method,
                )
                for netns, placed, names in taken.hooks
                for one in placed
            )
        return self._hooks


def document(taken: Snapshot) -> Tree:
    """The whole tree of what was ``taken``. Any thread may make it: with thousands of interfaces it takes long."""
    tree = {**taken.tree, "interfaces": [*_interfaces(taken)]}
    return {"version": VERSION, "problems": [*problems(tree)], **tree}


def encoded(tree: Tree) -> Iterator[str]:
    """``tree`` in JSON, in parts: while one is made, no other thread runs."""
    separator = "{"
    for key, value in tree.items():
        yield f"{separator}{_JSON(key)}:"
        if isinstance(value, list):
            parts = (_JSON(value[at : at + PART])[1:-1] for at in range(0, len(value), PART))
            yield from ("[", *_joined(parts), "]")
        else:
            yield _JSON(value)
        separator = ","
    yield "}"


def _joined(parts: Iterable[str]) -> Iterator[str]:
    for number, part in enumerate(parts):
        yield f",{part}" if number else part


def _measured(daemon: Daemon, found: Found, pair: ClockPair) -> Tree:
    stats, reporter = daemon.telling.stats(), daemon.exporting.reporter
    return {
        "at_s": _at(pair.realtime_ns),
        "daemon": _daemon(daemon),
        "configuration": _configuration(daemon, found),
        "not_measured": [*_not_measured(daemon)],
        "table": _table(daemon, stats),
        "loop": {"longest_silence_s": stats.silence.duration_ns / NS_PER_S, "in": stats.silence.slowest or None},
        "events": {
            "clock_step": daemon.exporting.wall_clock.steps,
            "hook_removed": REMOVED.count,
            "loop_silence": daemon.watch.silences,
        },
        "ledger": _ledger(stats.ledger, reporter),
        "flow_cache": {
            "flows": stats.cached_flows,
            "max_flows": daemon.config.metering.max_flows,
            "taken": _tally(stats.taken),
            "handed_out": _tally(stats.handed_out),
            "ended": {reason: count for reason, count in zip(REASONS, stats.expired) if reason},
        },
        "collectors": [_collector(each, reporter, pair) for each in daemon.exporting.present],
        "former_collectors": [_account(each, "", reporter) for each in daemon.exporting.former_stats()],
        "packet_capture": _packet_capture(daemon, pair),
    }


def _at(realtime_ns: int) -> float | None:
    """A time of day; 0 is never."""
    return realtime_ns / NS_PER_S if realtime_ns else None


def _at_monotonic(monotonic_ns: int, pair: ClockPair) -> float:
    return (pair.realtime_ns - pair.monotonic_ns + monotonic_ns) / NS_PER_S


def _daemon(daemon: Daemon) -> Tree:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "version": __version__,
        "pid": os.getpid(),
        "state": "stopping" if daemon.is_stopping else "running" if daemon.telling.ready_ns else "starting",
        "started_s": _at(daemon.telling.started.realtime_ns),
        "ready_s": _at(daemon.telling.ready_ns),
        "cpu_s": used.ru_utime + used.ru_stime,
        "resident_bytes": _resident_bytes(),
        "descriptors": _descriptors(),
        "max_descriptors": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    }


def _resident_bytes() -> int | None:
    try:
        return int(_STATM.read_bytes().split()[1]) * resource.getpagesize()
    except OSError:
        return None


def _descriptors() -> int | None:
    """Since Linux 6.2 the size of the folder is their number (fs/proc/fd.c: proc_fd_getattr)."""
    try:
        return os.stat(_DESCRIPTORS).st_size or len(os.listdir(_DESCRIPTORS)) - 1
    except OSError:
        return None


def _configuration(daemon: Daemon, found: Found) -> Tree:
    last = daemon.telling.last_reload
    return {
        "file": daemon.config.path,
        "is_newer": found.is_newer,
        "waits": [*daemon.reloading.waits],
        "reload": last
        and {
            "ended_s": _at(last.ended_ns),
            "failed": bool(last.error),
            "error": last.error or None,
            "warnings": [*last.warnings],
        },
    }


def _points(daemon: Daemon) -> Iterator[tuple[ObservationPoints, str]]:
    """Those of each network namespace, with its name; "" is the daemon's own."""
    yield daemon.points, ""
    if daemon.namespaces is not None:
        yield from ((each.points, each.name) for each in daemon.namespaces.present)


def _interfaces(taken: Snapshot) -> Iterator[Tree]:
    counters = by_hook(taken.comparison)
    for netns, placed, names in taken.hooks:
        attached: dict[int, list[Attachment]] = {}
        for one in placed:
            attached.setdefault(one.interface.index, []).append(one)
        places = {} if netns else taken.found.places  # nobody has looked at the hooks of another namespace
        for index, attachments in sorted(attached.items()):
            directions = {}
            for one in attachments:
                place, key = places.get((index, one.direction)), (one.interface.netns, index)
                directions[one.direction] = {
                    "method": one.method,
                    "position": place.position if place else None,
                    "of": place.of if place else None,
                    **counters.get(count_key(*key, DIRECTIONS[one.direction]), UNKNOWN),
                }
            name = names.get(index, attachments[0].interface).name
            yield {"name": name, "index": index, "netns": netns, "directions": directions}


def _not_measured(daemon: Daemon) -> Iterator[Tree]:
    for points, netns in _points(daemon):
        for (index, direction), reason in points.placing.refused.items():
            name = points.names[index].name if index in points.names else str(index)
            yield {"name": name, "netns": netns, "direction": direction or None, "reason": reason}


def _table(daemon: Daemon, stats: Stats) -> Tree:
    table, capture = stats.table, daemon.config.capture
    return {
        "name": table.name,
        "max_flows": capture.max_flows,
        "levels": dict(table.occupancy),
        "evictions": table.evictions,
        "emergency_evictions": table.emergency_evictions,
        "ring_packets": table.ring_packets,
        "interval_s": capture.eviction_interval_ns / NS_PER_S,
        "last_eviction_s": None if table.took.last_ns is None else table.took.last_ns / NS_PER_S,
        "eviction_seconds": table.took.as_json(),
        "grace_seconds": table.grace.as_json(),
    }


def _count(count: Count) -> Tree:
    return {"packets": count.packets, "octets": count.octets}


def _tally(tally: Tally | Totals) -> Tree:
    return {"flows": tally.flows, "packets": tally.packets, "octets": tally.octets}


def _moving(watch: Moving | None) -> Tree:
    if watch is None:
        return {"first_s": None, "last_s": None, "packets_per_s": 0.0}
    first_ns, last_ns = watch.losses.first_ns, watch.losses.last_ns
    return {"first_s": _at(first_ns), "last_s": _at(last_ns), "packets_per_s": watch.packets_per_s}


def _ledger(ledger: LedgerReading, reporter: Reporter) -> Tree:
    return {
        "seen": _count(ledger.seen),
        "reasons": {
            reason: {**_count(count), "is_loss": reason not in NOT_LOST, **_moving(reporter.moving(reason))}
            for reason, count in ledger.reasons.items()
        },
        "not_ip": dict(ethertypes(ledger)),
    }


def _collector(collector: Collector, reporter: Reporter, pair: ClockPair) -> Tree:
    config, sink = collector.config, collector.member.sink
    state, account = sink.state, sink.account
    error = state.last_error
    return {
        "address": state.address,
        "host": config.host,
        "port": config.port,
        "protocol": config.protocol,
        "transport": config.transport,
        "template": config.template,
        "reach": sink.reach.name.lower(),
        "reach_since_s": _at_monotonic(state.since_ns, pair),
        **_account(collector.stats(), config.name, reporter),
        "name": config.name,
        "queue_bytes": state.queue_bytes,
        "max_queue_bytes": config.queue_max_bytes,
        "spool": None
        if state.spool_bytes is None
        else {**_tally(account.spooled), "bytes": state.spool_bytes, "max_bytes": config.spool_max_bytes},
        "sequence": state.sequence,
        "last_error": error and {"text": error.text, "at_s": _at_monotonic(error.at_ns, pair)},
    }


def _account(stats: CollectorStats, name: str, reporter: Reporter) -> Tree:
    export = stats.export
    return {
        "name": stats.name,
        "seen": _tally(export.seen),
        "sent": _tally(export.sent),
        "exported": _tally(export.exported),
        "not_sent": {
            reason: {**_tally(tally), **_moving(reporter.moving_of(name, reason))}
            for reason, tally in export.not_sent.items()
        },
        "no_template": {**_tally(stats.unencodable), **_moving(reporter.moving_of(name, ""))},
        "waiting": _tally(export.queued),
        "spooled": _tally(export.spooled),
        "taken_over": _tally(export.taken_over),
        "moved_in": _tally(export.moved_in),
        "moved_away": _tally(export.moved_away),
        "resent": _tally(export.resent),
        "clamped_flows": stats.clamped,
        "messages": export.messages,
        "template_messages": export.template_messages,
        "sent_bytes": export.bytes,
        "reconnects": export.reconnects,
        "failed_attempts": export.failed_attempts,
        "refused": export.refused,
    }


def _packet_capture(daemon: Daemon, pair: ClockPair) -> Tree | None:
    config, packets = daemon.config.packet_capture, daemon.packets
    if not config.enabled:
        return None
    since_ns = packets.listening_ns
    return {
        "listen": str(config.listen),
        "listening_s": _at_monotonic(since_ns, pair) if since_ns else None,
        "problem": None if since_ns else packets.problem or None,
        **(packets.state or {"clients": None, "sent_packets": None, "lost": {}}),
    }
