"""The flow cache and the journal in processes that are killed: the next one goes on as if nothing had been."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.keeping import DictKeeper
from lab.killing import killed_after, killed_at, lines_of
from netobs.base.keeper import file_of
from netobs.base.kept_record import KeptRecord
from netobs.base.sparse import SparseArray
from netobs.flow.journal import Journal, name_of, open_journal
from netobs.flow.records import EXTRA_RECORD, RECORD, Records, opaque
from netobs.metering.process import Metering, Totals
from tests.unit.metering.flows import FIN, S, flow, many, rows, totals
from tests.unit.metering.test_model import EVICTIONS, Part, make


def fresh() -> DictKeeper:
    """A keeper with empty files: what a child process makes is its own."""
    keeper = DictKeeper()
    Metering(S, S, journal=open_journal(RECORD, keeper), keeper=keeper)
    KeptSink(keeper)
    for file in ("journal-r", "journal-d", "cache-r", "cache-u", "cache-n"):
        keeper.memory(name_of(file, EXTRA_RECORD))
    return keeper.succeed()


def ordered(records: Records) -> bytes:
    """The rows, in an order that does not depend on that of ``records``."""
    return np.sort(opaque(records)).tobytes()


class KeptSink:
    """Takes each batch whole, and no number twice, whoever is killed: the contract of sinks."""

    def __init__(self, keeper: DictKeeper) -> None:
        self._done = KeptRecord(file_of(keeper, "sink"))
        self._taken = SparseArray(RECORD, file_of(keeper, "sink-rows"))

    @property
    def records(self) -> Records:
        return self._taken.array[: (self._done.read() or {"rows": 0})["rows"]]

    @property
    def last_number(self) -> int:
        number: int = (self._done.read() or {"number": 0})["number"]
        return number

    def export(self, batch: Records, number: int) -> None:
        done = self._done.read() or {"rows": 0, "number": 0}
        if number == done["number"]:
            return
        assert number > done["number"]
        end = done["rows"] + len(batch)
        opaque(self._taken.array)[done["rows"] : end] = opaque(batch)
        self._done.write({"rows": end, "number": number})


@dataclass
class Life:
    """What a daemon goes through: evictions at their times, then a stop. ``run`` goes on where another ended."""

    evictions: list[tuple[int, Records]]
    active: int = 60 * S
    idle: int = 15 * S
    max_flows: int = 1_000_000
    leaving: dict[int, int] = field(default_factory=dict)
    """Before which eviction the flows of which interface are handed out."""

    def run(self, keeper: DictKeeper) -> Metering:
        journal = open_journal(RECORD, keeper)
        metering = Metering(self.active, self.idle, self.max_flows, journal=journal, keeper=keeper)
        sink = KeptSink(keeper)

        def done() -> int:
            return journal.state.rings.get("", 0)

        def export() -> None:
            if len(metering.due()):
                sink.export(metering.due(), journal.state.number)
                journal.exported()

        def meter() -> None:
            metering.update(journal.rows([]), self.evictions[done() - 1][0])
            export()

        export()
        if journal.state.rows:
            meter()
        for number in range(done(), len(self.evictions)):
            if number in self.leaving:
                metering.end_interface(self.leaving[number])
                export()
            records = self.evictions[number][1]
            opaque(journal.intake(RECORD).room(len(records)))[:] = opaque(records)
            journal.ring_taken("", number + 1)
            meter()
        metering.expire_all()
        export()
        return metering

    def in_one(self) -> Records:
        """What is exported if nobody is killed."""
        with fresh() as keeper:
            self.run(keeper)
            return KeptSink(keeper).records.copy()

    def check(self, keeper: DictKeeper) -> None:
        """Goes on to the end: what has come in has come out, and the account says so."""
        metering = self.run(keeper)
        exported = KeptSink(keeper).records
        came = [totals(records) for _, records in self.evictions]
        assert totals(exported) == (sum(each[0] for each in came), sum(each[1] for each in came))
        taken = sum(len(records) for _, records in self.evictions)
        assert metering.taken == Totals(taken, *totals(exported))
        assert metering.handed_out == Totals(len(exported), *totals(exported))
        assert metering.cache.created == len(exported) == int(metering.cache.expired.sum())


def busy_life(flows: int) -> Life:
    """Known flows, new ones, such as end, idle ones, a full cache, growth and shrinking, an interface that goes."""
    steps = [
        (2, many(flows, ifindex=7)),
        (4, rows(many(flows, first=flows // 2, first_ns=3 * S, last_ns=4 * S), flow(3, tcp_flags=FIN))),
        (6, rows(many(flows // 4, first_ns=5 * S, last_ns=6 * S, tcp_flags=FIN), many(flows // 2, first=3 * flows))),
        (8, rows(many(flows, first=9 * flows, first_ns=7 * S, last_ns=8 * S), many(flows, first=9 * flows))),
        (18, many(flows // 8, first=11 * flows, first_ns=18 * S, last_ns=18 * S)),
        (30, many(10, first=11 * flows, first_ns=30 * S, last_ns=30 * S)),
        (31, many(flows, first=20 * flows, first_ns=31 * S, last_ns=31 * S)),
    ]
    return Life([(second * S, records) for second, records in steps], max_flows=2 * flows, leaving={2: 7})


def test_killed_at_any_line_nothing_is_lost_and_nothing_comes_twice() -> None:
    life = busy_life(2500)  # more than a store has room for at first
    expected = ordered(life.in_one())
    with fresh() as keeper:
        lines = lines_of(partial(life.run, keeper))
    step, kills = lines // 30, 0
    for line in range(random.Random(14).randrange(step), lines, step):
        with fresh() as keeper:
            kills += killed_at(line + 1, partial(life.run, keeper))
            life.check(keeper)
            assert ordered(KeptSink(keeper).records) == expected
    assert kills >= 25  # the number of lines depends on the hashes


def test_killed_at_any_moment_again_and_again() -> None:
    """Also within a copy."""
    life, rng, kills = busy_life(20_000), random.Random(15), 0
    began = time.monotonic()
    expected = ordered(life.in_one())
    whole = time.monotonic() - began
    for _ in range(3):
        with fresh() as keeper:
            kills += sum(killed_after(rng.uniform(0, whole / 3), partial(life.run, keeper)) for _ in range(4))
            life.check(keeper)
            assert ordered(KeptSink(keeper).records) == expected
    assert kills > 2


KILLS = st.lists(st.integers(250, 2000), max_size=3)


@settings(deadline=None, max_examples=15)  # other work on the machine must not fail the test
@given(
    EVICTIONS, st.integers(0, 60), st.integers(0, 30), st.integers(0, 8), st.lists(st.integers(250, 2000), max_size=3)
)
def test_any_life_ends_the_same(
    evictions: list[tuple[int, list[Part]]], active: int, idle: int, max_flows: int, kills: list[int]
) -> None:
    now, steps = 0, []
    for wait, parts in evictions:
        now += wait
        steps.append((now, make(parts, now)))
    for _, records in steps:
        records["octets"][records["packets"] == 0] = 0
    life = Life(steps, active, idle, max_flows)
    expected = ordered(life.in_one())
    with fresh() as keeper:
        for line in kills:
            killed_at(line, partial(life.run, keeper))
        life.check(keeper)
        if max_flows > 25 or active == 0:
            assert ordered(KeptSink(keeper).records) == expected


def test_with_nothing_kept_each_array_is_its_own() -> None:
    metering = Metering(60 * S, 15 * S)
    first = metering.update(rows(flow(1, tcp_flags=FIN)), 2 * S)
    metering.update(rows(flow(2, tcp_flags=FIN)), 2 * S)
    assert [int(each) for each in first["src_addr"][0]] == [*flow(1)["src_addr"][0]]
    assert len(metering.due()) == 0


def test_records_with_other_metrics_go_on_in_the_flow_cache_of_the_next_version() -> None:
    """Whatever the former process was doing; and whoever is killed while it converts."""
    life = Life([(2 * S, many(3000)), (3 * S, rows(many(3000), many(2000, first=2500, tcp_flags=FIN)))])
    with fresh() as keeper:
        lines = lines_of(partial(life.run, keeper))
    for line in range(lines // 3, lines, lines // 10):
        with fresh() as keeper:
            killed_at(line, partial(life.run, keeper))
            before = KeptSink(keeper).records.copy()
            open_it = partial(open_with_extra, keeper)
            for later in (150, 400, 440):
                killed_at(later, open_it)
            journal, metering = open_it()
            came = [totals(records) for _, records in life.evictions[: journal.state.rings.get("", 0)]]
            number, due = journal.state.number, metering.due().copy()
            if number <= KeptSink(keeper).last_number:
                due = due[:0]
            journal.exported()
            metering.update(journal.rows([]), 4 * S)
            rest = np.concatenate([metering.due(), metering.expire_all()])
            assert rest.dtype == EXTRA_RECORD
            packets = sum(int(part["packets"].sum()) for part in (before, due, rest))
            assert packets == sum(each[0] for each in came)
            assert metering.taken.packets == metering.handed_out.packets == packets


def open_with_extra(keeper: DictKeeper) -> tuple[Journal, Metering]:
    journal = open_journal(EXTRA_RECORD, keeper)
    return journal, Metering(60 * S, 60 * S, dtype=EXTRA_RECORD, journal=journal, keeper=keeper)
