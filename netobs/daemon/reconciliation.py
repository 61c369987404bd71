"""Holds what the programs count on each hook against the kernel's own counters, beside the loop.

Both are read right after a hook has its program, and what comes later is compared: the first reading of a hook is its
baseline, which the next process goes on with if it has the same maps.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from itertools import compress
from typing import TYPE_CHECKING, Callable, NamedTuple

import numpy as np

from netobs.base import background, clock
from netobs.base.clock import NS_PER_S
from netobs.base.errors import NetobsError
from netobs.base.keeper import Keeper
from netobs.daemon import comparison
from netobs.daemon.baselines import Baselines, Held
from netobs.daemon.compared import Comparison
from netobs.daemon.comparison import KERNEL, Difference, Sample
from netobs.daemon.difference_warnings import DifferenceWarnings, Growth
from netobs.daemon.hooks import Hooks, Reading, counted_of, found, hooks_of, interface_keys
from netobs.datapath.interface_counts import InterfaceCounts
from netobs.datapath.layout import INTERFACE_NETNS_SHIFT
from netobs.kernel.attach import Attachment
from netobs.kernel.link_stats import link_stats, qdisc_drops
from netobs.kernel.observation_points import ObservationPoints

if TYPE_CHECKING:
    import numpy.typing as npt

    from netobs.daemon.daemon import Daemon

    Keys = npt.NDArray[np.uint64]
    Rows = npt.NDArray[np.void]

log = logging.getLogger("netobs")

EVERY_NS = NS_PER_S
RESTS = 100
"""A reading begins with an eviction, ``EVERY_NS`` after the last one at least, and so many times as long as it took."""
SOON_NS = NS_PER_S // 10
"""The least time where hooks are new, or somebody asks."""
PATIENCE_NS = NS_PER_S


class _Outcome(NamedTuple):
    """Of a reading: the baselines after it, the sample and difference of their hooks, whether these have a row in the
    counts, the keys in the counts whose interfaces are ``gone``, and the names of the hooks."""

    held: Held
    now: Sample
    difference: Difference
    has_row: npt.NDArray[np.bool_]
    gone: Keys
    names: list[str]


class Reconciliation:
    """``see`` after each eviction and each change of hooks -> ``of`` for the state document."""

    def __init__(self, daemon: Daemon, keeper: Keeper) -> None:
        self._daemon = daemon
        self._baselines = Baselines(keeper)
        self._warnings = DifferenceWarnings()
        self._forget_all()
        self._held = self._baselines.held
        """As the present reading found them."""
        self._placed: list[tuple[str, list[Attachment]]] = []
        self._listed = hooks_of(())
        self._is_reading, self._began_ns, self._every_ns = False, -EVERY_NS, EVERY_NS
        self._waiting: list[Callable[[int], None]] = []
        self._served: list[Callable[[int], None]] = []
        """Those of ``_waiting`` for whom the present reading is new enough."""

    def _forget_all(self) -> None:
        self._gone: Keys = np.zeros(0, "<u8")
        self._gone_ns = 0
        self._ended: set[int] = set()
        self._last: Comparison | None = None
        self._watched: Comparison | None = None
        """The last one that warnings go by: a moment ago, packets on their way would look like a difference."""

    def forget_interface(self, key: int) -> None:
        """Another interface has its ``Interface.key`` from now on."""
        self._follow_maps()
        self._baselines.forget(self._baselines.keys >> np.uint64(1) == key)

    def forget_namespace(self, number: int) -> None:
        """The namespace is gone, and no program counts for it any more."""
        self._follow_maps()
        self._ended.add(number)
        self._baselines.forget(self._baselines.keys >> np.uint64(INTERFACE_NETNS_SHIFT) == number)

    def _follow_maps(self) -> None:
        if self._baselines.follow(self._daemon.datapath.interface_counts):
            self._forget_all()

    def refresh(self, then: Callable[[int], None], now_ns: int) -> None:
        """Calls ``then`` after a reading that begins from now on, or after ``PATIENCE_NS``: the kernel's lock may take
        long."""
        loop = self._daemon.loop
        self._waiting.append(then)
        loop.call_at(max(now_ns, self._began_ns + SOON_NS), self._read_for_those_waiting)
        loop.call_at(now_ns + PATIENCE_NS, functools.partial(self._tell, then))

    def _read_for_those_waiting(self, now_ns: int) -> None:
        if self._waiting:
            self.see(now_ns)
            if not self._is_reading:
                self._tell_all(now_ns)

    def _tell_all(self, now_ns: int) -> None:
        for then in [*self._waiting]:
            self._tell(then, now_ns)

    def _tell(self, then: Callable[[int], None], now_ns: int) -> None:
        if then in self._waiting:
            self._waiting.remove(then)
            then(now_ns)

    def after_eviction(self, began_ns: int, now_ns: int) -> None:
        """An eviction, which waits for a grace period after ``began_ns``, has just ended."""
        if self._gone_ns < began_ns and not self._is_reading:
            self._free(self._daemon.datapath.interface_counts)
        self.see(now_ns, self._every_ns)

    def see(self, now_ns: int, every_ns: int = SOON_NS) -> None:
        """Begins to read if the last reading began ``every_ns`` ago."""
        daemon = self._daemon
        is_due = now_ns - self._began_ns >= every_ns and not self._is_reading
        if not is_due or daemon.is_stopping or daemon.datapath.has_former:
            return
        self._follow_maps()
        counts = daemon.datapath.interface_counts
        self._is_reading, self._began_ns, self._held = True, now_ns, self._baselines.held
        self._served = [*self._waiting]

        def read() -> Reading | OSError:
            began_ns = clock.monotonic_ns()
            try:
                before, stats, drops = counts.read(), link_stats(), qdisc_drops()
                reading = Reading(before, counts.read(), [(0, stats)], drops)
            except OSError as error:
                return error
            self._every_ns = max(EVERY_NS, RESTS * (clock.monotonic_ns() - began_ns))
            return reading

        def done(result: Reading | OSError | NetobsError, later_ns: int) -> None:
            if isinstance(result, Reading):
                self._read_others(result, [*self._all_points()][1:], later_ns)
            else:
                log.debug("the kernel's counters of the interfaces cannot be read: %s", result)
                self._ended_reading(later_ns)

        background.run(daemon.loop, "reconciliation", read, done)

    def _ended_reading(self, now_ns: int) -> None:
        self._is_reading = False
        for then in self._served:
            self._tell(then, now_ns)
        if self._waiting:
            self._daemon.loop.call_at(self._began_ns + SOON_NS, self._read_for_those_waiting)

    def _all_points(self) -> Iterator[ObservationPoints]:
        yield self._daemon.points
        if self._daemon.namespaces is not None:
            yield from (each.points for each in self._daemon.namespaces.present)

    def _hooks(self) -> Hooks:
        """Those that can be compared, listed again only when they are others."""
        placed = [(points.label, [*points.placed()]) for points in self._all_points()]
        if placed != self._placed:
            self._placed, self._listed = placed, hooks_of(self._all_points())
        return self._listed

    def _read_others(self, reading: Reading, others: list[ObservationPoints], now_ns: int) -> None:
        """One network namespace in each round of the loop."""
        daemon = self._daemon
        if self._is_too_late():
            self._ended_reading(now_ns)
            return
        if others:
            points = others.pop()
            try:
                reading.stats.append((points.number, points.links.stats()))
            except OSError as error:  # it is going away
                log.debug("network namespace %d: its interfaces' counters: %s", points.number, error)
            daemon.loop.call_at(now_ns, lambda later_ns: self._read_others(reading, others, later_ns))
            return
        self._compare(reading, now_ns)

    def _is_too_late(self) -> bool:
        """The daemon is stopping, or counts in another map by now."""
        daemon = self._daemon
        return daemon.is_stopping or daemon.datapath.interface_counts.number != self._baselines.map

    def _compare(self, reading: Reading, now_ns: int) -> None:
        """In a thread; not if what a baseline is of has changed since the reading began."""
        daemon, hooks, held = self._daemon, self._hooks(), self._held
        counts, sampled = daemon.datapath.interface_counts, daemon.config.capture.sampling > 1
        namespaces = daemon.namespaces
        followed = set() if namespaces is None else {each.points.number for each in namespaces.present}
        whole = [0, *(self._ended - followed), *(number for number, _ in reading.stats)]

        def compare() -> _Outcome:
            reading.last = counts.read() if len(reading.stats) > 1 else reading.after
            return _outcome(reading, hooks, held, sampled, whole)

        def done(result: _Outcome | NetobsError, later_ns: int) -> None:
            if isinstance(result, NetobsError):
                log.debug("the kernel's counters of the interfaces are not compared: %s", result)
            elif self._baselines.held is not held or self._is_too_late():
                self._served = []  # they wait for the next one
            else:
                self._take(result, later_ns)
            self._ended_reading(later_ns)

        background.run(daemon.loop, "comparison", compare, done)

    def _take(self, result: _Outcome, now_ns: int) -> None:
        datapath = self._daemon.datapath
        known = result.has_row | np.bool_(datapath.ledger.rest() == 0)
        self._baselines.take(result.held)
        self._gone, self._gone_ns = result.gone, now_ns
        self._last = Comparison(result.held.keys, result.held.base, result.now, result.difference, known, now_ns)
        if self._watched is None or now_ns - self._watched.at_ns >= self._every_ns:
            self._warn(self._watched, self._last, result.names)
            self._watched = self._last
        self._baselines.write(datapath.interface_counts)

    def _free(self, counts: InterfaceCounts) -> None:
        if not len(self._gone):
            return
        noted = [interface.key for points in self._all_points() for interface in points.names.values()]
        gone, self._gone = self._gone[~np.isin(self._gone >> np.uint64(1), np.array(noted, "<u8"))], self._gone[:0]
        self._baselines.keep_freed(counts)
        counts.free(gone)

    def _warn(self, before: Comparison | None, last: Comparison, names: list[str]) -> None:
        if before is None:
            return
        places, there = found(before.keys, last.keys)
        there &= last.known
        there[there] = (before.base.kernel[places[there]] == last.base.kernel[there]).all(1)
        former = places[there]
        self._warnings.tell(
            Growth(
                last.keys[there],
                [*compress(names, there)],
                last.difference.packets[there] - before.difference.packets[former],
                np.maximum(
                    last.now.kernel[there, 0] - before.now.kernel[former, 0],
                    last.now.after[there, 0] - before.now.after[former, 0],
                ),
            ),
            last.at_ns,
        )

    @property
    def last(self) -> Comparison | None:
        """The last comparison, which does not change any more."""
        return self._last

    def close(self) -> None:
        """Leaves for the next process what it goes on with."""
        self._baselines.close(self._daemon.datapath.interface_counts)


def _outcome(reading: Reading, hooks: Hooks, held: Held, sampled: bool, whole: list[int]) -> _Outcome:
    """``whole``: the numbers of the namespaces whose interfaces are all in ``reading``, or gone."""
    interfaces, stats = reading.kernel()
    places, there = found(interfaces, hooks.interfaces)
    hooks = hooks.only(there)
    now = _sample(reading, hooks, stats[places[there]], sampled)
    after = held.after(hooks.keys, now)
    has_row = found(reading.last["key"], hooks.keys)[1]
    keys = reading.last["key"]
    is_whole = np.isin(keys >> np.uint64(INTERFACE_NETNS_SHIFT), np.array(whole, "<u8"))
    gone = keys[is_whole & ~np.isin(keys >> np.uint64(1), interfaces)]
    return _Outcome(after, now, comparison.difference(after.base, now), has_row, gone, hooks.names)


def _sample(reading: Reading, hooks: Hooks, stats: Rows, sampled: bool) -> Sample:
    is_host = hooks.netns == 0
    first = np.where(is_host, counted_of(reading.before, hooks.keys), counted_of(reading.after, hooks.keys))
    then = np.where(is_host, counted_of(reading.after, hooks.keys), counted_of(reading.last, hooks.keys))
    egress = hooks.are_egress
    kernel = np.stack([
        np.where(egress, stats[f"tx_{name}"], 0 if name == "dropped" else stats[f"rx_{name}"]) for name in KERNEL
    ], 1).astype("<i8")  # fmt: skip
    kernel[:, comparison.DROPPED] += np.where(hooks.drops_as_received, stats["rx_dropped"], 0).astype("<i8")
    places, there = found(interface_keys(0, reading.drops["ifindex"]), hooks.interfaces)
    there &= egress
    kernel[there, comparison.DROPPED] += reading.drops["dropped"].astype("<i8")[places[there]]
    before, after = (comparison.ours(counted, hooks.has_ethernet, sampled) for counted in (first, then))
    return Sample(before, after, kernel)
