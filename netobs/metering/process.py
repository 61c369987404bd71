"""The Metering Process: takes evictions, hands out due Flow Records, and keeps the totals of both."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from netobs.base.keeper import NOTHING, Keeper, file_of
from netobs.flow.journal import Journal, KeptJournal, name_of
from netobs.flow.records import RECORD, Records, concatenate
from netobs.metering.cache import FORCED_END, REASONS, FlowCache
from netobs.metering.store import FlowStore
from netobs.metering.undo import FILES, UndoLog


@dataclass
class Totals:
    """Totals since the start in one direction: Flow Records (rows), wire packets and IP octets."""

    flows: int = 0
    packets: int = 0
    octets: int = 0

    def add(self, records: Records) -> None:
        """Count ``records``."""
        self.flows += len(records)
        self.packets += int(records["packets"].sum())
        self.octets += int(records["octets"].sum())


RECORDS_FILE = "cache-r"


def _kept_store(dtype: np.dtype[np.void], keeper: Keeper) -> FlowStore:
    return FlowStore(dtype, file_of(keeper, name_of(RECORDS_FILE, dtype)), UndoLog(dtype, keeper))


def _convert(journal: KeptJournal, former: np.dtype[np.void], keeper: Keeper) -> None:
    """The former process's records were of another dtype: what was in its flow cache comes as rows once more."""
    state, store = journal.state, _kept_store(former, keeper)
    store.roll_back(state.generation)
    cached, leaving = store.first(state.cached), store.first(state.leaving)
    counters = list(state.counters)
    if counters:
        taken = Totals()
        taken.add(cached)
        counters[0] -= taken.flows
        for index, count in enumerate(vars(taken).values(), 1 + REASONS):
            counters[index] -= count
    journal.convert(cached, leaving, tuple(counters))
    for name in (RECORDS_FILE, *FILES):
        keeper.drop(name_of(name, former))


class Metering:
    """A flow cache with totals: ``taken`` (rows of evictions) and ``handed_out`` (Flow Records).

    ``taken.packets - handed_out.packets`` are the packets in the cache; the same holds for octets.
    """

    def __init__(
        self,
        active_timeout_ns: int,
        idle_timeout_ns: int,
        max_flows: int = 1_000_000,
        seed: int | None = None,
        dtype: np.dtype[np.void] = RECORD,
        journal: Journal | None = None,
        keeper: Keeper = NOTHING,
    ) -> None:
        """Without ``seed`` each process has its own random one. ``dtype``: of the records.

        ``journal`` and ``keeper`` belong together: the flow cache goes on where that of the former process ended.
        """
        seed = int.from_bytes(os.urandom(8), "little") if seed is None else seed
        self._journal = Journal(dtype) if journal is None else journal
        store, room = None, None
        if self._journal.keeps:
            if isinstance(self._journal, KeptJournal) and self._journal.former is not None:
                _convert(self._journal, self._journal.former, keeper)
            store = _kept_store(dtype, keeper)
            room = self._journal.room
        self._store = store
        self.cache = FlowCache(active_timeout_ns, idle_timeout_ns, max_flows, seed, dtype=dtype, store=store, room=room)
        self.taken, self.handed_out = Totals(), Totals()
        if self._journal.keeps:
            self._restore()

    def _restore(self) -> None:
        state = self._journal.state
        self.cache.restore(state.cached, state.generation)
        if state.counters:
            created, *rest = state.counters
            self.cache.created, self.cache.expired[:] = created, rest[:REASONS]
            self.taken, self.handed_out = Totals(*rest[REASONS : REASONS + 3]), Totals(*rest[REASONS + 3 :])

    def _hand_out(self, due: Records, leaving: int = 0, rows: int | None = None) -> Records:
        """Counts ``due``, of which ``leaving`` are still in the memory of the cache, and commits what has happened.
        ``rows``: of the journal that wait now, if it has changed."""
        self.handed_out.add(due)
        if self._journal.keeps:
            totals = (*vars(self.taken).values(), *vars(self.handed_out).values())
            counters = (self.cache.created, *self.cache.expired.tolist(), *totals)
            rows = self._journal.state.rows if rows is None else rows
            self._journal.metered(rows, len(due) - leaving, leaving, len(self.cache), counters)
        return due

    def due(self) -> Records:
        """The records that were handed out and are not exported yet, if the journal keeps them."""
        leaving = self._journal.state.leaving
        if self._store is None or not leaving:
            return self._journal.due()
        return concatenate([self._journal.due(), self._store.first(leaving)])

    def update(self, records: Records, now_ns: int) -> Records:
        """Take in an eviction and hand out the due records. Takes over ``records`` like ``FlowCache.update``.

        With a journal that keeps them, ``records`` wait there while records wait that were expired all at once.
        """
        state = self._journal.state
        if state.leaving:
            return records[:0]
        self.taken.add(records)
        return self._hand_out(self.cache.update(records, now_ns, state.generation), rows=0)

    def set_limits(self, active_timeout_ns: int, idle_timeout_ns: int, max_flows: int) -> Records:
        """Change the limits; hands out the records that are due because of it."""
        due = self.cache.set_limits(active_timeout_ns, idle_timeout_ns, max_flows)
        return self._hand_out(due, len(due)) if len(due) else due

    def end_interface(self, key: int) -> Records:
        """Hand out the flows of the interface ``key`` (``interface_key``), which has gone."""
        state = self._journal.state
        if state.leaving:  # with all others
            return self._journal.due()[:0]
        return self._hand_out(self.cache.expire_interface(key, state.generation))

    def end_namespace(self, netns: int) -> Records:
        """Hand out the flows of the network namespace with the number ``netns``, which has gone."""
        state = self._journal.state
        if state.leaving:
            return self._journal.due()[:0]
        return self._hand_out(self.cache.expire_namespace(netns, state.generation))

    def expire_all(self) -> Records:
        """Hand out all remaining records, with the reason "forced end"."""
        due = self.cache.expire_all(FORCED_END)
        return self._hand_out(due, len(due)) if len(due) else due
